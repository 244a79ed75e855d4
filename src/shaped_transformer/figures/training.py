"""Training on real text: shaped Transformers and baselines, loss against steps and against seconds, by depth.

Each variant gets the same small search over its learning rate with the first seed; the other seeds use the best rate.
The shaped variants have rates by parameter group, the baselines one rate for all parameters.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..design.definition import Count, PositiveInt
from ..estimates import Estimate, exact, spread
from .pieces import Arrays, PieceRunner, Task
from .settings import Axis, PositiveFloats, PositiveInts

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

CELL = ("variant", "depth")
"""Dimensions of the causal language models."""
REFERENCES = ("pre-norm", "pre-norm-groups")
"""Baselines of the shaped Transformer in the numbers: pre-norm with one rate, and with rates by parameter group."""
INTERVAL = "range over seeds"
"""Kind of the intervals of this figure's numbers; those of other figures are at 95 %."""
AXES = {
    "loss": ("seed", "step"),
    "stopped": ("seed",),
    "final": ("seed",),
    "rate": (),
    "search": ("searched",),
    "search_stopped": ("searched",),
}
"""Dimensions of the arrays of `_search`, besides that of the recipes."""


def compute(
    runner: PieceRunner,
    variants: Axis[list[str]],
    depths: PositiveInts,
    width: PositiveInt,
    heads: PositiveInt,
    steps: PositiveInt,
    batch: PositiveInt,
    tokens: PositiveInt,
    vocabulary: PositiveInt,
    rates: PositiveFloats,
    seeds: Axis[list[Count]],
    held_out: PositiveInt,
    masked_variants: Axis[list[str]],
    masked_depth: PositiveInt,
    masked_steps: Count,
    masked_vocabulary: PositiveInt,
) -> "xarray.Dataset":
    """Train every variant as a causal language model, and some as masked ones; time their steps side by side.

    **Arguments:**

    - `variants`: names of `training.VARIANTS`.
    - `depths`: depths of each variant.
    - `width`, `heads`, `steps`, `batch`, `tokens`, `vocabulary`: as in a recipe.
    - `rates`: the learning rates of the search.
    - `seeds`: seeds; the first is that of the search, the others train at the best rate.
    - `held_out`: number of sequences of the held-out loss.
    - `masked_variants`, `masked_depth`, `masked_steps`, `masked_vocabulary`: the same of the masked language models,
      which get the same search; no step means no models.

    **Returns:** a dataset with

    - `loss`: training loss over (variant, depth, seed, step). If a run was stopped because it diverged, the last value
      is repeated, or the loss of guessing if it was stopped at once.
    - `stopped`: step at which a run was stopped, or steps + 1.
    - `final`: held-out loss at the end, or the last training loss if there is none.
    - `rate`: the best learning rate.
    - `search`, `search_stopped`: the final losses of the search over (variant, depth, searched), and their `stopped`.
    - `step_seconds`: time of a step, s.
    - `entropy`: unigram entropy of the held-out text.
    - `masked_…`: the same of the masked models.
    - attributes `data`, `sha256` and `torch`: the text, its hash, and the version of PyTorch.

    **Raises:** `MissingExtra` if the extra `training` is missing; `StorageError` if the text is not installed.
    """
    from ..training import Recipe  # raises `MissingExtra` before any work
    from ..training.task import prepare

    base = Recipe(
        task="causal-lm",
        width=width,
        heads=heads,
        batch=batch,
        tokens=tokens,
        held_out=held_out,
        vocabulary=vocabulary,
        steps=steps,
    )
    cells = [replace(base, variant=v, depth=d) for v in variants for d in depths]
    masked = _masked_recipes(base, masked_variants, masked_depth, masked_steps, masked_vocabulary)
    task = prepare(base)  # raises errors of recipes or text before any work
    timed = runner.run({"seconds of a step": partial(_seconds, variants, depths, base)})["seconds of a step"]
    data = _empty(variants, depths, rates, seeds, steps)
    data = data.assign_attrs(data=task.source, sha256=task.sha256, torch=metadata.version("torch"))
    data = data.assign(step_seconds=(CELL, timed["seconds"]), entropy=next(iter(task.facts.values())))
    shape = (len(variants), len(depths))
    for name, values in _search(runner, cells, rates, seeds).items():
        data[name] = ((*CELL, *AXES[name]), values.reshape(*shape, *values.shape[1:]))
    return _with_masked(data, runner, masked, rates, seeds) if masked else data


def _empty(
    variants: Sequence[str], depths: Sequence[int], rates: Sequence[float], seeds: Sequence[int], steps: int
) -> "xarray.Dataset":
    """Return the dataset with its coordinates alone."""
    import xarray as xr

    from ..training import VARIANTS

    return xr.Dataset(
        coords={
            "variant": list(variants),
            "title": ("variant", [VARIANTS[v].title for v in variants]),
            "depth": list(depths),
            "seed": list(seeds),
            "searched": list(rates),
            "step": _logged_steps(steps),
        }
    )


def _logged_steps(steps: int) -> NDArray[np.int64]:
    """Return the steps whose losses a run logs."""
    from ..training.search import logged_steps

    return logged_steps(steps)


def _seconds(variants: Sequence[str], depths: Sequence[int], base: Any) -> Arrays:
    """Return the time of a step of every variant and depth."""
    from ..training.search import step_seconds

    return {"seconds": step_seconds(variants, depths, base)}


def _masked_recipes(base: Any, variants: Sequence[str], depth: int, steps: int, vocabulary: int) -> list[Any]:
    """Return the recipes of the masked models, whose learning rate falls to 0; none if there are no steps."""
    if not steps:
        return []
    options = {"depth": depth, "steps": steps, "vocabulary": vocabulary, "schedule": "cosine", "warmup": steps // 20}
    return [replace(base, task="masked-lm", variant=variant, **options) for variant in variants]


def _with_masked(
    data: "xarray.Dataset", runner: PieceRunner, recipes: list[Any], rates: Sequence[float], seeds: Sequence[int]
) -> "xarray.Dataset":
    """Train the masked models, and return the dataset with their losses."""
    from ..training.task import prepare

    variants = [recipe.variant for recipe in recipes]
    data = data.assign_coords(masked_variant=variants, masked_step=_logged_steps(recipes[0].steps))
    data["masked_entropy"] = next(iter(prepare(recipes[0]).facts.values()))
    for name, values in _search(runner, recipes, rates, seeds).items():
        axes = ["masked_step" if axis == "step" else axis for axis in AXES[name]]
        data[f"masked_{name}"] = (("masked_variant", *axes), values)
    return data


def _search(runner: PieceRunner, recipes: list[Any], rates: Sequence[float], seeds: Sequence[int]) -> Arrays:
    """Train each recipe at every rate with the first seed, and at the best rate with the others.

    **Returns:** arrays whose first dimension is the recipe, the others as in `AXES`.
    """
    from ..training.search import rank, run_losses

    def task(recipe: Any, rate: float, seed: int) -> tuple[str, Task]:
        name = f"{recipe.task} {recipe.variant} depth={recipe.depth} lr={rate:g} seed={seed}"
        return name, partial(run_losses, replace(recipe, lr=rate, seed=seed))

    found = runner.run(dict(task(recipe, rate, seeds[0]) for recipe in recipes for rate in rates))

    def run(recipe: Any, rate: float, seed: int) -> Arrays:
        return found[task(recipe, rate, seed)[0]]

    def best(recipe: Any) -> float:
        return min(rates, key=lambda rate: rank(run(recipe, rate, seeds[0]), recipe.steps))

    chosen = [(recipe, best(recipe)) for recipe in recipes]
    found |= runner.run(dict(task(recipe, rate, seed) for recipe, rate in chosen for seed in seeds[1:]))
    ends = {
        name: [[run(r, rate, seed)[name] for seed in seeds] for r, rate in chosen]
        for name in ("loss", "stopped", "final")
    }
    tries = {name: [[run(r, rate, seeds[0])[name] for rate in rates] for r in recipes] for name in ("final", "stopped")}
    arrays = ends | {"rate": [rate for _, rate in chosen], "search": tries["final"], "search_stopped": tries["stopped"]}
    return {name: np.asarray(values) for name, values in arrays.items()}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return final held-out losses, losses and step times over those of pre-norm, and the unigram entropies.

    A loss is the median over seeds of the runs that did not diverge. If all diverged, the number is the step at which
    they were stopped. The intervals are ranges over seeds; a time is a single number without an interval.
    """
    numbers: dict[str, Estimate[float]] = {}
    variants, titles = data["variant"].to_numpy(), data["title"].to_numpy()
    steps = int(data["step"][-1])
    for depth in data["depth"].to_numpy():
        at = data.sel(depth=depth)
        for variant, title in zip(variants, titles, strict=True):
            one = at.sel(variant=variant)
            numbers |= _final(f"depth {depth}, {title}", "loss", one["final"], one["stopped"], steps)
        for reference in [r for r in REFERENCES if {r, "shaped-learn"} <= set(variants)]:
            ours, theirs = at.sel(variant="shaped-learn"), at.sel(variant=reference)
            name = f"depth {depth}, shaped, learn over {theirs['title'].item()}"
            if min(int(ours["stopped"].min()), int(theirs["stopped"].min())) > steps:
                numbers[f"loss, {name}"] = spread(ours["final"].to_numpy() / theirs["final"].to_numpy())
            numbers[f"seconds of a step, {name}"] = exact(float(ours["step_seconds"] / theirs["step_seconds"]))
    entropies = [("causal", "entropy")]
    if "masked_final" in data:
        for variant in data["masked_variant"].to_numpy():
            one = data.sel(masked_variant=variant)
            ends = (one["masked_final"], one["masked_stopped"], int(data["masked_step"][-1]))
            numbers |= _final(variant, "masked loss", *ends)
        entropies.append(("masked", "masked_entropy"))
    for name, key in entropies:
        numbers[f"unigram entropy of the held-out text, {name} vocabulary"] = exact(float(data[key]))
    return numbers


def _final(runs: str, quantity: str, final: Any, stopped: Any, steps: int) -> dict[str, Estimate[float]]:
    """Return the final loss of the runs that did not diverge; if all diverged, the step at which they were stopped."""
    losses, stops = final.to_numpy(), stopped.to_numpy()
    ended = stops > steps
    if not ended.any():
        return {f"step at which all diverged, {runs}": spread(stops)}
    note = "" if ended.all() else f" ({(~ended).sum()} of {len(ended)} diverged)"
    return {f"{quantity}, {runs}{note}": spread(losses[ended])}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot losses against steps by group of variants, against seconds, of masked models, and at the end."""
    from .training_plot import plot_training

    return plot_training(data)
