"""`sweep`: many designs into one store."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import sweeps
from ..errors import InputError
from .options import Json
from .output import say


def sweep_command(
    specification: Annotated[Path, typer.Argument(help="YAML file: base, grid or list, keep.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; a sweep that was interrupted goes on there.")],
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, tcp://host:port.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes. Default: this one, on all cores.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a grid or list of designs into one zarr store; what has landed is never drawn again."""
    if scheduler is not None and workers is not None:
        raise InputError("give --scheduler or --workers, not both")
    outcome = sweeps.run(sweeps.read(specification), out, scheduler=scheduler, workers=workers)
    say(f"{outcome.drawn} points drawn, {outcome.kept} were there, {len(outcome.failed)} failed: {out}/store.zarr")
    for index, error in outcome.failed:
        say(f"point {list(index)}: {error}")
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
