"""Causal against full attention, heads and output projection: what our extension of the theory predicts, and networks.

The paper's form has one head, no mask and no projection. Each point of the figure is one design, seen in three views.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design.architecture import Architecture
from ..design.definition import PositiveFloat, PositiveInt
from ..design.layers import Residual, ShapedAttention
from ..estimates import LEVELS, Estimate, distance, median, share
from ..inputs import equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import plain_ticks
from ..plotting.style import COLOURS, LABELS
from .observed import counts, observe
from .pieces import Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = ("mean_absolute_correlation", "V11", "last_token_norm")
MASKS = ("full", "causal")
PAPER = "1, no W_O"
"""The design of the paper: one head without output projection."""


def compute(
    pieces: Pieces,
    width: PositiveInt,
    depth: PositiveInt,
    heads: PositiveInts,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    network_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Draw attention layers with and without causal mask, by number of heads, by all three views.

    **Arguments:** `heads`: numbers of heads with an output projection; one head without is added. The rest as in the
    figure `correlation`.

    **Returns:** for each view its draws at the last layer, (mask, design, statistic, sample).
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    designs = {PAPER: (1, False)} | {str(h): (h, True) for h in heads}
    drawn = counts(samples, network_samples)
    tasks: dict[str, Task] = {}
    for mask in MASKS:
        for name, (count, projects) in designs.items():
            attention = ShapedAttention(tau0=tau0, heads=count, output_projection=projects, mask=mask)
            arch = Architecture(width, depth, (Residual(attention, scale=gamma),))
            for view in drawn:
                tasks[f"{mask} {name} {view}"] = partial(observe, view, arch, v0, drawn[view], seed, OBSERVED)
    done = pieces(tasks)
    return xr.Dataset(
        {
            view: (
                ("mask", "design", "statistic", f"sample_{view}"),
                [[[done[f"{m} {d} {view}"][s][:, -1] for s in OBSERVED] for d in designs] for m in MASKS],
            )
            for view in drawn
        },
        coords={"mask": list(MASKS), "design": list(designs), "statistic": list(OBSERVED)},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians of |ρ| of the extreme designs, and how often the intervals of the views' medians overlap."""
    numbers: dict[str, Estimate[float]] = {}
    for mask in MASKS:
        for design in (PAPER, str(data["design"].values[-1])):
            chosen = data["chain"].sel(mask=mask, design=design, statistic="mean_absolute_correlation")
            heads = "1 head, no projection" if design == PAPER else f"{design} heads"
            numbers[f"median mean |ρ|, {mask}, {heads}, exact chain"] = median(chosen)
    for mask in MASKS:
        a, b = (data[v].sel(mask=mask, design=PAPER, statistic="mean_absolute_correlation") for v in ("chain", "sde"))
        numbers[f"KS distance of mean |ρ|, {mask}, {PAPER}, chain to SDE"] = distance(a, b)
    for view in ("network", "sde"):
        flags = []
        for at in np.ndindex(*(data.sizes[d] for d in ("mask", "design", "statistic"))):
            one, other = (median(data[v].to_numpy()[at]) for v in (view, "chain"))
            flags.append(one.overlaps(other))
        numbers[f"medians whose intervals overlap, {LABELS[view]} and chain"] = share(flags)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot one column for each mask, one row for each statistic, designs along the axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.6), layout="constrained")
    axes = figure.subplots(len(OBSERVED), len(MASKS), sharex=True, sharey="row")
    designs = [str(d) for d in data["design"].values]
    markers = {"network": "s", "chain": "o", "sde": "^"}
    for column, mask in zip(axes.T, MASKS, strict=True):
        for panel, name in zip(column, OBSERVED, strict=True):
            label, scale = OBSERVABLES[name].label, OBSERVABLES[name].scale
            for offset, view in zip((-0.22, 0, 0.22), LABELS, strict=True):
                draws = data[view].sel(mask=mask, statistic=name).to_numpy()
                low, middle, high = np.quantile(draws, LEVELS, axis=1)
                at = np.arange(len(designs)) + offset
                size = np.stack([middle - low, high - middle])
                style = {"color": COLOURS[view], "fmt": markers[view], "label": LABELS[view]}
                panel.errorbar(at, middle, size, markersize=5, capsize=3, **style)
            panel.set(ylabel=label, yscale=scale)
            if scale == "log":
                plain_ticks(panel.yaxis)
        column[0].set_title(f"{mask} attention", loc="left")
        column[-1].set_xticks(range(len(designs)), designs)
        column[-1].set_xlabel("heads (with output projection W_O, but for the first)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "median and 5–95 % bar at the last layer"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, title=title)
    return figure
