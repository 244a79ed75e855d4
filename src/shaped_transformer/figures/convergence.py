"""How near the exact chain is to its limit, against width at a fixed depth/width."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import statistics
from ..architecture import Architecture
from ..views import chain, sde
from ..views.ensemble import Ensemble

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED: dict[str, Callable[[Ensemble], Any]] = {
    "norm of token 1, V₁₁": lambda e: e.covariance[:, -1, 0, 0],
    "correlation ρ₁₂": lambda e: e.correlation()[:, -1, 0, 1],
    "effective rank": lambda e: e.effective_rank()[:, -1],
}


def compute(
    architecture: Architecture, v0: ArrayLike, widths: Sequence[int], *, samples: int, seed: int, steps: int
) -> "xarray.Dataset":
    """Measure the Kolmogorov–Smirnov distance between chain and SDE at the last layer for several widths.

    **Arguments:**

    - `architecture`: at its own width; at other widths the depth follows in proportion. Explicit inner widths stay.
    - `v0`: initial covariance, (m, m).
    - `widths`: where to draw the chain.
    - `samples`, `seed`: of chain and SDE. `steps`: of the SDE.

    **Returns:** a dataset with `distance` (width, statistic) and `noise`, the distance that two samples of one law
    exceed once in twenty.
    """
    import xarray as xr
    from scipy.special import kolmogi

    limit = sde.sample(architecture, v0, samples, seed, steps=steps, record=1)
    distance = []
    for width in widths:
        scaled = replace(cast(Any, architecture), width=width, depth=max(1, round(architecture.time * width)))
        drawn = chain.sample(scaled, v0, samples, seed, record=1)
        distance.append([statistics.two_sample(f(drawn), f(limit)).distance for f in OBSERVED.values()])
    return xr.Dataset(
        {"distance": (("width", "statistic"), distance), "noise": float(kolmogi(0.05) * np.sqrt(2 / samples))},
        coords={"width": list(widths), "statistic": list(OBSERVED)},
        attrs={"time": architecture.time, "samples": samples},
    )


def draw(data: "xarray.Dataset") -> "Figure":
    """Draw what `compute` returned, with guides for the rates n^(−1/2) and n^(−1).

    How to read it: a point is the largest gap between the distribution functions of chain and SDE; below the dotted
    line it cannot be told from zero with this many samples.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    width = data["width"].to_numpy()
    for name, colour, marker in zip(OBSERVED, ("#0072B2", "#D55E00", "#009E73"), "os^", strict=True):
        axes.loglog(width, data["distance"].sel(statistic=name), color=colour, marker=marker, label=name)
    start = float(data["distance"].isel(width=0).max())
    for rate, style in ((0.5, "--"), (1.0, "-.")):
        axes.loglog(width, start * (width / width[0]) ** -rate, style, color="#999999", label=f"rate n^−{rate:g}")
    axes.axhline(float(data["noise"]), color="#333333", linestyle=":", label="noise of the samples (5 %)")
    axes.set(
        xlabel=f"width n, at depth/width = {data.attrs['time']:g}",
        ylabel="Kolmogorov–Smirnov distance, chain to SDE",
        xticks=width,
    )
    axes.set_xticks([], minor=True)
    axes.set_xticklabels([str(w) for w in width])
    axes.set_ylim(bottom=float(data["noise"]) / 3)
    axes.legend(frameon=False, fontsize="small")
    return figure
