"""The style of all figures: one colour for each view, design and series.

Colours are safe for colour-blind readers (Okabe and Ito, Tol).
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"network": "#333333", "chain": "#0072B2", "sde": "#D55E00"}
"""Colour of each view; its keys are all views, in the order of legends."""
LABELS = {"network": "real networks", "chain": "exact chain", "sde": "SDE (limit)"}
"""Label of each view in legends and in the numbers of figures."""
MARKERS = {"network": "s", "chain": "o", "sde": "^"}
"""Marker of each view, where all three are points."""
LINES = {"network": "-", "chain": "-", "sde": "--"}
"""Line of each view, where it is a curve."""
DESIGNS = {"shaped": "#009E73", "pre-norm": "#CC79A7", "post-norm": "#E69F00", "skipless": "#56B4E9"}
"""Colour of each kind of Transformer; none is that of a view."""
SERIES = ("#332288", "#999933", "#882255", "#999999", "#8B5A2B", "#000000")
"""Colours of series that are neither views nor designs: statistics, parts of a layer, activations."""
DPI = 130
"""Resolution of PNG files."""


def save(figure: "Figure", stem: Path) -> None:
    """Write a picture as `stem`.png and `stem`.svg; the same picture gives the same bytes."""
    import matplotlib as mpl

    figure.savefig(stem.with_suffix(".png"), dpi=DPI)
    with mpl.rc_context({"svg.hashsalt": "shaped-transformer"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
