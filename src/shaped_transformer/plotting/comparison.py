"""Densities at the last layer, and medians with bands against depth, for the views over each other."""

from typing import TYPE_CHECKING

import numpy as np

from ..estimates import LEVELS
from ..observables import OBSERVABLES
from .plots import densities, view_band
from .style import LABELS

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def plot(data: "xarray.DataTree") -> "Figure":
    """Plot what `Comparison.to_datatree` returned.

    **Returns:** a Matplotlib figure: on top the densities of ρ₁₂ and V₁₁ at the last layer, below their medians with
    5–95 % bands against depth. One token has no ρ, and its column is left out.

    How to read it: where the curves of two views lie on each other, the views agree in distribution.
    """
    from matplotlib.figure import Figure

    views = {view: data.children[view].to_dataset() for view in LABELS if view in data.children}
    columns = [OBSERVABLES[name] for name in ("rho12", "V11") if name in next(iter(views.values()))]
    figure = Figure(figsize=(5.2 * len(columns), 7.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for observable, (top, bottom) in zip(columns, axes.T, strict=True):
        name, label, scale = observable.name, observable.label, observable.scale
        densities(top, {v: d[name].to_numpy()[:, -1] for v, d in views.items()}, scale)
        top.set_xlabel(f"{label}, at the last layer")
        for view, dataset in views.items():
            quantiles = np.quantile(dataset[name].to_numpy(), LEVELS, axis=0)
            view_band(bottom, view, dataset["depth"].to_numpy(), *quantiles)
        bottom.set(xlabel="layer", ylabel=label, yscale=scale)
        if scale == "linear":
            bottom.set_ylim(-1.02, 1.02)
        else:
            low, high = bottom.get_ylim()
            if high < 2 * low:  # a norm that hardly moves: a scale on which that can be seen
                bottom.set_ylim(low / 2, high * 2)
    axes[0, 0].set_title("distribution at the last layer", loc="left")
    axes[1, 0].set_title("median and 5–95 % band against depth", loc="left")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure
