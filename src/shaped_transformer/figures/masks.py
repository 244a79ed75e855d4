"""Causal and full attention, heads and output projection: predictions of our extended theory, and real networks.

The paper's attention has one head, no mask and no projection. The figure shows each design in all three views.
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
from ..plotting.plots import add_legend_above, label_plainly
from ..plotting.style import COLOURS, LABELS, MARKERS
from .observed import draw_observables, samples_by_view
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = ("mean_absolute_correlation", "V11", "last_token_norm")
MASKS = ("full", "causal")
PAPER = "1, no W_O"
"""Name of the paper's design: one head without output projection."""


def compute(
    runner: PieceRunner,
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
    """Sample attention layers with and without causal mask and with several numbers of heads, by all three views.

    **Arguments:**

    - `heads`: numbers of heads, with an output projection. The paper's design, without one, is added.
    - the others as in the figure `correlation`.

    **Returns:** for each view its samples at the last layer, (mask, design, statistic, sample).
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    designs = {PAPER: (1, False)} | {str(h): (h, True) for h in heads}
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {}
    for mask in MASKS:
        for name, (number, projects) in designs.items():
            attention = ShapedAttention(tau0=tau0, heads=number, output_projection=projects, mask=mask)
            arch = Architecture(width, depth, (Residual(attention, scale=gamma),))
            for view, count in counts.items():
                tasks[f"{mask} {name} {view}"] = partial(draw_observables, view, arch, v0, count, seed, OBSERVED)
    done = runner.run(tasks)
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


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return medians of |ρ| of two designs, distances, and how often the views' medians have overlapping intervals."""
    numbers: dict[str, Estimate[float]] = {}
    for mask in MASKS:
        for design in (PAPER, str(data["design"].values[-1])):
            chosen = data["chain"].sel(mask=mask, design=design, statistic="mean_absolute_correlation")
            heads = "1 head, no projection" if design == PAPER else f"{design} heads"
            numbers[f"median mean |ρ|, {mask}, {heads}, exact chain"] = median(chosen)
    for mask in MASKS:
        rho = data.sel(mask=mask, design=PAPER, statistic="mean_absolute_correlation")
        numbers[f"KS distance of mean |ρ|, {mask}, {PAPER}, chain to SDE"] = distance(rho["chain"], rho["sde"])
    for view in ("network", "sde"):
        overlap = []
        for at in np.ndindex(*(data.sizes[d] for d in ("mask", "design", "statistic"))):
            first, second = (median(data[v].to_numpy()[at]) for v in (view, "chain"))
            overlap.append(first.overlaps(second))
        numbers[f"medians whose intervals overlap, {LABELS[view]} and chain"] = share(overlap)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot medians with bars against the design, with a column for each mask and a row for each statistic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.6), layout="constrained")
    axes = figure.subplots(len(OBSERVED), len(MASKS), sharex=True, sharey="row")
    designs = [str(d) for d in data["design"].values]
    for column, mask in zip(axes.T, MASKS, strict=True):
        for panel, name in zip(column, OBSERVED, strict=True):
            label, scale = OBSERVABLES[name].label, OBSERVABLES[name].scale
            for offset, view in zip((-0.22, 0, 0.22), LABELS, strict=True):
                samples = data[view].sel(mask=mask, statistic=name).to_numpy()
                low, middle, high = np.quantile(samples, LEVELS, axis=1)
                at = np.arange(len(designs)) + offset
                size = np.stack([middle - low, high - middle])
                style = {"color": COLOURS[view], "fmt": MARKERS[view], "label": LABELS[view]}
                panel.errorbar(at, middle, size, markersize=5, capsize=3, **style)
            panel.set(ylabel=label, yscale=scale)
            if scale == "log":
                label_plainly(panel.yaxis)
        column[0].set_title(f"{mask} attention", loc="left")
        column[-1].set_xticks(range(len(designs)), designs)
        column[-1].set_xlabel("heads (with output projection W_O, but for the first)")
    add_legend_above(figure, axes[0, 0], title="median and 5–95 % bar at the last layer")
    return figure
