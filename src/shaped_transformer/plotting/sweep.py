"""The picture of `sweep`: each stored observable against one axis, as a map over two, or for each point of a list."""

import json
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.sweeps import KEPT
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES
from .plots import label_plainly, plot_band
from .style import COLOURS, SERIES

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TITLES = {name: OBSERVABLES[name].label for name in KEPT} | {"stopped": "share of paths that left the window"}
"""Title of each stored quantity, in the order of the panels."""
LOGARITHMIC = [name for name in KEPT if OBSERVABLES[name].scale == "log"]
"""Observables with a logarithmic scale if all values are positive."""
ANNOTATED = 64
"""Largest number of cells of a map that shows their values as text."""
COLUMNS = 3
"""Largest number of panels in a row."""


def stored_quantities(data: "xarray.Dataset") -> list[str]:
    """Return the names of the quantities in a store, in the order of `TITLES`."""
    return [name for name in TITLES if name in data]


def choose_axes(data: "xarray.Dataset") -> tuple[list[str], list[str]]:
    """Return the one or two axes of the picture, and the others, over which medians are taken.

    The longest axes are shown; `seed` only if there is no other.
    """
    dims = [str(dim) for dim in data["status"].dims]
    longest = sorted(dims, key=lambda d: (d != "seed", data.sizes[d]), reverse=True)
    shown = [dim for dim in longest[:2] if data.sizes[dim] > 1 and dim != "seed"] or longest[:1]
    return sorted(shown, key=dims.index), [dim for dim in dims if dim not in shown and data.sizes[dim] > 1]


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot a sweep.

    **Arguments:**

    - `data`: the sweep's store, as a dataset.

    **Returns:** a Matplotlib figure with a panel for each stored quantity: medians with 5–95 % bands against one axis,
    or maps of medians over two.
    """
    from matplotlib.figure import Figure

    names, (shown, others) = stored_quantities(data), choose_axes(data)
    reduced = _median_over(data[names], [dim for dim in map(str, data["status"].dims) if dim not in shown])
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        values = reduced[name].transpose(*shown, ...)
        if len(shown) == 2:
            _plot_map(panel, values, name)
        else:
            _plot_line(panel, values, name, _colour(data))
        panel.set_title(TITLES[name], loc="left")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    numbers = "Medians" if len(shown) == 2 else "Medians and 5–95 %"
    over = f", medians of these over {', '.join(others)}" if others else ""
    note = "" if len(shown) == 2 else " (of the probability, 95 % interval)"
    figure.suptitle(f"{numbers} of samples at the last layer{over}{note}")
    return figure


def _median_over(data: "xarray.Dataset", dims: list[str]) -> "xarray.Dataset":
    """Return medians over finished points; NaN where no point is finished."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return data.median(dims, skipna=True) if dims else data


def _bands(values: "xarray.DataArray") -> Floats:
    """Return quantiles or an estimate, (…, 3), in the order low, middle, high."""
    order = [1, 0, 2] if "bound" in values.dims else [0, 1, 2]
    return values.to_numpy()[..., order]


def _labels(values: "xarray.DataArray", dim: str) -> list[str]:
    """Return the coordinate of a dimension as text, or its positions if it has none."""
    coordinate = values[dim].to_numpy() if dim in values.coords else np.arange(values.sizes[dim])
    return [f"{x:g}" if np.issubdtype(type(x), np.number) else str(x) for x in coordinate]


def _colour(data: "xarray.Dataset") -> str:
    """Return the colour of the sweep's view; a neutral one if there are several."""
    view = json.loads(data.attrs["specification"])["base"].get("view", "chain")
    return SERIES[0] if "view" in data["status"].dims else COLOURS[view]


def _plot_line(panel: "Axes", values: "xarray.DataArray", name: str, colour: str) -> None:
    """Plot medians with bands against one axis; as points with bars where its values are not numbers."""
    dim, numbers = str(values.dims[0]), _bands(values)
    known = np.asarray(np.isfinite(numbers).all(axis=-1))
    numeric = dim in values.coords and np.issubdtype(values[dim].dtype, np.number)
    if numeric:
        at = values[dim].to_numpy()[known]
        order = np.argsort(at)
        plot_band(panel, at[order], numbers[known][order].T, colour, "median, 5–95 %")
        panel.plot(at, numbers[known][:, 1], "o", color=colour, markersize=3)
    else:
        at, middle = np.flatnonzero(known), numbers[known][:, 1]
        size = np.abs(numbers[known][:, [0, 2]].T - middle)
        panel.errorbar(at, middle, size, fmt="o", color=colour, capsize=3)
        panel.set_xticks(range(len(known)), _labels(values, dim), rotation=30 if len(known) > 12 else 0)
        panel.set_xlim(-0.5, len(known) - 0.5)
        for failed in np.flatnonzero(~known):
            panel.text(float(failed), 0.5, "×", transform=panel.get_xaxis_transform(), ha="center", va="center")
    panel.set_xlabel("point of the list" if dim == "point" else dim)
    if name in LOGARITHMIC and known.any() and (numbers[known] > 0).all():
        panel.set_yscale("log")
        label_plainly(panel.yaxis)


def _plot_map(panel: "Axes", values: "xarray.DataArray", name: str) -> None:
    """Plot a map of medians over two axes, with a cross for a point that failed."""
    from matplotlib.colors import LogNorm

    numbers = _bands(values)[..., 1]
    down, across = (str(dim) for dim in values.dims[:2])
    known = numbers[np.isfinite(numbers)]
    logarithmic = name in LOGARITHMIC and known.size > 0 and (known > 0).all() and known.max() > 10 * known.min()
    image = panel.imshow(numbers, origin="lower", aspect="auto", norm=LogNorm() if logarithmic else None)
    if known.size > 0 and known.max() == known.min():  # Matplotlib would centre the scale on the value
        image.set_clim(0, float(known[0]) or 1.0)
    panel.figure.colorbar(image, ax=panel)
    panel.set_xticks(range(values.sizes[across]), _labels(values, across))
    panel.set_yticks(range(values.sizes[down]), _labels(values, down))
    panel.set(xlabel=across, ylabel=down)
    if numbers.size <= ANNOTATED:
        shades = np.asarray(image.norm(numbers))
        for (row, column), number in np.ndenumerate(numbers):
            if not np.isfinite(number):
                panel.text(column, row, "×", ha="center", va="center")
            else:
                colour = "white" if shades[row, column] < 0.6 else "black"
                panel.text(column, row, f"{number:.3g}", ha="center", va="center", fontsize=7, color=colour)
