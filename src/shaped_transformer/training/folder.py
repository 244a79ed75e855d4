"""A run's folder: whose it is, how far it has come, whether it is finished."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, StorageError
from ..io.files import replacing
from ..io.provenance import command_line
from ..version import __version__
from .processes import is_first_process
from .recipe import Recipe
from .task import Task

COMPLETE = "complete"
"""A file in each checkpoint that was finished; it holds the losses that `Spikes` compares."""
RECIPE = "recipe.json"
"""A file in each run's folder, which says whose it is."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the last held-out `loss` (nats) and `accuracy` of classifiers, `steps`, training `seconds`."""

    loss: float
    accuracy: float | None
    steps: int
    seconds: float
    out: str


def see_whose(out: Path) -> None:
    """See that a folder is empty or a run's.

    **Raises:** `InputError` if it holds anything else.
    """
    if not is_first_process() or not out.is_dir() or (out / RECIPE).exists():
        return
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run: choose another folder")


def claim(out: Path, recipe: Recipe, task: Task) -> None:
    """Write down whose folder it is, or see that it is this recipe's.

    **Raises:** `InputError` if it is another recipe's, with the difference.
    """
    file = out / RECIPE
    wanted = {"recipe": recipe.to_dict(), "data": {"source": task.source, "sha256": task.sha256}}
    if not file.exists():
        if is_first_process():
            with replacing(file) as temporary:
                made = {"command": command_line(), "version": __version__}
                temporary.write_text(json.dumps(wanted | made, indent=1), encoding="utf-8")
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        old, data = found["recipe"], found["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageError(f"{file} cannot be read: choose another folder") from None
    differences = [
        f"{key} is {value!r}, was {old.get(key)!r}"
        for key, value in wanted["recipe"].items()
        if value != old.get(key) and key != "data"  # whose place may change
    ]
    if data != task.sha256:
        differences.append("the data have changed")
    if differences:
        raise InputError(f"{out} holds another run: {'; '.join(differences)}. Choose another folder")


def last_checkpoint(out: Path) -> Path | None:
    """Return the newest checkpoint that was finished; what was cut off is ignored."""
    complete = [p.parent for p in (out / "checkpoints").glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return after which step a checkpoint was made."""
    return int(checkpoint.name.rpartition("-")[2])


def finished(out: Path) -> Outcome | None:
    """Return how a finished run ended; `None` where there is none, or its model is gone."""
    if not (out / "model").is_dir():
        return None
    try:
        return Outcome(**json.loads((out / "outcome.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
