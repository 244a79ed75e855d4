"""Output of commands: results on standard output, notices on standard error, a folder of results."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, StorageError
from ..io.files import writing_into

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure
    from rich.table import Column, Table

REPORT = "run.json"
"""File of the report; its key `kind` names the command that wrote the folder."""
RESULTS = ("figure.png", "figure.svg", "dataset.zarr", REPORT)
"""Files that commands write. They replace existing ones only if these are their own."""


def say(message: str) -> None:
    """Print a notice on standard error."""
    sys.stderr.write(message + "\n")  # above a progress bar; Typer would write into it


@dataclass(frozen=True)
class Screen:
    """Standard output of a command: lines and tables, or with `--json` one object and nothing else.

    **Arguments:**

    - `as_json`: whether `--json` was given.
    """

    as_json: bool

    def line(self, text: str) -> None:
        """Print a line."""
        if not self.as_json:
            typer.echo(text)

    def table(self, table: "Table") -> None:
        """Print a table, on a terminal with a rule below its head, elsewhere as plain text; words are never cut."""
        if self.as_json:
            return
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:
            table.box, table.padding = None, (0, 2, 0, 0)
        elif _width(table, _widest) > console.width:
            for column in table.columns:
                if column.justify == "right":
                    column.width = _narrowest(column)
        if table.title:
            self.line(str(table.title))
            table.title = None
        needed = _width(table, _narrowest if console.is_terminal else _widest)
        console.width = max(console.width, needed)
        console.print(table)

    def json(self, value: Any) -> None:
        """Print the object that `--json` asks for."""
        if self.as_json:
            typer.echo(json.dumps(value))

    def report(self, out: Path, report: dict[str, Any], names: Sequence[str] = RESULTS) -> None:
        """Say where the results are, and print the report if `--json` was given."""
        say(f"Written to {out}: {', '.join(names)}")
        self.json(report)


def new_table(*columns: str, title: str, numbers: Sequence[str] = ()) -> "Table":
    """Return an empty table in the style of all commands.

    **Arguments:**

    - `columns`: heads of columns with words, which may be wrapped.
    - `title`: title of the table.
    - `numbers`: heads of the columns with numbers that follow, whose cells are not wrapped; default none.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, title=title, padding=(0, 1, 0, 0))
    for head in columns:
        table.add_column(head)
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _width(table: "Table", of_column: Callable[["Column"], int]) -> int:
    """Return the width of a table from that of its columns."""
    return 1 + sum(1 + table.padding[1] + of_column(column) for column in table.columns)


def _widest(column: "Column") -> int:
    """Return the width of a column whose lines are not wrapped."""
    return max(len(str(cell)) for cell in (column.header, *column.cells))


def _narrowest(column: "Column") -> int:
    """Return the least width of a column in which no word of its head and no number is cut."""
    cells = [part for cell in column.cells for part in ([str(cell)] if column.no_wrap else str(cell).split())]
    return max(map(len, (*str(column.header).split(), *cells)), default=0)


@contextmanager
def results_folder(out: Path, kind: str, names: Sequence[str] = RESULTS) -> Iterator[Path]:
    """Yield a temporary folder for the results of a command, which are moved into `out` if the body succeeds.

    **Arguments:**

    - `out`: the folder.
    - `kind`: kind of the results, which the report contains under the key `kind`.
    - `names`: names of the results, default `RESULTS`.

    **Raises:** before the body runs, `InputError` if `out` contains results of another kind, or other files with the
    names of results; `StorageError` if it cannot be written.
    """
    check_owner(out, kind, names)
    with writing_into(out) as folder:
        yield folder


def check_owner(out: Path, kind: str, names: Sequence[str] = RESULTS) -> None:
    """Check that the files that a command would replace in a folder are results of the same kind.

    **Arguments:**

    - `out`: the folder.
    - `kind`: kind of the results.
    - `names`: names of the results, default `RESULTS`.

    **Raises:** `InputError` if they are not; `StorageError` if the folder cannot be read.
    """
    foreign = f"a {REPORT} that this library did not write"
    try:
        found = [name for name in names if (out / name).exists() or (out / name).is_symlink()]
        content = f"{', '.join(found)} without a {REPORT} of this library"
        if REPORT in found:
            report = json.loads((out / REPORT).read_bytes()) if (out / REPORT).is_file() else None
            other = report.get("kind") if isinstance(report, dict) else None
            if other == kind:
                return
            content = f"results of {other!r}" if isinstance(other, str) else foreign
    except (ValueError, RecursionError):
        content = foreign
    except OSError as error:
        raise StorageError(f"cannot read {out}: {error.strerror or error}; choose another place") from None
    if found:
        raise InputError(f"{out} contains {content}, and {kind!r} replaces only its own results: choose another --out")


def write_results(
    folder: Path,
    data: "xarray.Dataset | xarray.DataTree | None",
    figure: "Figure | None",
    report: dict[str, Any],
) -> None:
    """Write the results of a command into a folder.

    **Arguments:**

    - `folder`: the folder.
    - `data`: the dataset; `None` writes none.
    - `figure`: the picture, written as PNG and SVG; `None` writes none.
    - `report`: the report, as JSON values.
    """
    from ..plotting.style import save

    if data is not None:
        data.to_zarr(folder / "dataset.zarr", zarr_format=2)
    if figure is not None:
        save(figure, folder / "figure")
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
