"""What several pictures share: densities over each other, bands against a coordinate."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics.arrays import Floats
from .style import COLOURS, LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.typing import LineStyleType


FEW = 12
"""Points of real networks that are all shown; of more, nine are."""


def densities(axes: "Axes", values: Mapping[str, Floats], scale: str = "linear") -> None:
    """Plot histograms of the views' draws with common bins, in the logarithm where the axis is logarithmic.

    **Arguments:** `values`: draws by view; `scale`: `"linear"` or `"log"`.
    """
    positive = {v: x[x > 0] if scale == "log" else x for v, x in values.items()}
    on_axis = {v: np.log(x) if scale == "log" else x for v, x in positive.items()}
    low, high = np.quantile(np.concatenate(list(on_axis.values())), (0.01, 0.99))
    if high - low < 1e-6:  # all draws in one point: show it in the middle of a window of unit size
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 32)
    drawn = np.exp(edges) if scale == "log" else edges
    for view, x in on_axis.items():
        # Against all samples, those outside the picture included, so that areas are comparable.
        density = np.histogram(x, edges)[0] / (len(values[view]) * np.diff(edges))
        filled: dict[str, Any] = {"fill": True, "alpha": 0.35} if view == "chain" else {"linewidth": 1.8}
        style = {"sde": "--"}.get(view, "-")
        axes.stairs(density, drawn, color=COLOURS[view], label=LABELS[view], linestyle=style, **filled)
    axes.set_xscale(scale)
    if scale == "log":
        plain_ticks(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density" + (" per factor e" if scale == "log" else ""))


def view_band(axes: "Axes", view: str, at: Floats, low: Floats, median: Floats, high: Floats) -> None:
    """Plot a view's median and band against a coordinate: networks as points, the chain shaded, the SDE in lines."""
    colour, label = COLOURS[view], LABELS[view]
    if view == "chain":
        axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, median, color=colour, label=label)
    elif view == "sde":
        axes.plot(at, median, color=colour, linestyle="--", label=label)
        axes.plot(at, np.stack([low, high], axis=1), color=colour, linestyle=":", linewidth=1.2)
    else:
        shown = len(at) if len(at) <= FEW else 9
        every = np.unique(np.linspace(0, len(at) - 1, shown).round().astype(int))
        size = np.maximum(np.stack([median - low, high - median])[:, every], 0)
        axes.errorbar(at[every], median[every], size, fmt="o", color=colour, markersize=4, capsize=2, label=label)


def band(axes: "Axes", at: Floats, quantiles: Floats, colour: str, label: str, style: "LineStyleType" = "-") -> None:
    """Plot a median and a shaded 5–95 % band; `quantiles` is (3, points)."""
    axes.fill_between(at, quantiles[0], quantiles[2], color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, quantiles[1], color=colour, label=label, linestyle=style)


def legend(axes: "Axes", **options: Any) -> None:
    """Put the legend over the curves, readable where it covers them."""
    axes.legend(**({"fontsize": "small", "framealpha": 0.85, "edgecolor": "none"} | options))


def plain_ticks(axis: "Axis") -> None:
    """Label a logarithmic axis at 1, 2, 5 times powers of ten, so that a short one has labels that do not collide."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def edges(centres: Floats) -> Floats:
    """Return the edges of cells around increasing centres, for a map."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
