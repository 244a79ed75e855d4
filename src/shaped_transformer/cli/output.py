"""What all commands print and write: lines and tables on standard error, one JSON object, a folder of results."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, StorageError
from ..io.files import writing_into

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure
    from rich.table import Table

REPORT = "run.json"
"""The report of a command; its key `kind` says which command's folder this is."""
NAMES = ("figure.png", "figure.svg", "dataset.zarr", REPORT)
"""What commands write into their folders, and therefore look for before they do."""


def say(message: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(message + "\n")  # not through Typer, which would write into a progress bar instead of above it


def new_table(*columns: str, title: str) -> "Table":
    """Return an empty table in the house's look."""
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(*columns, title=title, box=SIMPLE, title_justify="left")


def print_table(table: "Table") -> None:
    """Print a table on standard error."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:  # a file has no width into which lines must fit
        console.width = max(
            console.width, Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        )
    console.print(table)


@contextmanager
def results(out: Path, kind: str) -> Iterator[Path]:
    """Give a temporary folder for the results of a command, which are moved into `out` when the body has succeeded.

    **Arguments:** `out`: the folder; `kind`: what the report will call itself under the key `kind`.

    **Raises:** before the body runs, `InputError` if the folder holds results of another kind, or things of the same
    names that are nobody's results; `StorageError` if it cannot be written.
    """
    check_owner(out, kind)
    with writing_into(out) as folder:
        yield folder


def check_owner(out: Path, kind: str) -> None:
    """Check that what a command would replace in a folder are results of the same kind.

    **Raises:** `InputError` if they are not; `StorageError` if the folder cannot be read.
    """
    try:
        found = [name for name in NAMES if (out / name).exists() or (out / name).is_symlink()]
        there = f"{', '.join(found)} without a {REPORT} of ours"
        if REPORT in found:
            report = json.loads((out / REPORT).read_bytes()) if (out / REPORT).is_file() else None
            other = report.get("kind") if isinstance(report, dict) else None
            if other == kind:
                return
            there = f"results of {other!r}" if isinstance(other, str) else f"a {REPORT} that is not ours"
    except (ValueError, RecursionError):
        there = f"a {REPORT} that is not ours"
    except OSError as error:
        raise StorageError(f"cannot read {out}: {error.strerror or error}; choose another place") from None
    if found:
        raise InputError(
            f"{out} must be free, or hold results of {kind!r} to be replaced (got {there}): choose another --out"
        )


def write_results(
    folder: Path,
    data: "xarray.Dataset | xarray.DataTree | None",
    figure: "Figure | None",
    report: dict[str, Any],
) -> None:
    """Write the dataset, the picture (PNG and SVG) and the report of a run into a folder, or what there is of them."""
    from ..plotting.style import save

    if data is not None:
        data.to_zarr(folder / "dataset.zarr", zarr_format=2)
    if figure is not None:
        save(figure, folder / "figure")
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")


def report_results(out: Path, report: dict[str, Any], *, as_json: bool, names: Sequence[str] = NAMES) -> None:
    """Print where the results are, and the report as JSON if asked for."""
    say(f"Written to {out}: {', '.join(names)}")
    if as_json:
        typer.echo(json.dumps(report))
