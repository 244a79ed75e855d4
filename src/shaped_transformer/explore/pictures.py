"""The pictures of a design, as plotly reads them: plain dictionaries, made from what was drawn so far."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..analysis.criterion import Criterion
from ..estimates import LEVELS, share
from ..inputs import rank
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES
from ..plotting.plots import (
    BINS,
    CONSTANT,
    FEW,
    RANGES,
    density_curve,
    density_grid,
    density_points,
    density_window,
    evenly_spaced,
)
from ..plotting.style import COLOURS, LABELS
from ..views.ensemble import Ensemble
from .texts import number

Json = dict[str, Any]

TITLES = {
    "correlation": "Correlation of two tokens",
    "norm": "Mean token norm",
    "correlation-density": "Correlation, last layer",
    "norm-density": "Mean token norm, last layer",
    "eigenvalues": "Eigenvalues of V, medians",
    "stopped": "Networks outside the window",
}
"""The pictures, and their titles."""
SYMBOLS = {"rho12": "ρ₁₂", "mean_token_norm": "tr V/m"}
"""What the axes of observables are called."""
HEIGHT = 240
"""Height of a picture in pixels."""
MARGIN = 0.05
"""Room beside a constant, as a part of it."""
ROOM = 0.03
"""Room beside curves, as a part of their extent."""
SHADE = "rgba(0, 114, 178, 0.22)"
"""The chain's colour for its bands."""
SHOWN_EIGENVALUES = 8
"""Most eigenvalues that are shown; of more, evenly spaced ones."""
FLOOR = 1e-30
"""Eigenvalues below this are shown as this on a logarithmic axis."""


def pictures(ensembles: Mapping[str, Ensemble]) -> dict[str, Json]:
    """Return all pictures of a design.

    **Arguments:**

    - `ensembles`: the paths of each view, the chain among them.

    **Returns:** by the keys of `TITLES`, what plotly draws; no number in it is NaN or infinite.
    """
    correlated = next(iter(ensembles.values())).tokens > 1
    return {
        "correlation": _bands(ensembles, "rho12") if correlated else _nothing("one token has no correlation"),
        "norm": _bands(ensembles, "mean_token_norm"),
        "correlation-density": _densities(ensembles, "rho12")
        if correlated
        else _nothing("one token has no correlation"),
        "norm-density": _densities(ensembles, "mean_token_norm"),
        "eigenvalues": _eigenvalues(ensembles),
        "stopped": _stopped(ensembles),
    }


def empty() -> Json:
    """Return a picture without anything drawn yet."""
    return _nothing("")


def _nothing(message: str) -> Json:
    """Return a picture with a message instead of curves."""
    note = {"text": message, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    hidden = {"visible": False}
    return {"data": [], "layout": _layout(hidden, hidden) | {"annotations": [note]}}


def _bands(ensembles: Mapping[str, Ensemble], name: str) -> Json:
    """Return median and 5–95 % band of an observable through depth, for each view."""
    observable, traces = OBSERVABLES[name], []
    for view, e in ensembles.items():
        low, median, high = np.quantile(e.observe(name), LEVELS, axis=0)
        traces += _band(view, e.depth, low, median, high)
    y = {"title": _title(SYMBOLS[name])} | _axis(observable.scale, traces, "y", RANGES.get(name))
    return {"data": traces, "layout": _layout(_layers(traces), y)}


def _band(view: str, depth: Any, low: Floats, median: Floats, high: Floats) -> list[Json]:
    """Return the traces of a view: a line in a shaded band, dashed lines, or points with bars."""
    line: Json = {"color": COLOURS[view], "width": 2}
    base: Json = {"x": _numbers(depth), "name": LABELS[view], "legendgroup": view}
    if view == "network":
        every = evenly_spaced(len(depth), len(depth) if len(depth) <= FEW else 9)
        low, median, high = low[every], median[every], high[every]
        base["x"] = _numbers(np.asarray(depth)[every])
        bars = {"array": _numbers(high - median), "arrayminus": _numbers(median - low), "symmetric": False}
        error = {"type": "data", "color": COLOURS[view], "thickness": 1, "width": 3} | bars
        return [
            base
            | {
                "y": _numbers(median),
                "mode": "markers",
                "marker": {"color": COLOURS[view], "size": 5},
                "error_y": error,
            }
        ]
    if view == "sde":
        ends = [
            base
            | {
                "y": _numbers(end),
                "mode": "lines",
                "line": line | {"dash": "dot", "width": 1},
                "showlegend": False,
                "hoverinfo": "skip",
            }
            for end in (low, high)
        ]
        return [*ends, base | {"y": _numbers(median), "mode": "lines", "line": line | {"dash": "dash"}}]
    nothing: Json = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    return [
        base | {"y": _numbers(low)} | nothing,
        base | {"y": _numbers(high), "fill": "tonexty", "fillcolor": SHADE} | nothing,
        base | {"y": _numbers(median), "mode": "lines", "line": line},
    ]


def _densities(ensembles: Mapping[str, Ensemble], name: str) -> Json:
    """Return the density of an observable at the last layer, for each view."""
    observable, bounds = OBSERVABLES[name], RANGES.get(name)
    logarithmic = observable.scale == "log"
    values = {view: e.observe(name)[:, -1] for view, e in ensembles.items()}
    on_axis = {v: np.log(x[x > 0]) if logarithmic else x for v, x in values.items()}
    on_axis = {v: x for v, x in on_axis.items() if len(x)}
    if not on_axis:
        return _nothing("all norms are zero")
    low, high = density_window(np.concatenate(list(on_axis.values())), bounds)
    shown = np.exp if logarithmic else np.asarray
    traces = []
    for view, x in on_axis.items():
        traces.append(_density(view, x, (low, high), bounds, len(values[view]), shown))
    title = "density per factor e" if logarithmic else "density"
    ends = np.array([low, high]) / (np.log(10) if logarithmic else 1)
    x_axis = {"title": _title(SYMBOLS[name])} | _scaled(observable.scale, ends)
    top = _extent(traces, "y")[1] * (1 + 2 * ROOM)
    return {"data": traces, "layout": _layout(x_axis, {"title": _title(title)} | _scaled("linear", [0, top]))}


def _density(view: str, x: Floats, window: tuple[float, float], bounds: Any, samples: int, shown: Any) -> Json:
    """Return the density of a view's samples: a curve, or points with bars for networks."""
    base: Json = {"name": LABELS[view]}
    line = {"color": COLOURS[view], "width": 2, "dash": "dash" if view == "sde" else "solid"}
    if np.ptp(x) < CONSTANT or len(x) < 2:
        at = _numbers(shown(np.full(2, float(x[0]))))
        return base | {"x": at, "y": [0, 1], "mode": "lines", "line": line}
    if view == "network":
        bins = int(np.clip(1.5 * np.cbrt(len(x)), *BINS))
        centres, density = density_points(x, np.linspace(*window, bins + 1), samples)
        bars = {"array": _numbers(density[2] - density[0]), "arrayminus": _numbers(density[0] - density[1])}
        error = {"type": "data", "symmetric": False, "color": COLOURS[view], "thickness": 1, "width": 3} | bars
        marker = {"color": COLOURS[view], "size": 5}
        return base | {
            "x": _numbers(shown(centres)),
            "y": _numbers(density[0]),
            "mode": "markers",
            "marker": marker,
            "error_y": error,
        }
    at_points = density_grid(*window)[::2]
    density = density_curve(x, at_points, bounds) * len(x) / samples
    fill = {"fill": "tozeroy", "fillcolor": SHADE} if view == "chain" else {}
    return base | fill | {"x": _numbers(shown(at_points)), "y": _numbers(density), "mode": "lines", "line": line}


def _eigenvalues(ensembles: Mapping[str, Ensemble]) -> Json:
    """Return the medians of the eigenvalues of V through depth, for chain and SDE."""
    traces = []
    for view, e in ensembles.items():
        medians = np.median(e.eigenvalues, axis=0)
        kept = evenly_spaced(e.tokens, min(e.tokens, SHOWN_EIGENVALUES))
        line = {"color": COLOURS[view], "width": 1.5, "dash": "dash" if view == "sde" else "solid"}
        for place in kept:
            style: Json = {"mode": "lines", "line": line}
            if view == "network":
                style = {"mode": "markers", "marker": {"color": COLOURS[view], "size": 4}}
            name = {"name": LABELS[view], "legendgroup": view, "showlegend": bool(place == kept[0])}
            traces.append(name | style | {"x": _numbers(e.depth), "y": _numbers(np.maximum(medians[:, place], FLOOR))})
    return {
        "data": traces,
        "layout": _layout(_layers(traces), {"title": _title("eigenvalue")} | _axis("log", traces, "y")),
    }


def left_by(ensemble: Ensemble, criterion: Criterion | None = None) -> Floats:
    """Return which paths have left the criterion's window of eigenvalues by each recorded layer, (samples, records)."""
    low, high = (criterion or Criterion()).stop(ensemble.initial)
    values = ensemble.eigenvalues
    outside = (values[..., 0] > high) | (values[..., rank(ensemble.initial) - 1] < low)
    outside |= ensemble.stopped[:, None] <= ensemble.depth
    return np.asarray(np.logical_or.accumulate(outside, axis=1))


def _stopped(ensembles: Mapping[str, Ensemble]) -> Json:
    """Return the share of networks that have left the window of eigenvalues by each layer, with 95 % intervals."""
    traces = []
    for view, e in ensembles.items():
        shares = [share(column) for column in left_by(e).T]
        low, value, high = (100 * np.array([getattr(s, end) for s in shares]) for end in ("low", "value", "high"))
        traces += _band(view, e.depth, np.minimum(low, value), value, np.maximum(high, value))
    y = {"title": _title("% of networks")} | _axis("linear", traces, "y", (0.0, 100.0))
    return {"data": traces, "layout": _layout(_layers(traces), y)}


def aligned(one: Mapping[str, Json], other: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the pictures of two designs on the same axes, so that their curves can be compared by eye.

    **Arguments:**

    - `one`, `other`: what `pictures` returns.

    **Returns:** the same, with axes that show what either design needs. Pictures without curves stay as they are.
    """
    made: tuple[dict[str, Json], dict[str, Json]] = ({}, {})
    for name in TITLES:
        shared: Json = {}
        for axis in ("xaxis", "yaxis"):
            ours, theirs = one[name]["layout"][axis], other[name]["layout"][axis]
            if "range" in ours and "range" in theirs:
                both = np.array([ours["range"], theirs["range"]])
                shared[axis] = _scaled(ours.get("type", "linear"), [both[:, 0].min(), both[:, 1].max()])
        for pictures_, place in ((one, made[0]), (other, made[1])):
            layout = pictures_[name]["layout"]
            place[name] = pictures_[name] | {"layout": layout | {a: layout[a] | s for a, s in shared.items()}}
    return made


def axes(picture: Json) -> list[Any]:
    """Return the ends of both axes of a picture; `None` for those without curves."""
    return [picture["layout"][axis].get("range") for axis in ("xaxis", "yaxis")]


def _layout(x: Json, y: Json) -> Json:
    """Return what all pictures have in common."""
    grid = {"gridcolor": "#e6e6e6", "zerolinecolor": "#cccccc", "linecolor": "#999999", "automargin": True}
    return {
        "height": HEIGHT,
        "margin": {"l": 56, "r": 10, "t": 8, "b": 44},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#222222"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "uirevision": "kept",
        "xaxis": grid | x,
        "yaxis": grid | y,
    }


def _layers(traces: list[Json]) -> Json:
    """Return the axis of layers."""
    return {"title": _title("layer")} | _axis("linear", traces, "x")


def _axis(scale: str, traces: list[Json], along: str, bounds: tuple[float, float] | None = None) -> Json:
    """Return the ends of an axis, and on a logarithmic one its ticks.

    **Arguments:**

    - `scale`: `"linear"` or `"log"`.
    - `traces`: what is drawn.
    - `along`: `"x"` or `"y"`.
    - `bounds`: what is shown; `None` (the default) means all that is drawn.
    """
    low, high = bounds or _extent(traces, along, positive=scale == "log")
    if scale == "log":
        if high < (1 + MARGIN) * low:  # a constant but for rounding: ticks need a wider range
            low, high = low * (1 - MARGIN), high * (1 + MARGIN)
        low, high = math.log10(low), math.log10(high)
    room = ROOM * (high - low) or MARGIN
    return _scaled(scale, [low - room, high + room])


def _scaled(scale: str, ends: Any) -> Json:
    """Return an axis between two ends; on a logarithmic one they are exponents of 10, and it gets its ticks."""
    made: Json = {"range": _numbers(ends)}
    if scale != "log":
        return made
    at = _logarithmic_ticks(*(10.0 ** float(end) for end in ends))
    return made | {"type": "log", "tickvals": at, "ticktext": [number(value, fixed=False) for value in at]}


def _extent(traces: list[Json], along: str, *, positive: bool = False) -> tuple[float, float]:
    """Return the least and the largest of what is drawn, bars included; of positive numbers only, if wanted."""
    values: list[Floats] = []
    for trace in traces:
        middle, bars = np.asarray(trace[along], dtype=np.float64), trace.get(f"error_{along}")
        values += [middle] if bars is None else [middle + bars["array"], middle - bars["arrayminus"]]
    together = np.concatenate(values)
    together = together[together > 0] if positive else together
    return (float(together.min()), float(together.max())) if len(together) else (1.0, 1.0)


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Return at most about six round numbers around a range: 1, 2, 5 and their tenfolds, or powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 2:
        step = math.ceil((last - first) / 5)
        return [float(f"1e{k}") for k in range(first - first % step, last + 1, step)]
    parts = range(10, 100) if high < 1.5 * low else (10, 15, 20, 30, 50, 70) if high < 8 * low else (10, 20, 50)
    found = [float(f"{part / 10:g}e{k}") for k in range(first - 1, last + 1) for part in parts]
    inside = [value for value in found if low / 1.02 <= value <= 1.02 * high]
    return inside[:: -(-len(inside) // 6)] or [float(f"{math.sqrt(low * high):.3g}")]


def _title(text: str) -> Json:
    """Return the title of an axis."""
    return {"text": text, "standoff": 6}


def _numbers(values: Any) -> list[float]:
    """Return numbers with six digits, as JSON has them."""
    return [float(f"{x:.6g}") for x in np.asarray(values, dtype=np.float64)]
