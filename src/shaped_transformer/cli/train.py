"""`train`: train a recipe's network."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .figure import parsed
from .options import Json
from .output import say


def train_command(
    recipe: Annotated[str, typer.Argument(help="YAML file, or a packaged recipe such as quick.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run resumes there.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, KEY=VALUE in YAML; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a shaped Transformer or a baseline on real text or images."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from ..training import read

    chosen = read(recipe, parsed(changes or []))  # a wrong value fails before PyTorch is imported
    from ..training.processes import is_first_process, leave_group
    from ..training.run import train

    try:
        outcome = train(chosen, out, say=say)
    finally:
        leave_group()
    if not is_first_process():
        return
    say(f"Written to {out}: report.md, curves.png, metrics.jsonl, watch.jsonl, tensorboard, model")
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
