"""The picture of a coordinate check: what each step moves, against the size of the model."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..estimates import from_array
from .plots import label_plainly
from .rehearsal import step_colour

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Largest number of panels in a row."""


def plot(check: Any) -> "Figure":
    """Plot a coordinate check.

    How to read it: a flat line is right. One that rises with the size means that a rate which suits small models is too
    large for large ones.

    **Arguments:**

    - `check`: a `CoordinateCheck`.

    **Returns:** a Matplotlib figure with a panel for each quantity and axis: a line for each step through the geometric
    means of the draws, a band from the smallest to the largest, and the slope at the last step.
    """
    from matplotlib.figure import Figure

    data, settings = check.data, check.settings
    shown = [
        (axis, name)
        for axis in data["along"].values.tolist()
        for name in data["quantity"].values.tolist()
        if np.isfinite(data["slope"].sel(along=axis, quantity=name).isel(step=-1, bound=0))
    ]
    rows = -(-(len(shown) + 1) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 2.6 * rows + 0.5), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel, (axis, name) in zip(places, shown, strict=False):
        _plot_panel(panel, data, axis, name)
    for panel in places[len(shown) :]:
        panel.set_axis_off()
    handles = places[0].get_lines()
    places[len(shown)].legend(handles, [str(one.get_label()) for one in handles], loc="upper left", frameon=False)
    figure.suptitle(
        f"How far the first steps move the network, by its size: flat is right "
        f"({settings.get('parametrisation', '')}, rate {settings.get('lr', float('nan')):g})",
        x=0.01,
        ha="left",
    )
    return figure


def _plot_panel(panel: "Axes", data: "xarray.Dataset", axis: str, name: str) -> None:
    """Plot one quantity along one axis after each step."""
    at = np.flatnonzero(data["axis"].values == axis)
    factors, steps = data["factor"].values[at], data["step"].values.tolist()
    values = data["value"].isel(point=at).sel(quantity=name).values
    logs = np.log(np.where(values > 0, values, np.nan))
    for i, step in enumerate(steps):
        middle = np.exp(np.nanmean(logs[:, :, i], axis=1))
        low, high = (np.exp(reduced(logs[:, :, i], axis=1)) for reduced in (np.nanmin, np.nanmax))
        colour = step_colour(step, len(steps))
        panel.fill_between(factors, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot(factors, middle, "o-", color=colour, markersize=3.5, label=f"step {step}")
    panel.set(xscale="log", yscale="log", xlabel=f"{axis} ×")
    panel.set_xticks(factors, [f"{x:g}" for x in factors])
    panel.minorticks_off()
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, high / 4), max(high, 4 * low))  # so that flat looks flat
    label_plainly(panel.yaxis)
    slope = from_array(data["slope"].sel(along=axis, quantity=name).isel(step=-1))
    panel.set_title(name, loc="left", fontsize="medium")
    panel.set_title(f"slope {slope.value:.2f}", loc="right", fontsize="small")
