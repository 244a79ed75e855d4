"""Densities at the last layer, and medians with bands against depth, for the views over each other."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .style import COLOURS, LABELS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


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
        _densities(top, {v: d[name].to_numpy()[:, -1] for v, d in views.items()}, scale)
        top.set(xlabel=f"{label}, at the last layer", ylabel="density" + (" per factor e" if scale == "log" else ""))
        for view, dataset in views.items():
            _band(bottom, view, dataset["depth"].to_numpy(), dataset[name].to_numpy())
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


def _densities(axes: "Axes", values: dict[str, Floats], scale: str) -> None:
    """Histograms with common bins, in the logarithm where the axis is logarithmic."""
    positive = {v: x[x > 0] if scale == "log" else x for v, x in values.items()}
    on_axis = {v: np.log(x) if scale == "log" else x for v, x in positive.items()}
    low, high = np.quantile(np.concatenate(list(on_axis.values())), (0.01, 0.99))
    if high - low < 1e-6:  # all draws in one point: show it in the middle of a window of unit size
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 32)
    drawn = np.exp(edges) if scale == "log" else edges
    for view, x in on_axis.items():
        # Against all samples, those outside the picture included, so that areas are comparable.
        density = np.histogram(x, edges)[0] / (len(values[view]) * np.diff(edges))
        filled: dict[str, Any] = {"fill": True, "alpha": 0.35} if view == "chain" else {"linewidth": 1.8}
        style = {"sde": "--"}.get(view, "-")
        axes.stairs(density, drawn, color=COLOURS[view], label=LABELS[view], linestyle=style, **filled)
    axes.set_xscale(scale)
    axes.set_ylim(bottom=0)


def _band(axes: "Axes", view: str, depth: Floats, values: Floats) -> None:
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
    colour = COLOURS[view]
    if view == "chain":
        axes.fill_between(depth, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(depth, median, color=colour)
    elif view == "sde":
        axes.plot(depth, median, color=colour, linestyle="--")
        axes.plot(depth, np.stack([low, high], axis=1), color=colour, linestyle=":", linewidth=1.2)
    else:
        every = np.unique(np.linspace(0, len(depth) - 1, 9).round().astype(int))
        size = np.stack([median - low, high - median])[:, every]
        axes.errorbar(depth[every], median[every], size, fmt="o", color=colour, markersize=4, capsize=2)
