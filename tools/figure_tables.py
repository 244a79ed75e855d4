"""Write the tables of docs/figures.md from the reports of the figures' full runs, which docs/results keeps.

python tools/figure_tables.py                      rewrites the tables
python tools/figure_tables.py --check              exits with status 1 if a table differs from its report
python tools/figure_tables.py --from runs/figures  first keeps the reports of `shaped-transformer figure --all`

A table stands in the page between the lines `<!-- numbers: NAME -->` and `<!-- end -->`.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

Report = dict[str, Any]

PAGE = Path("docs/figures.md")
REPORTS = Path("docs/results/figures")
LONG_RUNS = {"training": Path("docs/results/training/run.json")}
"""Reports that lie beside their dataset, of figures that `--all` leaves out."""
INTERVALS = {"training": "range over seeds"}
"""What the intervals of a figure are, where they are not at 95 %."""
START, END = "<!-- numbers: {} -->", "<!-- end -->"


class PageError(Exception):
    """A page or a report that is not as expected; the message is one line."""


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """Run the command on the repository at `root` and return its exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if a table is out of date")
    parser.add_argument("--from", dest="folder", type=Path, help="folder of new runs, with FIGURE/run.json")
    options = parser.parse_args(arguments)
    if options.check and options.folder:
        parser.error("--check changes nothing: leave out --from")
    try:
        if options.folder:
            keep_reports(options.folder, root)
        page = read(root, PAGE)
        written = rewrite(page, load_reports(root))
    except PageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if written == page:
        return 0
    if options.check:
        sys.stderr.write(f"{PAGE}: the tables differ from the reports: run python tools/figure_tables.py\n")
        return 1
    (root / PAGE).write_text(written, encoding="utf-8")
    return 0


def keep_reports(folder: Path, root: Path) -> None:
    """Copy each report of `folder` to docs/results/figures, with the command that makes that figure alone."""
    found = sorted(folder.glob("*/run.json"))
    if not found:
        raise PageError(f"{folder}: expected FIGURE/run.json, as `shaped-transformer figure --all` leaves them")
    for path in found:
        report = load(path)
        name = report["figure"]
        report["command"] = f"shaped-transformer figure {name}"
        target = root / LONG_RUNS.get(name, REPORTS / f"{name}.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_reports(root: Path) -> dict[str, Report]:
    """Return the reports kept under docs/results, by the name of their figure."""
    paths = [*sorted((root / REPORTS).glob("*.json")), *(root / path for path in LONG_RUNS.values())]
    reports = [load(path) for path in paths]
    return {report["figure"]: report for report in reports}


def load(path: Path) -> Report:
    """Read one report."""
    try:
        report: Report = json.loads(path.read_text(encoding="utf-8"))
        report["figure"], report["numbers"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PageError(f"{path}: expected the report of a figure, with 'figure' and 'numbers'") from error
    return report


def read(root: Path, page: Path) -> str:
    """Read a page of the repository."""
    try:
        return (root / page).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PageError(f"{page}: cannot be read as text") from error


def rewrite(page: str, reports: dict[str, Report]) -> str:
    """Return the page with the text between its markers made from the reports.

    Raises `PageError` unless each report has its markers in the page, once, and each pair of markers its report.
    """
    parts = re.split(rf"^{START.format('(.*)')}$", page, flags=re.MULTILINE)
    names = parts[1::2]
    for name in reports:
        if names.count(name) != 1:
            raise PageError(
                f"{PAGE}: expected the lines {START.format(name)!r} and {END!r} once, around the numbers of {name}; "
                f"the first is there {names.count(name)} times"
            )
    for i, name in enumerate(names):
        if name not in reports:
            raise PageError(f"{PAGE}: no report of {name!r} in {REPORTS}: add it, or remove its markers")
        _, end, rest = parts[2 * i + 2].partition(f"\n{END}\n")
        if not end:
            raise PageError(f"{PAGE}: expected a line {END!r} after {START.format(name)!r}")
        parts[2 * i + 1] = START.format(name)
        parts[2 * i + 2] = f"\n\n{table(reports[name])}\n\n{END}\n{rest}"
    return "".join(parts)


def table(report: Report) -> str:
    """Return the table of the numbers that a figure prints, with its opening words."""
    name = report["figure"]
    rows = [
        f"| {escape(number['name'])} | {number['value']:.3g} | [{number['low']:.3g}, {number['high']:.3g}] |"
        for number in report["numbers"]
    ]
    heading = f"| number | value | {INTERVALS.get(name, '95 % interval')} |"
    return "\n".join(["The command prints:", "", heading, "| --- | --- | --- |", *rows])


def escape(text: str) -> str:
    """Escape what ends a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
