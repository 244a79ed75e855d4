"""The picture of a probe: what each layer does to tokens and gradients, beside what the initialisation would do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..estimates import CONFIDENCE
from ..numerics.arrays import Floats
from .plots import label_plainly
from .style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """A number of each layer, and how it is shown.

    **Arguments:**

    - `name`: of the variable.
    - `title`: of the panel.
    - `logarithmic`: whether its axis is logarithmic.
    """

    name: str
    title: str
    logarithmic: bool = False


PANELS = (
    Panel("token_norm", "token norm, tr V / m", logarithmic=True),
    Panel("mean_absolute_correlation", "mean |ρ| of pairs of tokens"),
    Panel("effective_rank", "effective rank of the tokens"),
    Panel("branch_share", "share of the branch, ‖out − in‖² / ‖out‖²", logarithmic=True),
    Panel("gradient_norm", "norm of the tokens' gradient", logarithmic=True),
    Panel("gradient_effective_rank", "effective rank of the gradient"),
)
"""The panels, in their order; one whose number was not measured is left out."""
MEASURED, UNUSUAL, EXPECTED = COLOURS["chain"], COLOURS["sde"], "#777777"
"""Colours of the measurement, of the mark of an unusual layer, and of what is expected."""
COLUMNS = 3
"""Largest number of panels in a row."""
SEQUENCES = 32
"""At most so many sequences have a line of their own."""
TICKS = 8
"""About so many layers are named on an axis."""
BOUNDS = {"mean_absolute_correlation": (0.0, 1.0)}
"""Ends of the range of numbers that have one."""
BROKEN_OPACITY = 0.25
"""Opacity of what is shaded where numbers are not finite."""
MARGIN = 0.03
"""Room on an axis beyond such a range, as a part of it."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What one panel shows.

    **Arguments:**

    - `panel`: the number.
    - `sequences`: of each layer and sequence, (layers, sequences); NaN where there is nothing to show.
    - `mean`: over sequences, (layers,), NaN likewise.
    - `low`, `median`, `high`: ends and middle of the expected band, (layers,), `None` without a comparison; NaN where
      they are 0 or less on a logarithmic axis.
    - `unusual`: numbers of the layers that are unusual.
    - `zeros`: numbers of the layers whose value is 0 on a logarithmic axis.
    """

    panel: Panel
    sequences: Floats
    mean: Floats
    low: Floats | None
    median: Floats | None
    high: Floats | None
    unusual: list[int]
    zeros: list[int]

    @property
    def drawn_band(self) -> tuple[Floats, Floats]:
        """Ends of the band as they are drawn: a lower end of 0 or less is the end of a logarithmic axis."""
        if self.low is None or self.high is None:
            return np.zeros(0), np.zeros(0)
        if self.panel.name in BOUNDS:
            return np.clip(self.low, *BOUNDS[self.panel.name]), np.clip(self.high, *BOUNDS[self.panel.name])
        if not self.panel.logarithmic:
            return self.low, self.high
        return np.where(np.isnan(self.low) & ~np.isnan(self.high), self.limits[0], self.low), self.high

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the axis."""
        if self.panel.name in BOUNDS:
            low, high = BOUNDS[self.panel.name]
            return low - MARGIN * (high - low), high + MARGIN * (high - low)
        ends = [x for x in (self.low, self.high) if x is not None]
        shown = np.concatenate([self.sequences.ravel(), self.mean, *ends])
        shown = shown[np.isfinite(shown)]
        if not shown.size:
            return (0.1, 1.0) if self.panel.logarithmic else (0.0, 1.0)
        low, high = float(shown.min()), float(shown.max())
        if not self.panel.logarithmic:
            return 0.0, 1.06 * high or 1.0
        return logarithmic_limits(low, high)


def curves(result: Any, comparison: Any = None) -> list[Curve]:
    """Return what the panels of a probe show.

    **Arguments:**

    - `result`: a `ProbeResult`.
    - `comparison`: a `Comparison`; default none.
    """
    unusual = {} if comparison is None else comparison.unusual()
    return [
        _curve(result, panel, None if comparison is None else comparison.bands.get(panel.name), unusual)
        for panel in PANELS
        if panel.name in result.data
    ]


def logarithmic_limits(low: float, high: float) -> tuple[float, float]:
    """Return the ends of a logarithmic axis for positive numbers from `low` to `high`, with some room."""
    room = max(0.05 * (np.log(high) - np.log(low)), np.log(1.15))
    ends = np.exp(np.clip([np.log(low) - room, np.log(high) + room], np.log(1e-300), np.log(1e300)))
    return float(ends[0]), float(ends[1])


def _curve(result: Any, panel: Panel, band: Any, unusual: Any) -> Curve:
    """Return what one panel shows."""
    values = np.asarray(result.data[panel.name].values, dtype=float)
    hidden = ~result.known(panel.name)
    mean = values.mean(1)
    zeros = np.flatnonzero((mean <= 0) & ~hidden & panel.logarithmic)

    def shown(x: Floats) -> Floats:
        x = np.where(np.isfinite(x), x, np.nan)
        x = np.where(x > 0, x, np.nan) if panel.logarithmic else x
        return np.where(hidden.reshape(-1, *[1] * (x.ndim - 1)), np.nan, x)

    low, median, high = (
        None if band is None else shown(np.asarray(getattr(band, end))) for end in ("low", "median", "high")
    )
    marked = unusual.get(panel.name, {})
    layers = [i for i, name in enumerate(result.layers) if name in marked and not hidden[i]]
    return Curve(panel, shown(values), shown(mean), low, median, high, layers, [int(i) for i in zeros])


def ticks(layers: Sequence[str], count: int = TICKS) -> tuple[list[int], list[str]]:
    """Return the numbers of some layers, and their short names: for an axis, without overlaps.

    **Arguments:**

    - `layers`: names of all layers.
    - `count`: about how many to name.
    """
    last = [name.rpartition(".")[2] for name in layers]
    if len({*last}) < len(last):  # several lists of blocks: their numbers would be ambiguous
        last = [str(i) for i in range(len(layers))]
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if len(layers) <= s * count), -(-len(layers) // count))
    chosen: list[int] = []
    for i, name in enumerate(last):
        named = int(name) % step == 0 if name.isdigit() else i % step == 0
        if named and (not chosen or i - chosen[-1] > step / 2):
            chosen.append(i)
    return chosen, ["in" if last[i] == "input" else _short(last[i]) for i in chosen]


def axis_title(layers: Sequence[str]) -> str:
    """Return what the axis of the layers shows: the entries of a list of blocks, or all in order."""
    stacks = list(dict.fromkeys(name.rpartition(".")[0] for name in layers))
    if len({name.rpartition(".")[2] for name in layers}) < len(layers):
        return "layers in order, from 0"
    return f"layer, as numbered in {_short(stacks[0], 30)}" if len(stacks) == 1 and stacks[0] else "layer"


def stack_starts(layers: Sequence[str]) -> NDArray[np.intp]:
    """Return the numbers of the layers at which another list of blocks begins."""
    stacks = [name.rpartition(".")[0] for name in layers]
    starts = np.array([i for i in range(1, len(stacks)) if stacks[i] != stacks[i - 1]], dtype=np.intp)
    return starts if len(starts) <= 3 else starts[:0]


def band_label(comparison: Any) -> str:
    """Return what the grey band is."""
    return (
        f"{100 * CONFIDENCE:.0f} % of networks at initialisation are inside at all layers "
        f"({comparison.label}, {comparison.draws} draws)"
    )


def plot(result: Any, comparison: Any = None) -> "Figure":
    """Plot a probe.

    How to read it: a healthy model keeps its curves level or lets them drift. Where the mean |ρ| goes to 1 and the
    effective rank to 1, tokens have become alike. A straight slope of a norm is exponential growth or decay.

    **Arguments:**

    - `result`: a `ProbeResult`.
    - `comparison`: a `Comparison`, for the expected band and the marks of unusual layers; default none.

    **Returns:** a Matplotlib figure with a panel for each number.
    """
    from matplotlib.figure import Figure

    shown = curves(result, comparison)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.1 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, curve in zip(panels, shown, strict=False):
        _plot_curve(axes, curve, None if comparison is None else band_label(comparison))
        _name_layers(axes, result)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes in panels[max(len(shown) - columns, 0) : len(shown)]:
        axes.set_xlabel(axis_title(result.layers))
    entries: dict[str, Any] = {}
    for axes in panels[: len(shown)]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 2), frameon=False
    )
    figure.suptitle(_title(result), x=0.01, ha="left")
    return figure


def _title(result: Any) -> str:
    """Return the title of the picture."""
    settings = result.settings
    count = result.data.sizes["sequence"]
    return (
        f"{settings['model']}, {settings['parameters']:,} parameters, {len(result.layers)} layers; "
        f"{count} sequence{'' if count == 1 else 's'}"
    )


def _plot_curve(axes: "Axes", curve: Curve, label: str | None) -> None:
    """Plot one number of all layers."""
    at = np.arange(len(curve.mean))
    if curve.panel.logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(*curve.limits)
    if curve.low is not None and curve.high is not None and curve.median is not None:
        axes.fill_between(at, *curve.drawn_band, color=EXPECTED, alpha=0.3, linewidth=0, label=label)
        axes.plot(at, curve.median, color=EXPECTED, linewidth=1, linestyle="--", label="median at initialisation")
    count = curve.sequences.shape[1]
    if count > 1:
        lines = axes.plot(at, curve.sequences[:, :SEQUENCES], color=MEASURED, linewidth=0.6, alpha=0.35)
        lines[0].set_label("each sequence" if count <= SEQUENCES else f"the first {SEQUENCES} of {count} sequences")
    measured = "measured, mean" if count > 1 else "measured"
    marker = "o" if len(at) <= 2 * TICKS else ""
    axes.plot(at, curve.mean, color=MEASURED, linewidth=1.8, marker=marker, markersize=3, label=measured)
    if curve.unusual:
        axes.plot(
            curve.unusual,
            curve.mean[curve.unusual],
            "o",
            color=UNUSUAL,
            markersize=7,
            fillstyle="none",
            label="changes here as the initialisation hardly ever does",
        )
    if curve.panel.logarithmic:
        label_decades(axes)
    if curve.zeros:
        axes.plot(
            curve.zeros,
            np.zeros(len(curve.zeros)),
            "v",
            color=UNUSUAL,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="zero",
        )
    axes.set_title(curve.panel.title, loc="left", fontsize="medium")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def label_decades(axes: "Axes") -> None:
    """Label a logarithmic axis: plain numbers over a short range, powers of ten over a long one."""
    from matplotlib.ticker import LogFormatterMathtext, LogLocator

    low, high = axes.get_ylim()
    label_plainly(axes.yaxis)
    if 5 * low <= high < 20 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    elif high > 1e4 * low:
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(LogFormatterMathtext())


def _name_layers(axes: "Axes", result: Any) -> None:
    """Name some layers on the axis; mark where lists of blocks begin, and where numbers end being finite."""
    layers = result.layers
    positions, names = ticks(layers)
    axes.set_xticks(positions, names)
    end = len(layers) - 0.5
    for start in stack_starts(layers):
        axes.axvline(start - 0.5, color=EXPECTED, linewidth=0.8, linestyle=":")
    broken = result.settings.get("not_finite")
    if broken is not None:
        width = broken_width(len(layers))
        axes.axvspan(
            end, end + width, color=UNUSUAL, alpha=BROKEN_OPACITY, linewidth=0, label=f"not finite from {broken} on"
        )
        end += width
    axes.set_xlim(-0.5, end)


def broken_width(layers: int) -> float:
    """Return the width of what is shaded beyond the last of so many layers, where numbers are not finite."""
    return max(1.0, 0.06 * layers)


def _short(name: str, most: int = 12) -> str:
    """Return a name with its middle left out where it is long."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"
