"""What a release states, it states once or alike in every place: version, dates, oldest supported dependencies."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import shaped_transformer as st

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*extras: str) -> list[Requirement]:
    """Return what the core and these extras need."""
    optional = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *(t for extra in extras for t in optional[extra]))]


def pins(name: str) -> dict[str, Version]:
    """Return the versions in a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    parts = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {package: Version(version) for package, version in parts}


def lower_bound(requirement: Requirement) -> Version:
    """Return the oldest version that a requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator in (">=", "=="), requirement
    return Version(specifier.version)


def test_changelog_and_citation_are_of_the_version_and_of_one_day() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", changelog, flags=re.MULTILINE)
    newest, day = next(heading for heading in headings if heading[0] != "Unreleased")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest == citation["version"] == st.__version__
    assert day == str(citation["date-released"])


def test_the_version_is_stated_in_no_other_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT


def test_the_oldest_versions_tested_are_the_lower_bounds() -> None:
    """Those of packages that our dependencies need, at the end of the file, are not ours."""
    oldest = pins("constraints-oldest.txt")
    bounds = {requirement.name: lower_bound(requirement) for requirement in requirements("test")}
    assert {name: oldest.get(name) for name in bounds} == bounds
    assert len(oldest) - len(bounds) <= 5


@pytest.mark.parametrize("requirement", requirements(*PROJECT["optional-dependencies"]), ids=str)
def test_the_version_that_the_tests_run_with_is_allowed_and_no_older_than_the_bound(requirement: Requirement) -> None:
    assert pins("constraints.txt")[requirement.name] in requirement.specifier
    assert lower_bound(requirement) <= pins("constraints.txt")[requirement.name]
