"""Causal against full attention, heads and output projection: what our extension of the theory predicts, and networks.

The paper's form has one head, no mask and no projection. Each point of the figure is one design, seen in three views.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design.architecture import Architecture
from ..design.definition import PositiveFloat, PositiveInt
from ..design.layers import Residual, ShapedAttention
from ..inputs import equicorrelated
from ..plotting.plots import plain_ticks
from ..plotting.style import COLOURS, LABELS
from .observed import LEVELS, Number, distance, median, observe, share
from .pieces import Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {
    "mean |rho|": ("mean |ρ| over pairs", "linear"),
    "V11": ("norm of the first token", "log"),
    "norm of the last token": ("norm of the last token", "log"),
}
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
    counts = {"network": network_samples, "chain": samples, "sde": samples}
    tasks: dict[str, Task] = {}
    for mask in MASKS:
        for name, (count, projects) in designs.items():
            attention = ShapedAttention(tau0=tau0, heads=count, output_projection=projects, mask=mask)
            arch = Architecture(width, depth, (Residual(attention, scale=gamma),))
            for view in counts:
                tasks[f"{mask} {name} {view}"] = partial(observe, view, arch, v0, counts[view], seed, list(OBSERVED))
    done = pieces(tasks)
    return xr.Dataset(
        {
            view: (
                ("mask", "design", "statistic", f"sample_{view}"),
                [[[done[f"{m} {d} {view}"][s][:, -1] for s in OBSERVED] for d in designs] for m in MASKS],
            )
            for view in counts
        },
        coords={"mask": list(MASKS), "design": list(designs), "statistic": list(OBSERVED)},
    )


def headline(data: "xarray.Dataset") -> list[Number]:
    """Return the medians of |ρ| of the extreme designs, and how often the intervals of the views' medians overlap."""
    numbers = []
    for mask in MASKS:
        for design in (PAPER, str(data["design"].values[-1])):
            chosen = data["chain"].sel(mask=mask, design=design, statistic="mean |rho|")
            heads = "1 head, no projection" if design == PAPER else f"{design} heads"
            numbers.append(median(f"median mean |ρ|, {mask}, {heads}, exact chain", chosen))
    for mask in MASKS:
        a, b = (data[v].sel(mask=mask, design=PAPER, statistic="mean |rho|") for v in ("chain", "sde"))
        numbers.append(distance(f"KS distance of mean |ρ|, {mask}, {PAPER}, chain to SDE", a, b))
    for view in ("network", "sde"):
        flags = []
        for at in np.ndindex(*(data.sizes[d] for d in ("mask", "design", "statistic"))):
            one, other = (median("", data[v].to_numpy()[at]) for v in (view, "chain"))
            flags.append(one.low <= other.high and other.low <= one.high)
        numbers.append(share(f"medians whose intervals overlap, {LABELS[view]} and chain", flags))
    return numbers


def draw(data: "xarray.Dataset") -> "Figure":
    """Draw one column for each mask, one row for each statistic, designs along the axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.6), layout="constrained")
    axes = figure.subplots(len(OBSERVED), len(MASKS), sharex=True, sharey="row")
    designs = [str(d) for d in data["design"].values]
    markers = {"network": "s", "chain": "o", "sde": "^"}
    for column, mask in zip(axes.T, MASKS, strict=True):
        for panel, (name, (label, scale)) in zip(column, OBSERVED.items(), strict=True):
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
