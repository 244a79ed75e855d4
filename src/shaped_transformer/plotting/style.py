"""The style of all figures: one colour for each view and series, safe for colour-blind readers (Okabe and Ito)."""

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
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
"""Colours of series that are not views: architectures, parts of a layer, activations."""
DPI = 130
"""Resolution of PNG files."""


def save(figure: "Figure", stem: Path) -> None:
    """Write a picture as `stem`.png and `stem`.svg; the same picture gives the same bytes."""
    import matplotlib as mpl

    figure.savefig(stem.with_suffix(".png"), dpi=DPI)
    with mpl.rc_context({"svg.hashsalt": "shaped-transformer"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
