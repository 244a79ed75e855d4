"""`sweep`: many designs, whose results are collected in one store."""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..analysis import sweeps
from ..errors import counted
from ..io.provenance import command_line
from ..observables import OBSERVABLES
from ..version import __version__
from .options import Json, search_modules_beside
from .output import REPORT, Screen, new_table, results_folder, say, write_results

if TYPE_CHECKING:
    import xarray

PICTURES = ("figure.png", "figure.svg")
"""Files of the picture."""
STOPPED = "stopped"
"""Variable of the store: share of paths that left the window."""
ROWS = 40
"""Largest number of points in the table."""
FAILED = 1
"""Exit status if every point failed."""


def sweep_command(
    specification: Annotated[
        Path,
        typer.Argument(help="YAML file with the keys base, grid or list, and keep."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the store; an interrupted sweep resumes there. "
            "Default: runs/sweeps/NAME, where NAME is that of the YAML file."
        ),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, tcp://host:port.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Local worker processes. Default: threads of this process, on all cores."),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="With --workers: serve Dask's dashboard, to this machine only.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Allow architectures to name any function, also from modules beside their files. This runs their "
            "code.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Draw a grid or list of designs and collect the results in one zarr store; finished points are not drawn again."""
    from ..plotting import sweep as picture

    start, screen = time.perf_counter(), Screen(as_json)
    place = Path("runs", "sweeps", specification.stem) if out is None else out
    if trust:
        for file in sweeps.architecture_files(specification):
            search_modules_beside(file)
    with results_folder(place, "sweep") as folder:
        sweep = sweeps.read(specification, trust=trust)
        try:
            outcome = sweeps.run(sweep, place, scheduler=scheduler, workers=workers, dashboard=dashboard, say=say)
        except KeyboardInterrupt:
            say(f"Finished points are kept in {place}: the same command resumes there.")
            raise
        data = sweeps.load(place)
        report = {
            "kind": "sweep",
            "command": command_line(),
            "version": __version__,
            "specification": json.loads(data.attrs["specification"]),
            "seconds": time.perf_counter() - start,
            **asdict(outcome),
        }
        _print_table(screen, sweeps.align_with_store(place, sweep), data)
        any_done = outcome.computed + outcome.done > 0
        write_results(folder, None, picture.plot(data) if any_done else None, report)
    for failure in outcome.failed:
        say(f"failed: {failure.label}: {failure.error}")
    screen.line(f"{outcome.computed} computed, {outcome.done} already done, {len(outcome.failed)} failed")
    screen.report(place, report, (sweeps.STORE, *(PICTURES if any_done else ()), REPORT))
    if not any_done:
        raise typer.Exit(FAILED)


def _print_table(screen: Screen, sweep: sweeps.Sweep, data: "xarray.Dataset") -> None:
    """Print the medians of each point, and its share of paths that left the window."""
    names = list(dict.fromkeys(name for index in sweep.indices() for name in sweep.parameters(index)))
    title = "Medians at the last layer, and the share of paths that left the window"
    heads = [OBSERVABLES[name].words for name in sweep.keep] + [STOPPED]
    table = new_table(*names, title=title, numbers=heads)
    table.padding = (0, 0)  # a grid over one parameter fits into 80 columns
    for column in table.columns:
        column.no_wrap = False  # the heads take several lines
    indices = list(sweep.indices())
    for index in indices[:ROWS]:
        parameters = sweep.parameters(index)
        values = [data[name].to_numpy()[index][0 if name == STOPPED else 1] for name in (*sweep.keep, STOPPED)]
        numbers = [f"{x:.3g}" if math.isfinite(x) else "—" for x in values]
        table.add_row(*[str(sweeps.value_as_specified(parameters.get(name, ""))) for name in names], *numbers)
    screen.table(table)
    if len(indices) > ROWS:
        screen.line(f"… and {counted(len(indices) - ROWS, 'more point')} in the store.")
