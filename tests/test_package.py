"""The package as a whole: its names refer to modules and public objects, and `dir` shows only public ones."""

import inspect
import re
import subprocess
import sys
from typing import Any

import pytest

import shaped_transformer as st

CODE = """
import importlib, pkgutil
import shaped_transformer

failed = []
for found in pkgutil.walk_packages(shaped_transformer.__path__, "shaped_transformer.", onerror=lambda name: None):
    parent, _, name = found.name.rpartition(".")
    if name == "__main__":
        continue
    package = importlib.import_module(parent)
    try:
        before = getattr(package, name, None)  # the attribute of the package before the module is imported
        module = importlib.import_module(found.name)
    except ImportError:
        continue  # its extra is not installed
    if getattr(package, name) is not module or before not in (None, module):
        failed.append(found.name)
print(*failed)
"""


@pytest.mark.slow
def test_no_attribute_of_a_package_hides_a_module() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def part(name: str) -> Any:
    """Return a part of the library, and skip the test if its extra is not installed."""
    try:
        return getattr(st, name)
    except st.MissingExtra as error:
        pytest.skip(str(error))


def test_dir_shows_the_public_names_and_the_parts_that_are_imported_when_used() -> None:
    assert dir(st) == sorted(
        {*st.__all__, "bayes", "explore", "hf", "nn", "ntk", "probe", "rehearse", "training", "weightless"}
    )


@pytest.mark.parametrize("name", ["bayes", "explore", "hf", "nn", "ntk", "probe", "rehearse", "training", "weightless"])
def test_dir_of_a_part_shows_its_public_names(name: str) -> None:
    assert dir(part(name)) == sorted(part(name).__all__)


PARTS = (
    "bayes",
    "chain",
    "explore",
    "hf",
    "inputs",
    "network",
    "nn",
    "ntk",
    "probe",
    "rehearse",
    "sde",
    "statistics",
    "weightless",
)


def public_callables() -> list[Any]:
    """Return the public functions and classes of the parts that are installed, each under its full name."""
    found = [("st", st)]
    for name in PARTS:
        try:
            module = getattr(st, name)
            [getattr(module, public) for public in module.__all__]
        except st.MissingExtra:
            continue
        found.append((f"st.{name}", module))
    names = [(f"{place}.{name}", getattr(module, name)) for place, module in found for name in module.__all__]
    return [pytest.param(thing, id=name) for name, thing in names if has_own_signature(thing)]


def has_own_signature(thing: Any) -> bool:
    """Whether this is a function or a class, but not an exception, whose signature is Python's."""
    return inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, Exception))


@pytest.mark.parametrize("thing", public_callables())
def test_signatures_show_plain_types(thing: Any) -> None:
    shown = re.sub(r"numpy\._typing\.[\w.]+", "ArrayLike", str(inspect.signature(thing)))  # what NumPy's alias holds
    assert "Annotated" not in shown
    assert not re.search(r"\b_\w+", shown), shown
