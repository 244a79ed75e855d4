"""The parts of a report: one HTML file that needs nothing else, with a verdict, plots, tables and settings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from ..io.files import replacing
from ..io.provenance import command_line
from ..version import __version__

if TYPE_CHECKING:
    from .verdict import Verdict

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""What the page may load: nothing but itself."""


def write_page(path: str | Path, text: str) -> None:
    """Write a page, whole or not at all.

    **Raises:** `StorageError` where it cannot be written.
    """
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def document(title: str, sections: Sequence[str], figures: Mapping[str, Any], what: str) -> str:
    """Return a page as HTML.

    **Arguments:**

    - `title`: of the page.
    - `sections`: its parts, HTML.
    - `figures`: by the `id` of the element that shows it, what `interactive.figure` returns.
    - `what`: what it is, for the error.

    **Raises:** `MissingExtra` without plotly.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtra("probe", what) from None
    data = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>',
            f"<style>\n{_asset('report.css')}</style>\n</head>\n<body>",
            *sections,
            f'<script type="application/json" id="figures">{data}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n",
        ]
    )


def _asset(name: str) -> str:
    """Return a file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def heading(title: str, subtitle: str) -> str:
    """Return the head of a page."""
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="subtitle">{escape(subtitle)}</p>\n</header>\n<main>'


def verdict_section(verdict: "Verdict | None", tried: Iterable[str] = ()) -> str:
    """Return verdict and findings, and sentences about what was tried."""
    if verdict is None:
        return ""
    whole = verdict.sentence
    state = "good" if verdict.good else "bad"
    items = "".join(
        f"<li><strong>{escape(one.name)}</strong>"
        + (f" at <code>{escape(one.layer)}</code>" if one.layer else "")
        + (f": {escape(one.sentence)}" if one.sentence not in whole else "")
        + (f"<br>What to try: {escape(one.advice)}" if one.advice else "")
        + "</li>\n"
        for one in verdict.findings
    )
    items += "".join(f"<li><strong>tried</strong>: {escape(one)}</li>\n" for one in tried)
    found = f"<ul>\n{items}</ul>\n" if items else ""
    return (
        f'<section class="verdict {state}" aria-labelledby="verdict">\n<h2 id="verdict" class="hidden">Verdict</h2>\n'
        f"<p><strong>{state.capitalize()}.</strong> {escape(whole)}</p>\n{found}</section>"
    )


def scrolling(label: str, caption: str, columns: Sequence[str], rows: str) -> str:
    """Return a table that scrolls within the page, by keyboard too."""
    header = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n<table>\n'
        f"<caption><span>{caption}</span></caption>\n"
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def key_entry(mark: str, label: str) -> str:
    """Return an entry of a key: a mark, SVG of 28 by 14, and what it is."""
    return f'<li><svg width="28" height="14" aria-hidden="true">{mark}</svg>{escape(label)}</li>'


def key_line(colour: str, style: str) -> str:
    """Return the mark of a line."""
    return f'<line x1="0" y1="7" x2="28" y2="7" stroke="{colour}" {style}/>'


def settings_section(settings: Mapping[str, Any]) -> str:
    """Return settings with the version and the command, the last part of a page."""
    shown = dict(settings) | {"shaped-transformer": __version__, "command": command_line()}
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(_word(value))}</dd>" for name, value in shown.items())
    return (
        '<section aria-labelledby="settings">\n<h2 id="settings">Settings</h2>\n'
        f"<dl>\n{items}\n</dl>\n</section>\n</main>"
    )


def _word(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
