"""Densities at the last layer, and medians with bands against depth, for the views over each other."""

from typing import TYPE_CHECKING

import numpy as np

from .plots import densities, view_band
from .style import LABELS

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def draw(data: "xarray.DataTree") -> "Figure":
    """Draw what `Comparison.to_datatree` returned.

    **Returns:** a Matplotlib figure: on top the densities of ρ₁₂ and V₁₁ at the last layer, below their medians with
    5–95 % bands against depth. One token has no ρ, and its column is left out.

    How to read it: where the curves of two views lie on each other, the views agree in law.
    """
    from matplotlib.figure import Figure

    views = {view: data.children[view].to_dataset() for view in LABELS if view in data.children}
    columns = [
        ("rho12", "correlation of tokens 1 and 2, ρ₁₂", "linear"),
        ("V11", "squared norm of token 1, V₁₁", "log"),
    ]
    columns = [column for column in columns if column[0] in next(iter(views.values()))]
    figure = Figure(figsize=(5.2 * len(columns), 7.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for (name, label, scale), (top, bottom) in zip(columns, axes.T, strict=True):
        densities(top, {v: d[name].to_numpy()[:, -1] for v, d in views.items()}, scale)
        top.set_xlabel(f"{label}, at the last layer")
        for view, dataset in views.items():
            quantiles = np.quantile(dataset[name].to_numpy(), (0.05, 0.5, 0.95), axis=0)
            view_band(bottom, view, dataset["depth"].to_numpy(), *quantiles)
        bottom.set(xlabel="layer", ylabel=label, yscale=scale)
        if scale == "linear":
            bottom.set_ylim(-1.02, 1.02)
        else:
            low, high = bottom.get_ylim()
            if high < 2 * low:  # a norm that hardly moves: a scale on which that can be seen
                bottom.set_ylim(low / 2, high * 2)
    axes[0, 0].set_title("law at the last layer", loc="left")
    axes[1, 0].set_title("median and 5–95 % band against depth", loc="left")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure
