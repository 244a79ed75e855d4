"""Write the table of docs/licences.md: the licence of each direct dependency, as its installed metadata states it.

python tools/licences.py          rewrites the table; all extras must be installed
python tools/licences.py --check  exits with status 1 if it differs from what is installed

The table stands between the lines `<!-- licences -->` and `<!-- end -->`.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/licences.md")
START, END = "<!-- licences -->", "<!-- end -->"
FOR_DEVELOPERS = ("bench", "browser", "dev", "docs", "test")
"""Extras that no user of the library installs."""
SHORT = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Identifiers of licences that older metadata names by classifiers."""


class PageError(Exception):
    """A page that is not as expected; the message is one line."""


def requirements(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the direct dependencies: name → the extras that need it, `core` where none is."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, needed in {"core": project["dependencies"], **project["optional-dependencies"]}.items():
        for text in needed:
            found.setdefault(Requirement(text).name, []).append(extra)
    return dict(sorted(found.items()))


def licence(installed: Distribution) -> str:
    """Return the licence that a package's metadata states, as an SPDX expression where it can be told."""
    metadata: Any = installed.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classes = [c.removeprefix(prefix) for c in metadata.get_all("Classifier", []) if c.startswith(prefix)]
    if classes:
        return " OR ".join(SHORT.get(name, name) for name in classes)
    stated = str(metadata.get("License") or "not stated").strip().splitlines()[0]
    return "Apache-2.0" if re.fullmatch(r"Apache[- ]2(\.0)?( License)?", stated) else stated


def rows(root: Path = ROOT) -> dict[str, str]:
    """Return the rows of the table, by package; packages that are not installed are left out."""
    found = {}
    for name, extras in requirements(root).items():
        try:
            stated = licence(distribution(name))
        except PackageNotFoundError:
            continue
        found[name] = f"| {name} | {stated} | {', '.join(extras)} |"
    return found


def table_in(page: str) -> dict[str, str]:
    """Return the rows of the table in a page, by package.

    **Raises:** `PageError` if the page has no table.
    """
    found = re.search(f"{START}\n\n(.*?)\n\n{END}", page, re.DOTALL)
    if found is None:
        raise PageError(f"{PAGE} needs a table between {START} and {END}")
    lines = found[1].splitlines()[2:]
    return {line.split("|")[1].strip(): line for line in lines}


def needed_by_users(root: Path = ROOT) -> Iterator[Distribution]:
    """Yield the installed packages that the core and the extras for users need, directly or not."""
    todo = [name for name, extras in requirements(root).items() if set(extras) - set(FOR_DEVELOPERS)]
    seen: set[str] = set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield found
        needed = [Requirement(text) for text in found.requires or ()]
        todo += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command on the repository at `root` and return its exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if the table is out of date"
    )
    options = parser.parse_args(arguments)
    try:
        page, made = (root / PAGE).read_text(encoding="utf-8"), rows(root)
        if missing := sorted(requirements(root).keys() - made.keys()):
            raise PageError(f"{', '.join(missing)} not installed: run make docs lint first")
        before = table_in(page)
    except PageError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    if before == made:
        return 0
    if options.check:
        print(f"{PAGE} differs from what is installed: run python tools/licences.py", file=sys.stderr)  # noqa: T201
        return 1
    table = "\n".join(("| package | licence | needed by |", "| --- | --- | --- |", *made.values()))
    new = re.sub(f"{START}\n.*?{END}", lambda _: f"{START}\n\n{table}\n\n{END}", page, flags=re.DOTALL)
    (root / PAGE).write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
