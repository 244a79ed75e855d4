"""The worked examples of CONTRIBUTING.md are true in every step: a copy of the library is changed as they say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = re.findall(
    r"```python\n# ((?:src|tests)/\S+\.py)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.slow
def test_the_worked_examples_pass_their_own_tests(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "assertions.py", tmp_path / "tests")
    for name, code in STEPS:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(f"{before}\n{code}", encoding="utf-8")
    paths = os.pathsep.join(str(tmp_path / part) for part in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path / "tests" / "laws")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_every_step_names_its_file() -> None:
    blocks = re.findall(r"```python\n(.*?)\n", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(STEPS) == len(blocks) == 9
    new = [name for name, _ in STEPS if not (ROOT / name).exists()]
    assert new == [
        "src/shaped_transformer/design/layers/smoothing.py",
        "src/shaped_transformer/nn/smoothing.py",
        "tests/laws/test_smoothing.py",
        "tests/laws/test_algebraic.py",
    ]


@pytest.mark.parametrize(
    "place",
    re.findall(
        r"`((?:src/shaped_transformer/)?[a-z]+(?:/[a-z_]+)*(?:\.py|/))`",
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .partition("## A worked example")[0]
        .partition("Where things are")[2],
    ),
)
def test_the_places_named_exist(place: str) -> None:
    library = ROOT / "src" / "shaped_transformer"
    assert (library / place).exists() or (ROOT / place).exists()
