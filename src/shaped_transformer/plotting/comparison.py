"""The picture of `compare` and `predict`: densities at the last layer and bands against depth, by view."""

from typing import TYPE_CHECKING

import numpy as np

from ..estimates import LEVELS
from ..observables import OBSERVABLES
from .plots import RANGES, add_legend_above, label_plainly, plot_densities, plot_view_band
from .style import LABELS

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

MARGIN = 0.05
"""Room beyond the bounds of ρ, and beside a constant norm, as a part of it."""


def plot(data: "xarray.DataTree") -> "Figure":
    """Plot a comparison.

    How to read it: if the curves of two views coincide, the views agree in distribution.

    **Arguments:**

    - `data`: what `Comparison.to_datatree` returns.

    **Returns:** a Matplotlib figure: in the first row the densities of ρ₁₂ and V₁₁ at the last layer, in the second
    their medians with 5–95 % bands against depth. For one token, which has no ρ, the first column is left out.
    """
    from matplotlib.figure import Figure

    views = {view: data.children[view].to_dataset() for view in LABELS if view in data.children}
    columns = [OBSERVABLES[name] for name in ("rho12", "V11") if name in next(iter(views.values()))]
    figure = Figure(figsize=(5.2 * len(columns), 7.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for observable, (top, bottom) in zip(columns, axes.T, strict=True):
        name, label, scale = observable.name, observable.label, observable.scale
        plot_densities(top, {v: d[name].to_numpy()[:, -1] for v, d in views.items()}, scale, RANGES.get(name))
        top.set_xlabel(f"{label}, at the last layer")
        for view, dataset in views.items():
            quantiles = np.quantile(dataset[name].to_numpy(), LEVELS, axis=0)
            plot_view_band(bottom, view, dataset["depth"].to_numpy(), *quantiles)
        bottom.set(xlabel="layer", ylabel=label, yscale=scale)
        low, high = bottom.get_ylim()
        if scale == "linear":
            bottom.set_ylim(max(low, -1 - MARGIN), min(high, 1 + MARGIN))
        else:
            if high < (1 + MARGIN) * low:  # a norm that is constant but for rounding: ticks need a wider range
                bottom.set_ylim(low * (1 - MARGIN), high * (1 + MARGIN))
            label_plainly(bottom.yaxis)
    axes[0, 0].set_title("distribution at the last layer (95 % bars)", loc="left")
    axes[1, 0].set_title("median and 5–95 % band against depth", loc="left")
    add_legend_above(figure, axes[0, 0])
    return figure
