"""The plots of a probe's report, as plotly reads them: plain dictionaries, without plotly itself."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..numerics.arrays import Floats
from ..plotting.probe import (
    BROKEN_OPACITY,
    EXPECTED,
    MEASURED,
    SEQUENCES,
    UNUSUAL,
    Curve,
    axis_title,
    broken_width,
    curves,
    logarithmic_limits,
    stack_starts,
    ticks,
)
from .comparison import Comparison
from .result import ProbeResult

ROW, TOP, BOTTOM, GAP = 250, 40, 56, 88
"""Heights in pixels: of a panel, above the first, below the last, between two rows."""
BETWEEN = 0.06
"""Room between two columns, as a part of the width."""
ATTENTION = {
    "attention_entropy": "entropy, 1 is uniform attention",
    "attention_from_uniform": "distance from uniform attention",
    "attention_from_identity": "distance from the identity",
}
"""Titles of the numbers of an attention layer, by variable."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """One panel.

    **Arguments:**

    - `title`: above it.
    - `traces`: what plotly draws in it.
    - `limits`: ends of its axis.
    - `logarithmic`: whether the axis is logarithmic.
    """

    title: str
    traces: list[Json]
    limits: tuple[float, float]
    logarithmic: bool = False


@dataclass(frozen=True)
class Across:
    """The axis that all panels have in common.

    **Arguments:**

    - `count`: number of its points.
    - `title`: below it.
    - `ticks`: positions and names.
    - `lines`: where a dotted line divides it.
    - `broken`: from which layer on numbers are not finite, shaded beyond the last; default `None`.
    """

    count: int
    title: str
    ticks: tuple[list[int], list[str]]
    lines: Sequence[float] = ()
    broken: str | None = None

    @property
    def end(self) -> float:
        """Where the last point ends."""
        return self.count - 0.5

    @property
    def shaded(self) -> float:
        """Width of what is shaded beyond the last point."""
        return 0.0 if self.broken is None else broken_width(self.count)


def layer_figure(result: ProbeResult, comparison: Comparison | None) -> Json:
    """Return the figure of all layers: a panel for each number.

    Names are escaped, since plotly reads markup in texts.
    """
    names = result.layers
    positions, labels = ticks(names)
    across = Across(
        len(names),
        text(axis_title(names)),
        (positions, [text(label) for label in labels]),
        [int(i) - 0.5 for i in stack_starts(names)],
        result.settings["not_finite"],
    )
    shown = curves(result, comparison)
    plots = [Plot(c.panel.title, _traces(names, c), c.limits, c.panel.logarithmic) for c in shown]
    readings = [
        f"{name}: " + "; ".join(f"{c.panel.title} {_reading(c, i)}" for c in shown if _reading(c, i))
        for i, name in enumerate(names)
    ]
    return figure(plots, across) | {"readings": readings}


def weight_figure(result: ProbeResult) -> Json:
    """Return the figure of the norms of the parameters' gradients, those that are not zero."""
    names = [str(name) for name in result.data["weight"].values]
    norms = np.asarray(result.data["weight_gradient"].values, dtype=float)
    there = np.flatnonzero(norms > 0)
    trace = {
        "x": there.tolist(),
        "y": norms[there].tolist(),
        "mode": "markers",
        "marker": {"color": MEASURED, "size": 5},
        "hoverinfo": "text",
        "hovertext": [f"<b>{text(names[i])}</b><br>gradient norm {norms[i]:.3g}" for i in there],
    }
    low, high = (float(norms[there].min()), float(norms[there].max())) if len(there) else (0.1, 1.0)
    plot = Plot("norm of each parameter's gradient", [trace], logarithmic_limits(low, high), logarithmic=True)
    return figure([plot], Across(len(names), "parameters, in the model's order", ([], [])))


def attention_figure(result: ProbeResult) -> Json:
    """Return the figure of attention: heads as points, their mean as a line."""
    names = [str(name) for name in result.data["attention"].values]
    positions, labels = ticks(names)
    plots = []
    for variable, title in ATTENTION.items():
        values = np.asarray(result.data[variable].values, dtype=float)
        layer, head = np.indices(values.shape).reshape(2, -1)
        heads = {
            "x": layer.tolist(),
            "y": values.ravel().tolist(),
            "mode": "markers",
            "marker": {"color": MEASURED, "size": 4, "opacity": 0.4},
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{text(names[i])}</b><br>head {j}: {values[i, j]:.3g}" for i, j in zip(layer, head, strict=True)
            ],
        }
        mean = {
            "x": list(range(len(names))),
            "y": values.mean(1).tolist(),
            "mode": "lines",
            "line": {"color": MEASURED, "width": 2},
            "hoverinfo": "skip",
        }
        plots.append(Plot(title, [heads, mean], (-0.03, 1.03)))
    return figure(plots, Across(len(names), "attention layer", (positions, [text(label) for label in labels])))


def figure(plots: Sequence[Plot], across: Across) -> Json:
    """Return what plotly draws, with a layout for each number of columns from 1 to 3."""
    data = [
        {"type": "scatter", "showlegend": False, "xaxis": f"x{i}", "yaxis": f"y{i}"} | trace
        for i, plot in enumerate(plots, 1)
        for trace in plot.traces
    ]
    return {"data": data, "layouts": [layout(plots, across, columns) for columns in (1, 2, 3)]}


def layout(plots: Sequence[Plot], across: Across, columns: int) -> Json:
    """Return the layout of panels in so many columns."""
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    inner = rows * ROW + (rows - 1) * GAP
    width = (1 - BETWEEN * (columns - 1)) / columns
    out: Json = {
        "height": inner + TOP + BOTTOM,
        "margin": {"l": 56, "r": 12, "t": TOP, "b": BOTTOM},
        "hovermode": "x",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#777777", "font": {"color": "#111111"}, "align": "left"},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "plot_bgcolor": "#ffffff",
        "paper_bgcolor": "#ffffff",
        "dragmode": False if columns == 1 else "zoom",
        "annotations": [],
        "shapes": [],
    }
    for i, plot in enumerate(plots, 1):
        row, column = divmod(i - 1, columns)
        left = column * (width + BETWEEN)
        top = 1 - row * (ROW + GAP) / inner
        fixed = columns == 1  # so that a finger scrolls the page
        low, high = np.log10(plot.limits) if plot.logarithmic else plot.limits
        out[f"xaxis{i}"] = {
            "anchor": f"y{i}",
            "domain": [left, min(left + width, 1.0)],
            "range": [-0.5, across.end + across.shaded],
            "tickvals": across.ticks[0],
            "ticktext": across.ticks[1],
            "tickangle": 0,
            "title": {"text": across.title, "font": {"size": 12}, "standoff": 6},
            "showgrid": False,
            "zeroline": False,
            "linecolor": "#444444",
            "ticks": "outside",
            "fixedrange": fixed,
        }
        out[f"yaxis{i}"] = {
            "anchor": f"x{i}",
            "domain": [max(top - ROW / inner, 0.0), top],
            "type": "log" if plot.logarithmic else "linear",
            "range": [float(low), float(high)],
            "exponentformat": "power",
            "dtick": _step(float(high - low)) if plot.logarithmic else None,
            "nticks": 6,
            "gridcolor": "#e4e4e4",
            "zeroline": False,
            "linecolor": "#444444",
            "fixedrange": fixed,
        }
        out["annotations"].append(
            {
                "text": f"<b>{text(plot.title)}</b>",
                "xref": "paper",
                "yref": "paper",
                "x": left,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 4,
                "showarrow": False,
            }
        )
        out["shapes"] += [
            {
                "type": "line",
                "xref": f"x{i}",
                "yref": f"y{i} domain",
                "x0": x,
                "x1": x,
                "y0": 0,
                "y1": 1,
                "line": {"color": EXPECTED, "width": 1, "dash": "dot"},
            }
            for x in across.lines
        ]
        if across.broken is not None:
            out["shapes"].append(
                {
                    "type": "rect",
                    "layer": "below",
                    "name": text(f"not finite from {across.broken} on"),
                    "xref": f"x{i}",
                    "yref": f"y{i} domain",
                    "x0": across.end,
                    "x1": across.end + across.shaded,
                    "y0": 0,
                    "y1": 1,
                    "fillcolor": UNUSUAL,
                    "opacity": BROKEN_OPACITY,
                    "line": {"width": 0},
                }
            )
    return out


def _traces(names: Sequence[str], curve: Curve) -> list[Json]:
    """Return the traces of one number of all layers."""
    at = np.arange(len(names))
    title = text(curve.panel.title)
    texts = [f"<b>{text(name)}</b><br>{title}<br>{_reading(curve, i)}" for i, name in enumerate(names)]
    traces = _expected(at, curve)
    count = min(curve.sequences.shape[1], SEQUENCES)
    if count > 1:
        traces.append(
            {
                "x": [x for _ in range(count) for x in (*at.tolist(), None)],
                "y": [y for j in range(count) for y in (*plain(curve.sequences[:, j]), None)],
                "mode": "lines",
                "line": {"color": MEASURED, "width": 0.8},
                "opacity": 0.35,
                "hoverinfo": "skip",
            }
        )
    traces.append(
        {
            "x": at.tolist(),
            "y": plain(curve.mean),
            "mode": "lines+markers" if len(at) <= 24 else "lines",
            "line": {"color": MEASURED, "width": 2.2},
            "marker": {"size": 5},
            "hoverinfo": "text",
            "hovertext": texts,
            "meta": "measured",
        }
    )
    if curve.unusual:
        traces.append(
            {
                "x": curve.unusual,
                "y": plain(curve.mean[curve.unusual]),
                "mode": "markers",
                "marker": {"color": UNUSUAL, "size": 11, "symbol": "circle-open", "line": {"width": 2}},
                "hoverinfo": "skip",
            }
        )
    if curve.zeros:
        traces.append(
            {
                "x": curve.zeros,
                "y": [float(np.exp(0.97 * np.log(curve.limits[0]) + 0.03 * np.log(curve.limits[1])))]
                * len(curve.zeros),
                "mode": "markers",
                "marker": {"color": UNUSUAL, "size": 9, "symbol": "triangle-down"},
                "hoverinfo": "text",
                "hovertext": [texts[i] for i in curve.zeros],
            }
        )
    return traces


def _expected(at: NDArray[np.int_], curve: Curve) -> list[Json]:
    """Return the traces of the expected band."""
    if curve.median is None:
        return []
    low, high = curve.drawn_band
    known = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    x: list[int | None] = []
    y: list[float | None] = []
    for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):  # a layer without band is a gap
        x += [*at[part].tolist(), *at[part][::-1].tolist(), None]
        y += [*high[part].tolist(), *low[part][::-1].tolist(), None]
    band = {
        "x": x,
        "y": y,
        "mode": "lines",
        "fill": "toself",
        "fillcolor": "rgba(119, 119, 119, 0.3)",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    median = {
        "x": at.tolist(),
        "y": plain(curve.median),
        "mode": "lines",
        "line": {"color": EXPECTED, "width": 1.2, "dash": "dash"},
        "hoverinfo": "skip",
    }
    return [band, median]


def _reading(curve: Curve, layer: int) -> str:
    """Return a layer's value with its band, "1.02, expected 0.9–1.1"; empty where there is none."""
    if layer in curve.zeros:
        value = "0"
    elif np.isfinite(curve.mean[layer]):
        value = f"{curve.mean[layer]:.3g}"
    else:
        return ""
    if curve.low is None or curve.high is None or not np.isfinite(curve.high[layer]):
        return value
    low = curve.low[layer] if np.isfinite(curve.low[layer]) else 0.0
    unusual = ", unusual change" if layer in curve.unusual else ""
    return f"{value}, expected {low:.3g}–{curve.high[layer]:.3g}{unusual}"


def _step(decades: float) -> str | int | None:
    """Return the distance of ticks on a logarithmic axis: 1, 2 and 5 of each of a few decades, else powers of 10."""
    return None if decades < 1 else "D2" if decades < 3 else -int(-decades // 6)


def plain(values: Floats) -> list[float | None]:
    """Return numbers as JSON knows them."""
    return [float(x) if np.isfinite(x) else None for x in values]


def text(text: str) -> str:
    """Return a text in which plotly finds no markup."""
    return html.escape(text, quote=False)
