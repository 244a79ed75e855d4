"""Trains the recipes of a file one after the other, as one of several processes; "interrupted" is, and goes on."""

import json
import sys
from pathlib import Path
from typing import Any

from shaped_transformer.training import Recipe, run, train
from shaped_transformer.training.processes import leave_group

INTERRUPTED_AT = 9
STEP = run._Trainer.training_step


def interrupted(self: Any, *arguments: Any) -> Any:
    """A training step, or an interrupt instead."""
    if self.state.global_step == INTERRUPTED_AT:
        raise KeyboardInterrupt
    return STEP(self, *arguments)


def main(file: str) -> None:
    """Train all."""
    for name, values in json.loads(Path(file).read_text(encoding="utf-8")).items():
        recipe, out = Recipe.from_dict(values), Path("two") / name
        if name == "interrupted":
            run._Trainer.training_step = interrupted  # type: ignore[method-assign]
            try:
                train(recipe, out)
            except KeyboardInterrupt:
                run._Trainer.training_step = STEP  # type: ignore[method-assign]
        train(recipe, out)
    leave_group()


if __name__ == "__main__":
    main(sys.argv[1])
