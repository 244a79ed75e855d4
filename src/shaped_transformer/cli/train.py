"""`train`: train a recipe's network."""

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingExtra
from .ending import exit_process
from .options import Json, parse_settings
from .output import Screen, say


def train_command(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or one of the recipes above.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; an interrupted run resumes there. "
            "Default: runs/NAME, where NAME is the recipe's, such as runs/quick."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, KEY=VALUE in YAML; may be repeated.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Start from a saved model: the folder of a run, or one that save_pretrained wrote."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from ..training import read

    settings = parse_settings(changes or []) | ({} if start is None else {"initial": str(start)})
    chosen = read(recipe, settings)  # a wrong value fails before PyTorch is imported
    from ..training.folder import Interrupted
    from ..training.processes import is_first_process, leave_group
    from ..training.run import train

    folder = Path("runs", Path(recipe).stem) if out is None else out
    try:
        outcome = train(chosen, folder, say=say)
    except Interrupted as error:
        if is_first_process():
            say(f"shaped-transformer: {error}")
        exit_process(128 + signal.SIGINT)
    finally:
        leave_group()
    if not is_first_process():
        return
    say(f"Written to {folder}: report.md, curves.png, metrics.jsonl, watch.jsonl, tensorboard, model")
    Screen(as_json).json(asdict(outcome))


def _help() -> str:
    """The help of the command, with the packaged recipes and the variants; PyTorch is not imported."""
    lines = ["Train a shaped Transformer or a baseline on real text or images."]
    try:
        from ..training.recipe import Recipe, describe_recipes
        from ..training.variants import VARIANTS
    except MissingExtra:
        lines.append('This needs the extra "training". Once it is installed, the recipes and variants are listed here.')
        return "\n\n".join(lines)
    summaries = {name: variant.summary for name, variant in VARIANTS.items()}
    variants = f"Variants, for --set variant=NAME (default: {Recipe.variant})"
    for title, described in (("Recipes", describe_recipes()), (variants, summaries)):
        lines.append("\b\n" + "\n".join([f"{title}:", *_aligned(described)]))
    return "\n\n".join(lines)


def _aligned(described: Mapping[str, str]) -> list[str]:
    """Lines with names and what they are, in two columns."""
    width = max(map(len, described))
    return [f"{name:{width}}  {text}" for name, text in described.items()]


train_command.__doc__ = _help()
