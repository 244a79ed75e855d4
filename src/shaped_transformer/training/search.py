"""Short runs to compare variants: the losses of one run, which of two runs is better, the time of a step."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from ..numerics.arrays import Array, Floats
from .divergence import Diverged
from .log import METRICS, read
from .optimiser import build_optimiser
from .recipe import Recipe
from .run import fit
from .task import build, prepare

LOG = 10
"""Steps that each point of a loss curve is the mean of."""
ROUNDS, WARM = 24, 2
"""Steps timed of each network in turn, and how many of the first are not counted."""


def logged_steps(steps: int) -> NDArray[np.int64]:
    """Return the steps at which a loss is logged: the first, every tenth, and the last."""
    return np.unique([1, *range(LOG, steps + 1, LOG), steps])


def run_losses(recipe: Recipe) -> dict[str, Array]:
    """Train a recipe in a temporary folder and return its losses.

    **Arguments:**

    - `recipe`: what to train; nothing but the losses is measured or saved.

    **Returns:**

    - `loss`: training loss at `logged_steps`. After a run has diverged it keeps its last finite value, or that of
      guessing at random where there is none.
    - `stopped`: the step at which the run diverged, or steps + 1.
    - `final`: held-out loss at the end, or the last training loss where the run diverged.
    - `chosen_by`: the loss by which runs are compared: that of the third split if the recipe has one, else `final`.
    """
    recipe = replace(recipe, log=LOG, evaluate=0, save=0, watch=0)
    task = prepare(recipe)
    stopped = recipe.steps + 1
    with TemporaryDirectory() as folder:
        try:
            fit(recipe, task, build(recipe, task), Path(folder))
        except Diverged as error:
            stopped = error.step
        lines = read(Path(folder) / METRICS)
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    kept = np.array([losses.get(step, np.nan) for step in logged_steps(recipe.steps)])
    if stopped <= recipe.steps:
        last = kept[np.isfinite(kept)][-1] if np.isfinite(kept).any() else np.log(recipe.vocabulary)
        kept = np.where(np.isfinite(kept), kept, last)
    final = next((line["held_out_loss"] for line in lines if "held_out_loss" in line), kept[-1])
    chosen_by = next((line["validation_loss"] for line in lines if "validation_loss" in line), final)
    return {"loss": kept, "stopped": np.array(stopped), "final": np.array(final), "chosen_by": np.array(chosen_by)}


def rank(losses: dict[str, Array], steps: int) -> tuple[bool, float]:
    """Return a key by which runs sort, best first: those that did not diverge, then by the loss that is compared."""
    return bool(losses["stopped"] <= steps), float(losses["chosen_by"])


def step_seconds(variants: Sequence[str], depths: Sequence[int], base: Recipe) -> Floats:
    """Time training steps: all variants of one depth in turn, in this process.

    **Arguments:**

    - `variants`, `depths`: what to time.
    - `base`: the recipe that gives everything else.

    **Returns:** median seconds of a step, (variants, depths).
    """
    task = prepare(base)
    batch = torch.utils.data.default_collate([task.train[i] for i in range(base.batch)])
    seconds = np.empty((len(variants), len(depths)))
    for column, depth in enumerate(depths):
        recipes = [replace(base, variant=variant, depth=depth) for variant in variants]
        models = [build(recipe, task) for recipe in recipes]
        optimisers = [build_optimiser(model, recipe) for model, recipe in zip(models, recipes, strict=True)]
        taken = np.empty((ROUNDS, len(variants)))
        for turn in range(ROUNDS):
            for row, (model, stepper) in enumerate(zip(models, optimisers, strict=True)):
                start = time.perf_counter()
                model(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), base.clip)
                stepper.step()
                stepper.zero_grad()
                taken[turn, row] = time.perf_counter() - start
        seconds[:, column] = np.median(taken[WARM:], axis=0)
    return seconds
