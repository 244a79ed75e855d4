"""A run's folder: the recipe that owns it, its checkpoints, and its outcome."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InputError, StorageError
from ..io.files import replacing
from ..io.provenance import command_line
from ..version import __version__
from .initial import weights_sha256
from .processes import is_first_process
from .recipe import FOLDERS, Recipe
from .task import Task
from .variants import VARIANTS

COMPLETE_MARKER = "complete"
"""A file that marks a checkpoint as complete; it holds the losses that `Spikes` compares."""
RECIPE_FILE = "recipe.json"
"""A file in each run's folder, with the recipe that owns the folder."""
OUTCOME_FILE = "outcome.json"
"""A file in the folder of each finished run, with its `Outcome`."""


class Interrupted(KeyboardInterrupt):
    """Training was interrupted; the message says what the folder keeps, and where the same command resumes.

    **Arguments:**

    - `out`: the run's folder.
    """

    def __init__(self, out: Path) -> None:
        found = last_checkpoint(out)
        kept = f"{out} holds no checkpoint, so the same command starts from the beginning"
        if read_outcome(out) is not None:
            kept = f"the run in {out} is finished"
        elif found is not None:
            kept = f"{out} keeps the checkpoint of step {step_of(found)}, from which the same command resumes"
        super().__init__(f"interrupted; {kept}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    ```python
    outcome = st.training.Outcome(loss=4.01, accuracy=None, steps=300, seconds=19.0, out="runs/quick")
    ```

    **Arguments:**

    - `loss`: held-out loss after the last step, in nats.
    - `accuracy`: held-out accuracy of a classifier, in [0, 1]; `None` for language models.
    - `steps`: number of updates.
    - `seconds`: time of the training steps.
    - `out`: the run's folder.
    - `validation`: loss of the third split; `None` (default) if there is none.
    """

    loss: float
    accuracy: float | None
    steps: int
    seconds: float
    out: str
    validation: float | None = None


def check_owner(out: Path) -> None:
    """Check that a folder is empty or belongs to a run.

    **Raises:** `InputError` if it holds anything else.
    """
    if not is_first_process() or not out.is_dir() or (out / RECIPE_FILE).exists():
        return
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run: choose another folder")


def claim(out: Path, recipe: Recipe, task: Task) -> None:
    """Make a recipe the owner of a folder, or check that it already is; a longer recipe may take over.

    **Raises:** `InputError` with the differences if another recipe or other data own the folder; `StorageError` if the
    owner cannot be read.
    """
    file = out / RECIPE_FILE
    sha256 = None if recipe.initial is None else weights_sha256(recipe.initial)
    settings = recipe.to_dict()
    wanted = {"recipe": settings, "data": {"source": task.source, "sha256": task.sha256}, "initial": sha256}
    if not file.exists():
        _write_owner(file, wanted)
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        old, data, start = found["recipe"], found["data"]["sha256"], found.get("initial")
        new_steps = int(old["steps"]) != recipe.steps
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageError(f"{file} cannot be read: choose another folder") from None
    defaults = {field.name: field.default for field in fields(Recipe)}  # of keys that came after the run
    differences = [
        f"{key} is {value!r}, was {before!r}"
        for key, value in settings.items()
        if value != (before := old.get(key, defaults.get(key))) and key not in (*FOLDERS, "steps")
    ]
    if data != task.sha256:
        differences.append("the data have changed")
    if start != sha256:
        differences.append("the model to start from has changed")
    if new_steps and (differences or (problem := _not_longer(out, recipe, old["steps"]))):
        differences.append(f"steps is {recipe.steps}, was {old['steps']}" + ("" if differences else f" ({problem})"))
    if differences:
        raise InputError(f"{out} holds another run: {'; '.join(differences)}. Choose another folder")
    if new_steps and is_first_process():
        _write_owner(file, wanted)
        (out / OUTCOME_FILE).unlink(missing_ok=True)


def _write_owner(file: Path, wanted: dict[str, Any]) -> None:
    """Write which recipe owns a folder."""
    if is_first_process():
        with replacing(file) as temporary:
            made = {"command": command_line(), "version": __version__}
            temporary.write_text(json.dumps(wanted | made, indent=1), encoding="utf-8")


def _not_longer(out: Path, recipe: Recipe, steps: int) -> str:
    """Return why a run of so many steps cannot become that of a recipe that differs in its steps alone; "" if it can.

    It can if each step is the same in both runs, and the last checkpoint was kept.
    """
    if recipe.steps < steps:
        return "a run cannot become shorter"
    if recipe.schedule != "constant":
        return f"with schedule={recipe.schedule} the learning rates depend on the number of steps"
    if VARIANTS[recipe.variant].recovers:
        return f"the gains of {recipe.variant} depend on the number of steps"
    if last_checkpoint(out) is None:
        return "no checkpoint was kept"
    return ""


def last_checkpoint(out: Path) -> Path | None:
    """Return the newest complete checkpoint; partly written ones are ignored."""
    complete = [p.parent for p in (out / "checkpoints").glob(f"checkpoint-*/{COMPLETE_MARKER}")]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def read_outcome(out: Path) -> Outcome | None:
    """Return the outcome of a finished run; `None` if the run is not finished, or its model is missing."""
    if not (out / "model").is_dir():
        return None
    try:
        return Outcome(**json.loads((out / OUTCOME_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
