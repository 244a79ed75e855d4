"""The look that all figures share: one colour per view and series, safe for colour-blind readers (Okabe and Ito)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"network": "#333333", "chain": "#0072B2", "sde": "#D55E00"}
"""Of the three views, everywhere."""
LABELS = {"network": "real networks", "chain": "exact chain", "sde": "SDE (limit)"}
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
"""Of what is no view: architectures, pieces, activations."""
DPI = 130


def save(figure: "Figure", stem: Path) -> None:
    """Write a picture as `stem`.png and `stem`.svg; the same picture gives the same bytes."""
    import matplotlib as mpl

    figure.savefig(stem.with_suffix(".png"), dpi=DPI)
    with mpl.rc_context({"svg.hashsalt": "shaped-transformer"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
