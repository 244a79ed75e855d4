"""What all commands say and leave behind: lines and tables on standard error, one JSON object, a folder of results."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure
    from rich.table import Table

FILES = "figure.png, figure.svg, dataset.zarr, run.json"


def say(message: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(message + "\n")  # not through Typer, which would write into a progress bar instead of above it


def new_table(*columns: str, title: str) -> "Table":
    """Return an empty table in the house's look."""
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(*columns, title=title, box=SIMPLE, title_justify="left")


def show(table: "Table") -> None:
    """Print a table on standard error."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(table)


def fill(folder: Path, data: "xarray.Dataset | xarray.DataTree", figure: "Figure", report: dict[str, Any]) -> None:
    """Write the dataset, the picture (PNG and SVG) and the report of a run into a folder."""
    from ..figures.style import save

    data.to_zarr(folder / "dataset.zarr", zarr_format=2)
    save(figure, folder / "figure")
    (folder / "run.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def finish(out: Path, report: dict[str, Any], *, as_json: bool) -> None:
    """Say where the results are, and print the report if asked for."""
    say(f"Written to {out}: {FILES}")
    if as_json:
        typer.echo(json.dumps(report))
