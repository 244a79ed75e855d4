"""`--trust`: functions that a file names are imported only with it, and then also from modules beside the file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shaped_transformer as st

SMALL = ["--samples", "20", "--correlation", "0.2", "--tokens", "2", "--out", "here"]


def definition(function: str) -> str:
    """Return a file's definition of a network that names a function."""
    arch = st.shaped_mlp(8, 2, activation=st.ShapedSmooth(st.Smooth("numpy:tanh", 0.0, -2.0), 1.0))
    return json.dumps(arch.to_dict()).replace("numpy:tanh", function)


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    """Return a definition in a folder of its own, with the module of its function beside it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beside.py").write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "Path(__file__).with_name('mark').write_text('run')\ndef f(x): return np.tanh(x)\n",
        encoding="utf-8",
    )
    file = tmp_path / "mine" / "arch.json"
    file.write_text(definition("beside:f"), encoding="utf-8")
    return file


@pytest.mark.parametrize("command", ["compare", "predict"])
def test_without_trust_the_function_is_named_with_the_way_to_allow_it(
    run: Any, arch: Path, tmp_path: Path, command: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(command, "--architecture", str(arch), *SMALL)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "the function 'beside:f'" in err
    assert "trust=True" in err
    assert "--trust" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_with_trust_a_module_beside_the_file_is_found(
    run: Any, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, out, err = run("predict", "--architecture", str(arch), "--trust", *SMALL, "--json")
    assert code == 0, err
    assert json.loads(out)["architecture"]["block"][0]["activation"]["phi"]["f"] == "beside:f"
    assert (tmp_path / "mine" / "mark").exists()
    assert sys.path[-1] == str(tmp_path / "mine")  # last: modules beside the file must not hide installed ones
    sys.modules.pop("beside")


def test_the_library_does_not_change_the_module_search_path(arch: Path) -> None:
    before = [*sys.path]
    with pytest.raises(st.DefinitionError, match=r"there is no module 'beside'.*beside the JSON file"):
        st.Architecture.read(arch, trust=True)
    assert sys.path == before


def test_processes_that_are_started_later_find_the_module_too(arch: Path, tmp_path: Path) -> None:
    code = (
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "from shaped_transformer.cli.options import search_modules_beside\n"
        "from shaped_transformer.design.functions import import_function\n"
        "if __name__ == '__main__':\n"
        f"    search_modules_beside(Path({str(arch)!r}))\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(import_function, ('beside:f',)).__name__)\n"
    )
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ)
    assert done.stdout == "f\n", done.stderr


def test_trust_without_a_file_is_refused(run: Any) -> None:
    code, _, err = run("predict", "--trust", "--samples", "20")
    assert code == 2
    assert "give it with --architecture" in err


def test_a_missing_module_is_an_error_with_the_way_out(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "arch.json").write_text(definition("not_there:f"), encoding="utf-8")
    code, _, err = run("predict", "--architecture", "arch.json", "--trust")
    assert code == 2
    assert "there is no module 'not_there'" in err
    assert "beside the JSON file of --architecture" in err
    assert err.count("\n") == 1
