"""Training on real text: shaped Transformers and baselines, loss against steps and against seconds, by depth.

Every variant gets the same small search over its one learning rate, with the first seed; the others train at the rate
found. Rates by parameter group are part of the shaped variants, one rate for all parameters part of the baselines.
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
from ..plotting.style import SERIES
from .pieces import Arrays, Pieces, Task
from .settings import Axis, PositiveFloats, PositiveInts

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = ("variant", "depth")
"""Dimensions of what is trained as a causal language model."""
REFERENCES = ("pre-norm", "pre-norm-groups")
"""What the shaped Transformer is measured against: pre-norm as usual, and with its own rates."""
INTERVAL = "range over seeds"
"""What the intervals of this figure's numbers are; those of other figures are at 95 %."""
LOOKS = {
    "shaped-fixed": (SERIES[0], "-"),
    "shaped-learn": (SERIES[0], "--"),
    "shaped-recover": (SERIES[0], ":"),
    "shaped-fixed-pre": (SERIES[1], "-"),
    "shaped-learn-pre": (SERIES[1], "--"),
    "shaped-recover-pre": (SERIES[1], ":"),
    "value-skipinit": (SERIES[2], "-"),
    "pre-norm": (SERIES[5], "-"),
    "pre-norm-groups": (SERIES[5], "--"),
    "post-norm": (SERIES[3], "-"),
    "skipless": (SERIES[4], "-"),
    "unit-skips": (SERIES[4], "--"),
    "unit-skips-small": (SERIES[5], ":"),
}
"""Colour and line of each variant."""
READING = "lines: medians of the seeds; bands: their range; × where a run was stopped because it diverged"
"""What the curves are, on the picture."""
TOP = 8.0
"""Losses above are of runs that diverge."""
AXES = {
    "loss": ("seed", "step"),
    "stopped": ("seed",),
    "final": ("seed",),
    "rate": (),
    "search": ("searched",),
    "search_stopped": ("searched",),
}
"""Of what the search finds for each recipe."""


def compute(
    pieces: Pieces,
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

    - `variants`: names of `training.VARIANTS`; `depths`: of each, all with this `width` and these `heads`.
    - `steps`, `batch`, `tokens`, `vocabulary`: of a run, as in a recipe; `held_out`: sequences of the held-out loss.
    - `rates`: the learning rates that are searched, with the first of the `seeds`; the best is used with the others.
    - `masked_variants`, `masked_depth`, `masked_steps`, `masked_vocabulary`: of the masked language models, which get
      the same search.

    **Returns:** over (variant, depth, seed, step) the training `loss`, held at its last value from the step on at which
    a run was stopped because it diverged (that of guessing, where it was stopped at once); `stopped`, that step, or
    steps + 1; `final`, the held-out loss at the end, or the last training loss where there is none; `rate`; `search`,
    the final losses over (variant, depth, searched), with `search_stopped`; `step_seconds`; `masked_…`, the same of the
    masked models; the unigram entropies. Attributes: `data`, `sha256`, `torch`.

    **Raises:** `MissingExtra` without the extra `training`; `StorageError` where the text is not installed.
    """
    from ..training import Recipe  # says which extra is missing, before any work
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
    task = prepare(base)  # reports what is wrong with recipes or text before any work
    timed = pieces({"seconds of a step": partial(_seconds, variants, depths, base)})["seconds of a step"]
    data = _empty(variants, depths, rates, seeds, steps)
    data = data.assign_attrs(data=task.source, sha256=task.sha256, torch=metadata.version("torch"))
    data = data.assign(step_seconds=(CELL, timed["seconds"]), entropy=next(iter(task.facts.values())))
    shape = (len(variants), len(depths))
    for name, values in _search(pieces, cells, rates, seeds).items():
        data[name] = ((*CELL, *AXES[name]), values.reshape(*shape, *values.shape[1:]))
    if not masked:
        return data
    data = data.assign_coords(masked_variant=masked_variants, masked_step=_logged_steps(masked_steps))
    data["masked_entropy"] = next(iter(prepare(masked[0]).facts.values()))
    for name, values in _search(pieces, masked, rates, seeds).items():
        axes = ["masked_step" if axis == "step" else axis for axis in AXES[name]]
        data[f"masked_{name}"] = (("masked_variant", *axes), values)
    return data


def _empty(
    variants: Sequence[str], depths: Sequence[int], rates: Sequence[float], seeds: Sequence[int], steps: int
) -> "xarray.Dataset":
    """Return the dataset's coordinates."""
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
    from ..training.search import logged_steps

    return logged_steps(steps)


def _seconds(variants: Sequence[str], depths: Sequence[int], base: Any) -> Arrays:
    from ..training.search import step_seconds

    return {"seconds": step_seconds(variants, depths, base)}


def _masked_recipes(base: Any, variants: Sequence[str], depth: int, steps: int, vocabulary: int) -> list[Any]:
    """Return the recipes of the masked models, whose schedule falls to 0; none where there are no steps."""
    if not steps:
        return []
    options = {"depth": depth, "steps": steps, "vocabulary": vocabulary, "schedule": "cosine", "warmup": steps // 20}
    return [replace(base, task="masked-lm", variant=variant, **options) for variant in variants]


def _search(pieces: Pieces, recipes: list[Any], rates: Sequence[float], seeds: Sequence[int]) -> Arrays:
    """Train each recipe at every rate with the first seed, and at the best with the others; arrays over recipes."""
    from ..training.search import rank, run_losses

    def task(recipe: Any, rate: float, seed: int) -> tuple[str, Task]:
        name = f"{recipe.task} {recipe.variant} depth={recipe.depth} lr={rate:g} seed={seed}"
        return name, partial(run_losses, replace(recipe, lr=rate, seed=seed))

    found = pieces(dict(task(recipe, rate, seeds[0]) for recipe in recipes for rate in rates))

    def run(recipe: Any, rate: float, seed: int) -> Arrays:
        return found[task(recipe, rate, seed)[0]]

    def best(recipe: Any) -> float:
        return min(rates, key=lambda rate: rank(run(recipe, rate, seeds[0]), recipe.steps))

    chosen = [(recipe, best(recipe)) for recipe in recipes]
    found |= pieces(dict(task(recipe, rate, seed) for recipe, rate in chosen for seed in seeds[1:]))
    ends = {
        name: [[run(r, rate, seed)[name] for seed in seeds] for r, rate in chosen]
        for name in ("loss", "stopped", "final")
    }
    tries = {name: [[run(r, rate, seeds[0])[name] for rate in rates] for r in recipes] for name in ("final", "stopped")}
    arrays = ends | {"rate": [rate for _, rate in chosen], "search": tries["final"], "search_stopped": tries["stopped"]}
    return {name: np.asarray(values) for name, values in arrays.items()}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return final held-out losses, losses and step times over those of pre-norm, and the unigram entropies.

    A loss is the median of the runs that ended; where none did there is the first step at which one was stopped. The
    intervals are the ranges over seeds; of times, which are one number, there is none.
    """
    numbers: dict[str, Estimate[float]] = {}
    variants, titles = data["variant"].to_numpy(), data["title"].to_numpy()
    steps = int(data["step"][-1])
    for depth in data["depth"].to_numpy():
        at = data.sel(depth=depth)
        for variant, title in zip(variants, titles, strict=True):
            one = at.sel(variant=variant)
            numbers |= _end(f"depth {depth}, {title}", "loss", one["final"], one["stopped"], steps)
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
            numbers |= _end(variant, "masked loss", *ends)
        entropies.append(("masked", "masked_entropy"))
    for name, key in entropies:
        numbers[f"unigram entropy of the held-out text, {name} vocabulary"] = exact(float(data[key]))
    return numbers


def _end(of: str, what: str, final: Any, stopped: Any, steps: int) -> dict[str, Estimate[float]]:
    """Return the final losses of the runs that did not diverge; where all did, the steps at which they were stopped."""
    losses, stops = final.to_numpy(), stopped.to_numpy()
    ended = stops > steps
    if not ended.any():
        return {f"step at which all diverged, {of}": spread(stops)}
    note = "" if ended.all() else f" ({(~ended).sum()} of {len(ended)} diverged)"
    return {f"{what}, {of}{note}": spread(losses[ended])}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the losses against steps (top) and seconds (below), a column for each depth, and the masked ones."""
    from matplotlib.figure import Figure

    depths = data["depth"].to_numpy()
    masked = "masked_loss" in data
    figure = Figure(figsize=(4.4 * (len(depths) + masked), 7.6), layout="constrained")
    axes = figure.subplots(2, len(depths) + masked, squeeze=False)
    for column, depth in enumerate(depths):
        at = data.sel(depth=depth)
        for variant in data["variant"].to_numpy():
            one = at.sel(variant=variant)
            for row, scale in enumerate((1.0, float(one["step_seconds"]))):
                _curve(axes[row, column], one, variant, scale, str(one["title"].item()))
        for row, unit in enumerate(("step", "seconds")):
            axes[row, column].set(xlabel=unit, title=f"depth {depth}" if row == 0 else "")
            _entropy(axes[row, column], float(data["entropy"]))
    for row in range(2):
        axes[row, 0].set_ylabel("training loss (nats)")
        limits = [axis.get_ylim() for axis in axes[row, : len(depths)]]
        for axis in axes[row, : len(depths)]:
            axis.set_ylim(min(low for low, _ in limits), min(max(high for _, high in limits), TOP))
    if masked:
        _masked(axes[:, -1], data)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize="small",
        title=READING,
        title_fontsize="small",
    )
    return figure


def _look(variant: str) -> dict[str, Any]:
    colour, style = LOOKS[variant]
    return {"color": colour, "linestyle": style}


def _curve(axes: "Axes", one: "xarray.Dataset", variant: str, scale: float, label: str | None = None) -> None:
    """Median and range over seeds, up to where the first of them was stopped; a cross there."""
    steps, look = one["step"].to_numpy(), _look(variant)
    until = int(one["stopped"].min())
    shown = steps < until
    x, losses = steps[shown] * scale, one["loss"].to_numpy()[:, shown]
    if not shown.any():
        return
    axes.fill_between(x, losses.min(0), losses.max(0), color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(x, np.median(losses, 0), label=label, linewidth=1.3, **look)
    if until <= steps[-1]:
        axes.plot(x[-1:], np.median(losses, 0)[-1:], marker="x", color=look["color"], linestyle="none")


def _entropy(axes: "Axes", entropy: float) -> None:
    """Mark the loss of a model that knows the frequencies of the tokens and nothing else."""
    axes.axhline(entropy, color="#bbbbbb", linewidth=0.8, zorder=0)
    place = axes.get_yaxis_transform()
    axes.text(
        0.99, entropy, "unigram entropy", transform=place, ha="right", va="bottom", fontsize="small", color="#777777"
    )


def _masked(axes: NDArray[Any], data: "xarray.Dataset") -> None:
    """Plot the masked models above; below, final losses against depth, and at the top the runs that diverged."""
    curves = data[["masked_loss", "masked_stopped"]].rename(
        masked_loss="loss", masked_stopped="stopped", masked_step="step"
    )
    for variant in data["masked_variant"].to_numpy():
        _curve(axes[0], curves.sel(masked_variant=variant), variant, 1.0)
    _entropy(axes[0], float(data["masked_entropy"]))
    axes[0].set(title="masked language models", xlabel="step")
    axes[0].set_ylim(top=float(data["masked_entropy"]) + 1)
    ended = data["stopped"] > data["step"][-1]
    final = data["final"].where(ended).median("seed")
    rows = 0
    for variant in data["variant"].to_numpy():
        axes[1].plot(data["depth"], final.sel(variant=variant), marker="o", markersize=3, **_look(variant))
        diverged = data["depth"][~ended.sel(variant=variant).all("seed").to_numpy()]
        if diverged.size:
            height = np.full(diverged.size, 0.96 - 0.05 * rows)
            look = {"marker": "x", "transform": axes[1].get_xaxis_transform()}
            axes[1].plot(diverged, height, **_look(variant) | look | {"linestyle": "none"})
            rows += 1
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(low, high + 0.06 * rows * (high - low))
    axes[1].set(xlabel="depth", ylabel="held-out loss (nats)", xscale="log")
    axes[1].set_title("at the end; × a seed or both diverged" if rows else "at the end", fontsize="small")
    axes[1].set_xticks(data["depth"].to_numpy(), [str(d) for d in data["depth"].to_numpy()], minor=False)
    axes[1].xaxis.minorticks_off()
