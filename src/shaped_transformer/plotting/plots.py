"""Parts that several plots share: densities over each other, bands against a coordinate, legends, ticks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..estimates import share, to_array
from ..numerics.arrays import Floats
from .style import COLOURS, LABELS, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType


FEW = 12
"""Largest number of points of real networks of which all are shown; of more, nine are."""
RANGES = {"rho12": (-1.0, 1.0)}
"""Bounds of observables that have them."""
POINTS = 400
"""Points of a density's curve."""
BINS = (6, 20)
"""Smallest and largest number of bins of the points that real networks are."""
REACH, TAILS = 3.5, (0.001, 0.999)
"""A density is shown up to `REACH` deviations from the median, and between these quantiles."""
MIDDLE = (0.16, 0.5, 0.84)
"""Quantiles at minus, zero and plus one deviation of a normal distribution."""
ROUNDING = 1e-12
"""Distance from its bounds, as a part of their distance, that a sample keeps from them in a density."""
CONSTANT = 1e-6
"""Samples that differ by less are all equal but for rounding errors."""


def plot_densities(
    axes: "Axes", values: Mapping[str, Floats], scale: str = "linear", bounds: tuple[float, float] | None = None
) -> None:
    """Plot the density of each view's samples: chain and SDE as smooth curves, real networks as points with 95 % bars.

    **Arguments:**

    - `axes`: where to plot.
    - `values`: samples of each view, (samples,).
    - `scale`: scale of the axis, `"linear"` (default) or `"log"`; with the latter, densities of the logarithm.
    - `bounds`: smallest and largest possible value; default none.
    """
    on_axis = {v: np.log(x[x > 0]) if scale == "log" else x for v, x in values.items()}
    low, high = density_window(np.concatenate(list(on_axis.values())), bounds)
    at = density_grid(low, high)
    shown = np.exp if scale == "log" else np.asarray
    for view, x in on_axis.items():
        style: dict[str, Any] = {"color": COLOURS[view], "label": LABELS[view]}
        if np.ptp(x) < CONSTANT:
            axes.axvline(float(shown(x[0])), linestyle=LINES[view], **style)
        elif view == "network":
            bins = int(np.clip(1.5 * np.cbrt(len(x)), *BINS))  # so that each has some tens of samples
            centres, density = density_points(x, np.linspace(low, high, bins + 1), len(values[view]))
            size = [density[0] - density[1], density[2] - density[0]]
            axes.errorbar(shown(centres), density[0], size, fmt="o", markersize=4, capsize=2, linewidth=1, **style)
        else:
            density = density_curve(x, at, bounds) * len(x) / len(values[view])
            axes.plot(shown(at), density, linestyle=LINES[view], **style)
            if view == "chain":
                axes.fill_between(shown(at), density, color=COLOURS[view], alpha=0.25, linewidth=0)
    axes.set_xscale(scale)
    axes.set_xlim(float(shown(low)), float(shown(high)))
    if scale == "log":
        label_plainly(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density" + (" per factor e" if scale == "log" else ""))


def density_window(values: Floats, bounds: tuple[float, float] | None = None) -> tuple[float, float]:
    """Return the ends of the part of an axis in which a density is shown.

    It is all that is possible, if the values take up more than a third of that. Values that are all equal are in the
    middle of a window of size 1.
    """
    minus, median, plus = np.quantile(values, MIDDLE)
    ends = np.quantile(values, TAILS)
    low = max(ends[0], median - REACH * (plus - minus) / 2)
    high = min(ends[1], median + REACH * (plus - minus) / 2)
    if high - low < CONSTANT:
        least, most = bounds or (-np.inf, np.inf)
        return max(least, float(median) - 0.5), min(most, float(median) + 0.5)
    if bounds is not None and high - low > (bounds[1] - bounds[0]) / 3:
        return bounds
    return float(low), float(high)


def density_grid(low: float, high: float) -> Floats:
    """Return the points of a curve from `low` to `high`: the middles of equal intervals, which leave out the ends."""
    edges = np.linspace(low, high, POINTS + 1)
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def density_curve(values: Floats, at: Floats, bounds: tuple[float, float] | None = None) -> Floats:
    """Return a kernel density estimate.

    The bandwidth is Scott's, with the smaller of two measures of the spread, so that heavy tails do not widen it.
    Between bounds it is the estimate of the logit, so that no mass lies beyond them and a peak at a bound stays sharp.

    **Arguments:**

    - `values`: samples that are not all equal, (samples,).
    - `at`: where to evaluate, (points,), between the bounds.
    - `bounds`: smallest and largest possible value; default none.

    **Returns:** (points,).
    """
    from scipy.special import logit
    from scipy.stats import gaussian_kde

    if bounds is not None:
        low, size = bounds[0], bounds[1] - bounds[0]
        inside = np.clip((values - low) / size, ROUNDING, 1 - ROUNDING)
        share_of_range = (at - low) / size
        slope = 1 / (size * share_of_range * (1 - share_of_range))
        return density_curve(logit(inside), logit(share_of_range)) * slope
    deviation = float(values.std(ddof=1))
    minus, _, plus = np.quantile(values, MIDDLE)
    spread = min(deviation, (plus - minus) / 2) or deviation
    return np.asarray(gaussian_kde(values, 1.06 * spread * len(values) ** -0.2 / deviation)(at))


def density_points(values: Floats, edges: Floats, samples: int) -> tuple[Floats, Floats]:
    """Return the centres of bins, and in each the density with its 95 % interval: value, low, high.

    The densities are relative to all samples, so that areas are comparable.
    """
    counts, width = np.histogram(values, edges)[0], np.diff(edges)
    shares = [share(np.arange(samples) < count) for count in counts]
    return (edges[1:] + edges[:-1]) / 2, (to_array(shares) / width[:, None]).T


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
        every = evenly_spaced(len(at), len(at) if len(at) <= FEW else 9)
        size = np.maximum(np.stack([median - low, high - median])[:, every], 0)
        axes.errorbar(at[every], median[every], size, fmt="o", color=colour, markersize=4, capsize=2, label=label)


def evenly_spaced(count: int, shown: int) -> NDArray[np.int64]:
    """Return the positions of `shown` of `count` points, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, shown).round().astype(np.int64))


def plot_band(
    axes: "Axes", at: Floats, quantiles: Floats, colour: str, label: str | None = None, style: "LineStyleType" = "-"
) -> None:
    """Plot a median in a shaded band; `quantiles` is (3, points): lower end, median, upper end."""
    axes.fill_between(at, quantiles[0], quantiles[2], color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, quantiles[1], color=colour, label=label, linestyle=style)


def add_legend(axes: "Axes", **options: Any) -> None:
    """Add a legend in a panel; the caller chooses a place without curves."""
    axes.legend(*legend_entries(axes), **({"frameon": False} | options))


def add_legend_above(figure: "Figure", axes: "Axes", **options: Any) -> None:
    """Add the legend of one panel above all panels, in a single row unless `ncols` says otherwise."""
    handles, labels = legend_entries(axes)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": len(labels), "frameon": False}
    figure.legend(handles, labels, **(place | options))


def legend_entries(axes: "Axes") -> tuple[list[Any], list[str]]:
    """Return handles and labels of a panel, the views first and in their common order."""
    order = {label: place for place, label in enumerate(LABELS.values())}
    handles, labels = axes.get_legend_handles_labels()
    places = sorted(range(len(labels)), key=lambda i: order.get(str(labels[i]), len(order)))
    return [handles[i] for i in places], [str(labels[i]) for i in places]


def label_line_ends(axes: "Axes", x: float, ends: Mapping[str, tuple[float, str]], gap: float = 0.07) -> None:
    """Label lines at their right ends, in their colours and so that no two labels overlap.

    **Arguments:**

    - `axes`: the panel, whose limits and scales are final.
    - `x`: where the lines end.
    - `ends`: height and colour of the end of each line, by label.
    - `gap`: smallest distance of two labels, as a part of the panel's height, in which all of them lie; default 0.07.
    """
    from scipy.optimize import isotonic_regression

    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    points = [(x, height) for _, (height, _) in ordered]
    heights = axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 1]
    steps = gap * np.arange(len(ordered))
    places = isotonic_regression(heights - steps).x + steps
    places = np.minimum(np.maximum(places, steps), 1 - steps[::-1])
    for (label, (_, colour)), start, place in zip(ordered, points, places, strict=True):
        axes.annotate(
            label,
            start,
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize="small",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def label_plainly(axis: "Axis") -> None:
    """Label a logarithmic axis with plain numbers: powers of ten, also 2 and 5 times these, or equal steps if short."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    if high < 5 * low:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def cell_edges(centres: Floats) -> Floats:
    """Return the edges of a map's cells from their centres in increasing order."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
