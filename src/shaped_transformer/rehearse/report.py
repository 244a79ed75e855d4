"""The report of a rehearsal: one HTML file that needs nothing else, with the verdict, plots and tables."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..plotting.probe import UNUSUAL, stack_starts
from ..plotting.rehearsal import OVER_ATTENTION, OVER_LAYERS, OVER_STEPS, Panel, any_marked, key_of, panels
from ..probe.interactive import Across, Json, Plot, figure, plain, text
from ..probe.page import (
    document,
    heading,
    key_entry,
    key_line,
    scrolling,
    settings_section,
    verdict_section,
    write_page,
)
from ..probe.verdict import Verdict
from .rehearsal import Rehearsal
from .verdict import LOGITS, MARKS, STEP

READING = (
    "Sane steps change the tokens of every layer by a small part of their size, and by a similar part in all layers. "
    f"A change above {STEP:g}, the dotted line, means that the step replaces the output of a layer. Gradients come "
    "from the last layer: read them from right to left."
)
"""How to read the plots of layers."""
UPDATES = (
    "‖xΔW‖/‖xW‖ says how much a step changes the output of a matrix for the vectors it meets. Lines close together "
    "mean that one rate suits all matrices. A line that rises or falls over depth means that it suits only some blocks."
)
"""How to read the plot of updates."""
ATTENTION = (
    f"The largest difference of two logits in a row of attention. Beyond {LOGITS:g}, the dotted line, one token takes "
    "all the attention, and queries and keys get hardly any gradient to recover with. Differences beyond about 100 "
    "are underestimated."
)
"""How to read the plot of attention."""
STEPS = (
    "The loss is that of the first batch. It should never rise above its initial value, which a guess reaches. The "
    "gradient is that of the step, before clipping."
)
"""How to read the plots of steps."""
WORDS = {
    "model": "model",
    "parameters": "parameters",
    "optimiser": "optimiser",
    "lr": "learning rate",
    "warmup": "steps of warm-up",
    "clip": "gradient clipped to",
    "weight_decay": "weight decay",
    "groups": "groups of parameters",
    "steps": "steps",
    "draws": "networks",
    "seed": "seed",
    "real": "real weights",
    "rounding": "rounded to",
    "tokens": "tokens",
    "ended": "ended early",
}
"""Settings in words."""


def write_report(path: str | Path, result: Rehearsal, verdict: Verdict | None = None) -> None:
    """Write a report as one HTML file, whole or not at all. It makes no request to other places.

    **Arguments:**

    - `path`: the file, such as `report.html`.
    - `result`: the rehearsal.
    - `verdict`: what `judge` said about it; default none.

    **Raises:** `MissingExtra` without plotly, `StorageError` where the file cannot be written.
    """
    write_page(path, page(result, verdict))


def page(result: Rehearsal, verdict: Verdict | None = None) -> str:
    """Return the report as HTML; arguments and errors as for `write_report`."""
    shown = panels(result, MARKS)
    settings, sizes = result.settings, result.data.sizes
    steps = f"{sizes['step'] - 1} step{'' if sizes['step'] == 2 else 's'}"
    draws = f", {sizes['draw']} networks" if sizes["draw"] > 1 else ""
    name = f"Rehearsal of {settings['model']}"
    subtitle = f"{settings['parameters']:,} parameters, {sizes['layer']} layers, {steps}{draws}, no weights"
    sections = [heading(name, subtitle), verdict_section(verdict)]
    figures: dict[str, Any] = {}
    for identifier, title, names, reading in (
        ("layers", "Layer by layer", set(OVER_LAYERS), READING),
        ("updates", "Matrices", {"effective_update"}, UPDATES),
        ("attention", "Attention", set(OVER_ATTENTION), ATTENTION),
        ("steps", "Step by step", set(OVER_STEPS), STEPS),
    ):
        if some := [one for one in shown if one.name in names]:
            figures[identifier] = panel_figure(some)
            sections.append(_plots(identifier, title, some, reading, several=sizes["draw"] > 1))
    sections += [_numbers(result), *([_weights(result)] if "weight" in result.data.coords else [])]
    words = {WORDS.get(key, key): value for key, value in settings.items() if value is not None}
    sections.append(settings_section(words))
    return document(name, sections, figures, "the report of a rehearsal")


def panel_figure(shown: Sequence[Panel]) -> Json:
    """Return the figure of panels that have one axis in common, as plotly reads it, with what arrow keys tell."""
    first = shown[0]
    positions, labels = first.ticks
    lines = [] if first.axis == "step" else [int(i) - 0.5 for i in stack_starts(first.names)]
    if first.name == "effective_update":
        lines = [0.5, len(first.names) - 1.5]
    across = Across(len(first.names), text(first.axis), (positions, [text(label) for label in labels]), lines)
    plots = [Plot(one.title, _traces(one), one.limits, one.logarithmic) for one in shown]
    readings = [
        f"{name}: " + "; ".join(f"{one.title}: {', '.join(at)}" for one in shown if (at := _values(one, i)))
        for i, name in enumerate(first.names)
    ]
    return figure(plots, across) | {"readings": readings}


def _traces(panel: Panel) -> list[Json]:
    """Return the traces of a panel, and an invisible one with what is said of each point."""
    at = list(range(len(panel.names)))
    traces: list[Json] = []
    for one in panel.series:
        if one.has_band:
            known = np.flatnonzero(np.isfinite(one.low))
            traces.append(
                {
                    "x": [*known.tolist(), *known[::-1].tolist()],
                    "y": [*one.high[known].tolist(), *one.low[known][::-1].tolist()],
                    "mode": "lines",
                    "fill": "toself",
                    "fillcolor": one.colour,
                    "opacity": 0.15,
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                }
            )
        traces.append(
            {
                "x": at,
                "y": plain(one.values),
                "mode": "lines+markers" if len(at) <= 24 or np.isfinite(one.values).sum() == 1 else "lines",
                "line": {"color": one.colour, "width": 2, "dash": "dash" if one.line == "--" else "solid"},
                "marker": {"size": 5},
                "hoverinfo": "skip",
            }
        )
    if panel.mark is not None and panel.limits[0] < panel.mark < panel.limits[1]:
        traces.append(
            {
                "x": [-0.5, len(at) - 0.5],
                "y": [panel.mark, panel.mark],
                "mode": "lines",
                "line": {"color": UNUSUAL, "width": 1.2, "dash": "dot"},
                "hoverinfo": "skip",
            }
        )
    stacked = np.stack([one.values for one in panel.series])
    there = np.isfinite(stacked).any(0)
    top = np.where(there, np.where(np.isfinite(stacked), stacked, -np.inf).max(0), np.nan)
    traces.append(
        {
            "x": at,
            "y": plain(top),
            "mode": "markers",
            "marker": {"size": 6, "opacity": 0},
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{text(name)}</b><br>{text(panel.title)}<br>" + "<br>".join(map(text, _values(panel, i)))
                for i, name in enumerate(panel.names)
            ],
            "meta": "measured",
        }
    )
    return traces


def _values(panel: Panel, point: int) -> list[str]:
    """Return what each line of a panel has at a point, in words."""
    alone = len(panel.series) == 1 and panel.axis == "step"
    return [
        (f"{one.values[point]:.3g}" if alone else f"{one.label} {one.values[point]:.3g}")
        + (f" ({one.low[point]:.3g}–{one.high[point]:.3g})" if one.has_band else "")
        for one in panel.series
        if np.isfinite(one.values[point])
    ]


def _plots(identifier: str, title: str, shown: Sequence[Panel], reading: str, *, several: bool) -> str:
    """Return a section with a figure, its key and how to read it."""
    steps, roles = key_of(shown)
    entries = [
        key_entry(
            key_line(one.colour, 'stroke-width="2.5"' + (' stroke-dasharray="6 3"' if one.line == "--" else "")),
            f"after {one.label}" if one in steps else one.label,
        )
        for one in (*steps, *roles)
    ]
    if any_marked(shown):
        entries.append(key_entry(key_line(UNUSUAL, 'stroke-width="1.5" stroke-dasharray="2 3"'), "too much above it"))
    band = " Bands reach from the smallest to the largest of the networks, lines are their mean." if several else ""
    return (
        f'<section aria-labelledby="of-{identifier}">\n<h2 id="of-{identifier}">{title}</h2>\n'
        f'<ul class="key">{"".join(entries)}</ul>\n'
        f'<div id="{identifier}" class="figure" tabindex="0" role="group" aria-describedby="{identifier}-help" '
        f'aria-label="Plots; the tables below have the numbers"></div>\n'
        f'<output id="{identifier}-reading" class="reading"></output>\n'
        f'<p id="{identifier}-help">Hover over the plots, or select them and press the arrow keys, to read them.</p>\n'
        f"<p><strong>How to read it.</strong> {escape(reading + band)}</p>\n</section>"
    )


def _numbers(result: Rehearsal) -> str:
    """Return tables of steps and of layers, means over draws."""
    data = result.data.mean("draw")
    steps = [f"step {int(i)}" for i in data["step"].values]
    rows = []
    for variable, title in OVER_STEPS.items():
        if variable in data:
            values = [*map(float, data[variable].values)]
            rows.append(_row(title, values + [np.nan] * (len(steps) - len(values))))
    for variable, title in OVER_ATTENTION.items():
        if variable in data:
            rows.append(_row(title, data[variable].max("attention").values))
    by_step = scrolling("Numbers of each step", "Means over networks", ["", *steps], "\n".join(rows))
    rows = [_row(name, data["stream_change"].values[:, i]) for i, name in enumerate(result.layers)]
    caption = "Relative change of the tokens since step 0"
    by_layer = scrolling(caption, caption, ["layer", *steps], "\n".join(rows))
    return f'<section aria-labelledby="numbers">\n<h2 id="numbers">All numbers</h2>\n{by_step}\n{by_layer}\n</section>'


def _weights(result: Rehearsal) -> str:
    """Return the table of all parameters, means over draws and steps."""
    means = result.data.mean(("draw", "update"))
    names = [str(name) for name in means["weight"].values]
    columns = ("weight_gradient", "weight_update", "effective_update")
    rows = "\n".join(_row(name, [float(means[one].values[i]) for one in columns]) for i, name in enumerate(names))
    heads = ["parameter", "gradient norm", "‖ΔW‖ / ‖W₀‖", "‖xΔW‖ / ‖xW‖"]
    table = scrolling("Updates of each parameter", "Means over steps, without weight decay", heads, rows)
    return (
        '<section aria-labelledby="of-weights">\n<h2 id="of-weights">Parameters</h2>\n'
        f"<details>\n<summary>All {len(names)} parameters</summary>\n{table}\n</details>\n</section>"
    )


def _row(name: str, values: Any) -> str:
    """Return a row of a table."""
    cells = "".join(f"<td>{one:.3g}</td>" if np.isfinite(one) else "<td>–</td>" for one in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
