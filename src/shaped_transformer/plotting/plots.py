"""Parts that several plots share: densities over each other, bands against a coordinate, legends, ticks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics.arrays import Floats
from .style import COLOURS, LABELS, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.typing import LineStyleType


FEW = 12
"""Largest number of points of real networks of which all are shown; of more, nine are."""
BINS = 31
"""Bins of a histogram."""
TAILS = (0.01, 0.99)
"""Quantiles of the draws between which a histogram lies."""


def plot_densities(axes: "Axes", values: Mapping[str, Floats], scale: str = "linear") -> None:
    """Plot histograms of the views' samples with common bins.

    **Arguments:**

    - `axes`: where to plot.
    - `values`: samples of each view, (samples,).
    - `scale`: scale of the axis, `"linear"` (default) or `"log"`; with the latter, densities of the logarithm.
    """
    positive = {v: x[x > 0] if scale == "log" else x for v, x in values.items()}
    on_axis = {v: np.log(x) if scale == "log" else x for v, x in positive.items()}
    edges = bin_edges(np.concatenate(list(on_axis.values())))
    shown = np.exp(edges) if scale == "log" else edges
    for view, x in on_axis.items():
        density = density_in_bins(x, edges, len(values[view]))
        filled: dict[str, Any] = {"fill": True, "alpha": 0.35} if view == "chain" else {"linewidth": 1.8}
        axes.stairs(density, shown, color=COLOURS[view], label=LABELS[view], linestyle=LINES[view], **filled)
    axes.set_xscale(scale)
    if scale == "log":
        label_plainly(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density" + (" per factor e" if scale == "log" else ""))


def bin_edges(values: Floats) -> Floats:
    """Return the edges of equal bins that contain all values but the tails.

    If all values are equal they are in the middle of a window of size 1.
    """
    low, high = np.quantile(values, TAILS)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def density_in_bins(values: Floats, edges: Floats, samples: int) -> Floats:
    """Return the density of values in bins; relative to all samples, so that areas are comparable."""
    return np.asarray(np.histogram(values, edges)[0] / (samples * np.diff(edges)))


def plot_view_band(axes: "Axes", view: str, at: Floats, low: Floats, median: Floats, high: Floats) -> None:
    """Plot the median and band of a view against a coordinate.

    Networks are points with bars, the chain is a line in a shaded band, the SDE is lines.
    """
    colour, label = COLOURS[view], LABELS[view]
    if view == "chain":
        axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(at, median, color=colour, label=label)
    elif view == "sde":
        axes.plot(at, median, color=colour, linestyle=LINES[view], label=label)
        axes.plot(at, np.stack([low, high], axis=1), color=colour, linestyle=":", linewidth=1.2)
    else:
        shown = len(at) if len(at) <= FEW else 9
        every = np.unique(np.linspace(0, len(at) - 1, shown).round().astype(int))
        size = np.maximum(np.stack([median - low, high - median])[:, every], 0)
        axes.errorbar(at[every], median[every], size, fmt="o", color=colour, markersize=4, capsize=2, label=label)


def plot_band(
    axes: "Axes", at: Floats, quantiles: Floats, colour: str, label: str, style: "LineStyleType" = "-"
) -> None:
    """Plot a median in a shaded band; `quantiles` is (3, points): lower end, median, upper end."""
    axes.fill_between(at, quantiles[0], quantiles[2], color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, quantiles[1], color=colour, label=label, linestyle=style)


def add_legend(axes: "Axes", **options: Any) -> None:
    """Add a legend that stays readable over curves."""
    axes.legend(**({"fontsize": "small", "framealpha": 0.85, "edgecolor": "none"} | options))


def label_plainly(axis: "Axis") -> None:
    """Label a logarithmic axis with plain numbers: at powers of ten, and 2 and 5 times these where it is short."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def cell_edges(centres: Floats) -> Floats:
    """Return the edges of a map's cells from their centres in increasing order."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
