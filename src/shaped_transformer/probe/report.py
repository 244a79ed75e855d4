"""The report of a probe: one HTML file that needs nothing else, with the verdict, plots and a table of all layers."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..plotting.probe import BROKEN_OPACITY, EXPECTED, MEASURED, SEQUENCES, UNUSUAL, band_label, curves
from .comparison import Comparison
from .interactive import attention_figure, layer_figure, weight_figure
from .measures import MEASURES
from .page import (
    document,
    heading,
    key_entry,
    key_line,
    scrolling,
    settings_section,
    verdict_section,
    write_page,
)
from .result import ProbeResult

if TYPE_CHECKING:
    from .suggestions import Suggestion
    from .verdict import Verdict

READING = (
    "A healthy model keeps its curves level, or lets them drift slowly. Where the mean |ρ| and the effective rank go "
    "to 1, tokens have become alike: the rank has collapsed. A norm that is a straight line on its logarithmic axis "
    "grows or decays exponentially with depth. Gradients come from the last layer: read them from right to left."
)
"""How to read the plots."""
BAND_READING = (
    "The grey band is what the initialisation does. A curve outside it has been moved there by training, or by weights "
    "that are not the initialisation's. A ring marks a layer at which a number changes as it hardly ever does at "
    "initialisation. Numbers are inherited from layer to layer, so look at the first ring."
)
"""How to read a comparison."""
WORDS = {
    "model": "model",
    "parameters": "parameters",
    "loss": "loss",
    "not_finite": "first layer that is not finite",
    "gradient": "gradients",
    "max_tokens": "maximum tokens per sequence",
    "sampled": "longer sequences sampled",
    "seed": "seed of the sample",
    "attention": "attention",
}
"""Settings in words."""


def write_report(
    path: str | Path,
    result: ProbeResult,
    comparison: Comparison | None = None,
    verdict: "Verdict | None" = None,
    suggestions: "Sequence[Suggestion]" = (),
) -> None:
    """Write a report as one HTML file, whole or not at all. It makes no request to other places.

    **Arguments:**

    - `path`: the file, such as `report.html`.
    - `result`: the measurement.
    - `comparison`: where it lies in what the initialisation would do; default none.
    - `verdict`: what `judge` said about them; default none.
    - `suggestions`: changes of the configuration that were tried; default none.

    **Raises:** `MissingExtra` without plotly, `InputError` for a comparison of another model, `StorageError` where the
    file cannot be written.
    """
    write_page(path, page(result, comparison, verdict, suggestions))


def page(
    result: ProbeResult,
    comparison: Comparison | None = None,
    verdict: "Verdict | None" = None,
    suggestions: "Sequence[Suggestion]" = (),
) -> str:
    """Return the report as HTML; arguments and errors as for `write_report`."""
    if comparison is not None and comparison.layers != result.layers:
        raise InputError("the comparison has other layers: give what result.compare returned")
    figures = {"layers": layer_figure(result, comparison)}
    sections = [
        _head(result),
        verdict_section(verdict, [one.sentence for one in suggestions]),
        _layers(result, comparison),
        _table(result, comparison),
    ]
    if "weight_gradient" in result.data:
        figures["weights"] = weight_figure(result)
        sections.append(_weights(result))
    if "attention" in result.data.coords:
        figures["attention"] = attention_figure(result)
        sections.append(_attention())
    sections.append(_settings(result, comparison))
    return document(f"Probe of {result.settings['model']}", sections, figures, "the report of a probe")


def _head(result: ProbeResult) -> str:
    """Title of the page, and what was measured."""
    settings, sizes = result.settings, result.data.sizes
    tokens = np.asarray(result.data["tokens"].values)
    some = f"{tokens.min()}" if tokens.min() == tokens.max() else f"{tokens.min()}–{tokens.max()}"
    sequences = f"{sizes['sequence']} sequence{'' if sizes['sequence'] == 1 else 's'}"
    sampled = f", a sample of at most {settings['max_tokens']}" if settings["sampled"] else ""
    return heading(
        f"Probe of {settings['model']}",
        f"{settings['parameters']:,} parameters, {sizes['layer']} layers, {sequences} of {some} tokens{sampled}",
    )


def _layers(result: ProbeResult, comparison: Comparison | None) -> str:
    """The figure of all layers, with its key and how to read it."""
    notes = []
    if result.settings["not_finite"] is not None:
        notes.append(
            f"Tokens are infinite or undefined from <code>{escape(str(result.settings['not_finite']))}</code> on; "
            "the layers before it are shown."
        )
    if result.settings["gradient"] != "measured":
        notes.append(f"There are no gradients: {escape(str(result.settings['gradient']))}.")
    if result.without_gradient:
        notes.append(f"Some layers have no gradient: {escape(result.without_gradient)}.")
    reading = READING if comparison is None else f"{READING} {BAND_READING}"
    paragraphs = "".join(f"<p>{note}</p>\n" for note in notes)
    return (
        '<section aria-labelledby="by-layer">\n<h2 id="by-layer">Layer by layer</h2>\n'
        f'{paragraphs}<ul class="key">{"".join(_key(result, comparison))}</ul>\n'
        '<div id="layers" class="figure" tabindex="0" role="group" aria-describedby="layers-help" '
        'aria-label="Plots of each number against the layers; the table below has the same numbers"></div>\n'
        '<output id="layers-reading" class="reading"></output>\n'
        '<p id="layers-help">Hover over a curve, or select the plots and press the arrow keys, to read a layer.</p>\n'
        f"<p><strong>How to read it.</strong> {escape(reading)}</p>\n</section>"
    )


def _key(result: ProbeResult, comparison: Comparison | None) -> Iterator[str]:
    """The lines of the plots, and what they are."""
    count = result.data.sizes["sequence"]

    yield key_entry(
        key_line(MEASURED, 'stroke-width="2.5"'), "measured" + (", mean over sequences" if count > 1 else "")
    )
    if count > 1:
        label = "each sequence" if count <= SEQUENCES else f"the first {SEQUENCES} of {count} sequences"
        yield key_entry(key_line(MEASURED, 'stroke-width="1" opacity="0.5"'), label)
    if comparison is not None:
        yield key_entry(f'<rect width="28" height="14" fill="{EXPECTED}" opacity="0.3"/>', band_label(comparison))
        yield key_entry(key_line(EXPECTED, 'stroke-width="1.5" stroke-dasharray="5 3"'), "median at initialisation")
    if (broken := result.settings["not_finite"]) is not None:
        shade = f'<rect width="28" height="14" fill="{UNUSUAL}" opacity="{BROKEN_OPACITY}"/>'
        yield key_entry(shade, f"not finite from {broken} on")
    if any(curve.zeros for curve in curves(result, comparison)):
        yield key_entry(f'<path d="M9 3h10l-5 9z" fill="{UNUSUAL}"/>', "zero, below a logarithmic axis")
    if comparison is not None and comparison.unusual():
        ring = f'<circle cx="14" cy="7" r="5" fill="none" stroke="{UNUSUAL}" stroke-width="2"/>'
        yield key_entry(ring, "changes here as the initialisation hardly ever does")


def _table(result: ProbeResult, comparison: Comparison | None) -> str:
    """A row for each layer."""
    names = [name for name in MEASURES if name in result.data]
    columns = {name: result.mean(name) for name in names}
    known = {name: result.known(name) for name in names}
    bands = {} if comparison is None else comparison.bands
    unusual = {} if comparison is None else comparison.unusual()

    def cell(name: str, i: int, layer: str) -> str:
        if not known[name][i]:
            return "<td>–</td>"
        value, band = f"{columns[name][i]:.3g}", bands.get(name)
        if band is None:
            return f"<td>{value}</td>"
        expected = f"<small>{band.low[i]:.3g} – {band.high[i]:.3g}</small>"
        if layer in unusual.get(name, {}):
            return f'<td class="unusual">{value} <span class="hidden">unusual </span>{expected}</td>'
        if not band.inside[i]:
            return f'<td class="outside">{value} <span class="hidden">outside </span>{expected}</td>'
        return f"<td>{value} {expected}</td>"

    rows = "\n".join(
        f'<tr><th scope="row">{escape(layer)}</th>{"".join(cell(name, i, layer) for name in names)}</tr>'
        for i, layer in enumerate(result.layers)
    )
    caption = "Means over sequences" + (
        "" if comparison is None else "; below each the expected band. Blue: outside the band. Orange: unusual."
    )
    table = scrolling("All numbers of each layer", caption, ["layer", *(MEASURES[name].title for name in names)], rows)
    return f'<section aria-labelledby="numbers">\n<h2 id="numbers">All numbers</h2>\n{table}\n</section>'


def _weights(result: ProbeResult) -> str:
    """Norms of the parameters' gradients."""
    names = [str(name) for name in result.data["weight"].values]
    norms = np.asarray(result.data["weight_gradient"].values)
    zero = [name for name, norm in zip(names, norms, strict=True) if norm == 0]
    some = ", ".join(f"<code>{escape(name)}</code>" for name in zero[:6]) + (" …" if len(zero) > 6 else "")
    note = f"<p>{len(zero)} of {len(names)} parameters have no gradient: {some}.</p>\n" if zero else ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{norm:.3g}</td></tr>'
        for name, norm in zip(names, norms, strict=True)
    )
    table = scrolling("Gradient norm of each parameter", "Norms over all entries", ["parameter", "gradient norm"], rows)
    return (
        '<section aria-labelledby="of-weights">\n<h2 id="of-weights">Gradients of the parameters</h2>\n'
        f'{note}<div id="weights" class="figure" role="img" aria-label="Plot of the table below"></div>\n'
        f"<details>\n<summary>All {len(names)} parameters</summary>\n{table}\n</details>\n</section>"
    )


def _attention() -> str:
    """Attention layers."""
    return (
        '<section aria-labelledby="of-attention">\n<h2 id="of-attention">Attention</h2>\n'
        "<p>Each point is a head, the line their mean. All numbers lie between 0 and 1. Entropy near 1 with a small "
        "distance from uniform attention means that tokens are averaged, which makes them alike.</p>\n"
        '<div id="attention" class="figure" role="img" aria-label="Entropy of attention and its distances"></div>\n'
        "</section>"
    )


def _settings(result: ProbeResult, comparison: Comparison | None) -> str:
    """Settings, version and command."""
    shown: dict[str, Any] = {
        WORDS.get(name, name): value
        for name, value in result.settings.items()
        if value is not None and name != "no_gradient"  # above the plots
    }
    if comparison is not None:
        shown["expected"] = f"{comparison.label}, {comparison.draws} draws"
    return settings_section(shown)
