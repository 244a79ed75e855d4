"""The picture of a rehearsal: what each step changes in each layer, how far matrices move, and the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics.arrays import Floats
from .probe import COLUMNS, EXPECTED, MEASURED, UNUSUAL, axis_title, label_decades, logarithmic_limits, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST, LAST = (127, 184, 218), (8, 48, 107)
"""Colours of the first and of the last step, as red, green and blue; those between lie between them."""
STEPS = 6
"""At most so many steps have a line of their own."""
ROLES = {
    "embedding": ("#000000", "-"),
    "query, key, value": ("#332288", "-"),
    "query": ("#0072B2", "-"),
    "key": ("#56B4E9", "--"),
    "value": ("#009E73", "-"),
    "attention output": ("#999933", "--"),
    "MLP in": ("#E69F00", "-"),
    "MLP out": ("#D55E00", "--"),
    "router": ("#CC79A7", "-"),
    "other": ("#999999", "-"),
    "head": ("#882255", "-"),
}
"""Colour and line of the matrices of each role."""
OTHER = ("#999999", "-")
"""Those of a role that is not listed."""
OVER_LAYERS = {
    "stream_change": "change of the tokens, ‖X − X₀‖ / ‖X₀‖",
    "branch_change": "change of what each layer adds",
    "gradient_norm": "norm of the tokens' gradient",
}
"""Titles of the numbers of layers, by variable."""
OVER_ATTENTION = {"attention_range": "largest difference of attention logits"}
"""The same for attention layers."""
OVER_STEPS = {
    "loss": "loss",
    "output_largest": "largest output, such as a logit",
    "gradient_total": "norm of the whole gradient",
}
"""The same for numbers that each step has one of."""
UPDATES = "effective update ‖xΔW‖ / ‖xW‖, mean of steps"
"""Title of the panel of updates."""


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a panel.

    **Arguments:**

    - `label`: in the legend.
    - `colour`, `line`: how it looks.
    - `values`: mean over draws, (points,); NaN where there is nothing to show.
    - `low`, `high`: ends of the range of the draws, (points,); the same as the mean for one draw.
    """

    label: str
    colour: str
    values: Floats
    low: Floats
    high: Floats
    line: str = "-"

    @property
    def has_band(self) -> bool:
        """Whether there are several draws."""
        return bool((self.low < self.high).any())


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel shows.

    **Arguments:**

    - `name`: of the variable.
    - `title`: above it.
    - `axis`: title of its axis.
    - `names`: of the points along the axis.
    - `ticks`: positions and names of those that are named.
    - `series`: the lines.
    - `logarithmic`: whether its axis is logarithmic.
    - `mark`: where a horizontal line is drawn, beyond which is too much; default `None`.
    """

    name: str
    title: str
    axis: str
    names: list[str]
    ticks: tuple[list[int], list[str]]
    series: list[Series] = field(default_factory=list)
    logarithmic: bool = True
    mark: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the axis."""
        shown = np.concatenate([part for one in self.series for part in (one.values, one.low, one.high)])
        shown = shown[np.isfinite(shown)]
        if not shown.size:
            return (0.1, 1.0) if self.logarithmic else (0.0, 1.0)
        low, high = float(shown.min()), float(shown.max())
        if self.logarithmic:
            return logarithmic_limits(low, high)
        room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        return low - room, high + room


def panels(result: Any, marks: Mapping[str, float] | None = None) -> list[Panel]:
    """Return what the picture of a rehearsal shows, panels without numbers left out.

    **Arguments:**

    - `result`: a `Rehearsal`.
    - `marks`: variable → value beyond which it is too much; default none.
    """
    data, found = result.data, []
    layers = result.layers
    for variable, title in OVER_LAYERS.items():
        if variable in data:
            found.append(Panel(variable, title, axis_title(layers), layers, ticks(layers), _by_step(result, variable)))
    for variable, title in OVER_ATTENTION.items():
        if variable in data:
            names = [str(name) for name in data["attention"].values]
            ends = [name.rpartition(".")[0] or name for name in names]
            series = _by_step(result, variable)
            found.append(Panel(variable, title, "attention layer", names, ticks(ends), series))
    found.append(_updates(result))
    for variable, title in OVER_STEPS.items():
        if variable in data:
            numbers = [int(i) for i in data["step"].values]
            values = np.full((data.sizes["draw"], len(numbers)), np.nan)
            known = np.asarray(data[variable].values, float)
            values[:, : known.shape[1]] = known
            logarithmic = variable != "loss"
            series = [_series("mean" if len(values) > 1 else variable, MEASURED, values, logarithmic=logarithmic)]
            shown = numbers[:: max(1, len(numbers) // 8)]
            names = [f"step {i}" for i in numbers]
            at = (shown, [str(i) for i in shown])
            found.append(Panel(variable, title, "step", names, at, series, logarithmic=logarithmic))
    marked = [replace(panel, mark=(marks or {}).get(panel.name)) for panel in found]
    return [panel for panel in marked if any(np.isfinite(one.values).any() for one in panel.series)]


def _by_step(result: Any, variable: str) -> list[Series]:
    """Return a line for each step, or for some of many; steps in which nothing is known or has changed have none."""
    values = np.asarray(result.data[variable].values, float)
    steps = values.shape[1] - 1
    chosen = list(range(steps + 1))
    if steps + 1 > STEPS:
        chosen = [0, *sorted({1 + round(i * (steps - 1) / (STEPS - 2)) for i in range(STEPS - 1)})]
    return [
        _series(f"step {i}", step_colour(i, steps), values[:, i])
        for i in chosen
        if (np.nan_to_num(values[:, i]) > 0).any()
    ]


def step_colour(step: int, steps: int) -> str:
    """Return the colour of a step of so many."""
    if step == 0:
        return EXPECTED
    share = (step - 1) / max(steps - 1, 1)
    mixed = [round((1 - share) * a + share * b) for a, b in zip(FIRST, LAST, strict=True)]
    return "#" + "".join(f"{one:02x}" for one in mixed)


def _updates(result: Any) -> Panel:
    """Return the panel of the matrices' updates over depth."""
    by_role = result.effect_by_role()
    blocks = list(dict.fromkeys(str(name) for one in by_role.values() for name in one["block"].values if str(name)))
    names = ["before the blocks", *blocks, "after the blocks"]
    at, labels = ticks(blocks) if blocks else ([], [])
    series = []
    for role, effects in by_role.items():
        values = np.full((effects.sizes["draw"], len(names)), np.nan)
        outside = 0 if role == "embedding" else len(names) - 1
        for i, name in enumerate(map(str, effects["block"].values)):
            values[:, names.index(name) if name else outside] = effects.values[..., i].mean(1)
        colour, line = ROLES.get(role, OTHER)
        series.append(_series(role, colour, values, line=line))
    axis = axis_title(blocks) if blocks else "block"
    return Panel(
        "effective_update",
        UPDATES,
        axis,
        names,
        ([0, *(i + 1 for i in at), len(names) - 1], ["in", *labels, "out"]),
        series,
    )


def _series(label: str, colour: str, values: Floats, line: str = "-", *, logarithmic: bool = True) -> Series:
    """Return a line of values of several draws, (draws, points)."""
    shown = np.where(np.isfinite(values), values, np.nan)
    if logarithmic:
        shown = np.where(shown > 0, shown, np.nan)
    known = ~np.isnan(shown).all(0)

    def over_draws(reduce: Any) -> Floats:
        out = np.full(shown.shape[1], np.nan)
        out[known] = reduce(shown[:, known], axis=0)
        return out

    return Series(label, colour, over_draws(np.nanmean), over_draws(np.nanmin), over_draws(np.nanmax), line)


def plot(result: Any, marks: Mapping[str, float] | None = None) -> "Figure":
    """Plot a rehearsal.

    How to read it: sane steps change the tokens of all layers by a small part of their size, and the update is a
    similar part of all matrices. Attention logits and outputs stay where they were.

    **Arguments:**

    - `result`: a `Rehearsal`.
    - `marks`: variable → value beyond which it is too much, a dotted line; default none.

    **Returns:** a Matplotlib figure with a panel for each number; with several draws, bands from the smallest to the
    largest.
    """
    from matplotlib.figure import Figure

    shown = panels(result, marks)
    rows = -(-(len(shown) + 1) // COLUMNS)
    figure = Figure(figsize=(4.4 * COLUMNS, 3.1 * rows + 0.4), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(places, shown, strict=False):
        _plot_panel(axes, panel)
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    _legend(places[len(shown)], shown)
    figure.suptitle(_title(result), x=0.01, ha="left")
    return figure


def _title(result: Any) -> str:
    """Return the title of the picture."""
    settings = result.settings
    names = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
    draws = result.data.sizes["draw"]
    return (
        f"{settings['model']}, {settings['parameters']:,} parameters; "
        f"{names.get(settings['optimiser'], settings['optimiser'])}, rate {settings['lr']:g}"
        + (f", warm-up over {settings['warmup']:,} steps" if settings["warmup"] else "")
        + (f"; {draws} networks, bands from the smallest to the largest" if draws > 1 else "")
    )


def _plot_panel(axes: "Axes", panel: Panel) -> None:
    """Plot one panel."""
    at = np.arange(len(panel.names))
    if panel.logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(*panel.limits)
    for one in panel.series:
        if one.has_band:
            axes.fill_between(at, one.low, one.high, color=one.colour, alpha=0.15, linewidth=0)
        alone = np.isfinite(one.values).sum() == 1
        marker = "o" if alone or len(at) <= 16 else ""
        axes.plot(at, one.values, one.line, color=one.colour, linewidth=1.6, marker=marker, markersize=3.5)
    if panel.mark is not None and panel.limits[0] < panel.mark < panel.limits[1]:
        axes.axhline(panel.mark, color=UNUSUAL, linewidth=1, linestyle=":")
    if panel.logarithmic:
        label_decades(axes)
    axes.set_xticks(*panel.ticks)
    axes.set_xlim(-0.5, len(at) - 0.5)
    axes.set_xlabel(panel.axis)
    axes.set_title(panel.title, loc="left", fontsize="medium")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: "Axes", shown: Sequence[Panel]) -> None:
    """Show what lines are: steps, and roles of matrices."""
    from matplotlib.lines import Line2D

    def lines(series: Sequence[Series]) -> list[Line2D]:
        styles: list[dict[str, Any]] = [{"color": one.colour, "linestyle": one.line} for one in series]
        return [Line2D([], [], label=one.label, **style) for one, style in zip(series, styles, strict=True)]

    first = axes.legend(
        handles=lines(key_of(shown)[0]), loc="upper left", title="after", frameon=False, alignment="left"
    )
    axes.add_artist(first)
    over = [Line2D([], [], color=UNUSUAL, linestyle=":", label="too much above it")] if any_marked(shown) else []
    axes.legend(
        handles=[*lines(key_of(shown)[1]), *over], loc="upper right", title="matrices", frameon=False, alignment="left"
    )


def any_marked(shown: Sequence[Panel]) -> bool:
    """Whether some panel shows its mark."""
    return any(one.mark is not None and one.limits[0] < one.mark < one.limits[1] for one in shown)


def key_of(shown: Sequence[Panel]) -> tuple[list[Series], list[Series]]:
    """Return a line for each step that is shown, and one for each role of matrices."""
    steps = {one.label: one for panel in shown if panel.name in OVER_LAYERS | OVER_ATTENTION for one in panel.series}
    ordered = [steps[name] for name in sorted(steps, key=lambda name: int(name.split()[1]))]
    return ordered, [one for panel in shown if panel.name == "effective_update" for one in panel.series]
