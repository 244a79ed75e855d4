"""Where shaped Transformers are stable: the median stopping time over (γ, τ0), exact chain and SDE side by side [ST].

A path stops when an eigenvalue of V leaves the window. The stopping time is that layer over the width, or depth/width
if the path never stops. There is a row for each norm of the input: the usual norm, and a large one, at which the cubic
drift of the limit explodes while the softmax of the network saturates. Rings in the same colours are real networks.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, Estimate, median, share
from ..inputs import equicorrelated
from ..plotting.plots import cell_edges
from ..plotting.style import LABELS
from .observed import INTERVALS, draw_observables, samples_by_view
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    gammas: PositiveFloats,
    taus: PositiveFloats,
    network_every: PositiveInt,
    c_minus: float,
    tokens: AtLeastTwo,
    correlation: Correlation,
    norms: PositiveFloats,
    window: tuple[PositiveFloat, PositiveFloat],
    samples: Samples,
    network_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Sample stopping times over a grid of γ and τ0.

    **Arguments:**

    - `gammas`, `taus`: values of γ and τ0.
    - `network_every`: spacing, on both axes, of the points at which real networks are sampled.
    - `norms`: norms ‖x‖/√n of the input's tokens, one for each row of the figure.
    - `window`: window (low, high) of the eigenvalues of V.
    - the others as in the figure `density`.

    **Returns:** over (norm, gamma, tau0), the median stopping times with their intervals: `chain`, `sde`, and
    `network`, which is −1 where no networks were sampled; `alive`, the share of chains that reach the last layer.
    """
    import xarray as xr

    counts = samples_by_view(samples, network_samples)
    shape = (len(norms), len(gammas), len(taus))

    def is_sampled(view: str, i: int, j: int) -> bool:
        return view != "network" or (i % network_every == 0 and j % network_every == 0)

    grid = [(view, *at) for view in counts for at in np.ndindex(shape) if is_sampled(view, *at[1:])]
    tasks: dict[str, Task] = {}
    for view, k, i, j in grid:
        arch = shaped_transformer(width, depth, gamma=gammas[i], tau0=taus[j], c_minus=c_minus)
        v0 = equicorrelated(tokens, correlation, norms[k] ** 2)
        tasks[f"{view} {k} {i} {j}"] = partial(
            draw_observables, view, arch, v0, counts[view], seed, ["stopping_time"], stop=window
        )
    done = runner.run(tasks)
    times = {view: np.full((*shape, 3), -1.0) for view in counts}
    alive = np.zeros(shape)
    for view, *at in grid:
        found = done[" ".join(map(str, (view, *at)))]
        times[view][*at] = median(found["stopping_time"][:, -1]).to_array()
        if view == "chain":
            alive[*at] = np.mean(found["stopped"] > depth)
    dims = ("norm", "gamma", "tau0")
    return xr.Dataset(
        {view: ((*dims, "bound"), time) for view, time in times.items()} | {"alive": (dims, alive)},
        coords={"norm": list(norms), "gamma": list(gammas), "tau0": list(taus)} | INTERVALS,
        attrs={"time": depth / width, "window": list(window)},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the part of the map that is stable in each view, and the agreement of network and chain."""
    numbers = {}
    whole = data.attrs["time"] - 1e-9
    for norm in data["norm"].values:
        for view in ("chain", "sde"):
            times = data[view].sel(norm=norm)
            name = f"part of the map whose median path stays to the end, norm {norm:g}, {LABELS[view]}"
            numbers[name] = Estimate(*(float(np.mean(times.sel(bound=b) >= whole)) for b in BOUNDS))
    sampled = data["network"].sel(bound="value").to_numpy() >= 0
    network, chain = (data[view].to_numpy()[sampled] for view in ("network", "chain"))
    overlap = (network[:, 1] <= chain[:, 2] + 1e-9) & (chain[:, 1] <= network[:, 2] + 1e-9)
    return numbers | {"points at which intervals of network and chain overlap": share(overlap)}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the maps of chain and SDE with common colours, and networks as rings on the map of the chain."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    norms, gamma, tau0 = (data[name].to_numpy() for name in ("norm", "gamma", "tau0"))
    figure = Figure(figsize=(9.6, 3.4 * len(norms) + 0.8), layout="constrained")
    axes = figure.subplots(len(norms), 2, sharex=True, sharey=True, squeeze=False)
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": data.attrs["time"]}
    edge = [withStroke(linewidth=3, foreground="black")]  # a white ring in a black one is seen on every colour
    x, y = np.exp(cell_edges(np.log(tau0))), cell_edges(gamma)
    for row, norm in zip(axes, norms, strict=True):
        for panel, view in zip(row, ("chain", "sde"), strict=True):
            time = data[view].sel(norm=norm, bound="value").to_numpy()
            image = panel.pcolormesh(x, y, time, rasterized=True, **colours)
            panel.set_xscale("log")
            panel.set_title(f"{LABELS[view]}, input norm {norm:g}", loc="left")
        network = data["network"].sel(norm=norm, bound="value").to_numpy()
        i, j = np.nonzero(network >= 0)
        row[0].scatter(
            tau0[j], gamma[i], c=network[i, j], s=70, edgecolors="white", linewidths=1.4, path_effects=edge, **colours
        )
        row[0].set_ylabel("branch strength γ")
    for panel in axes[-1]:
        panel.set_xlabel("temperature constant τ0")
    ring = Line2D(
        [], [], marker="o", markersize=8, linestyle="", color="none", markeredgecolor="white", markeredgewidth=1.4
    )
    ring.set(path_effects=edge, label="in the rings: real networks, on the same scale of colours")
    low, high = data.attrs["window"]
    title = f"median time at which an eigenvalue of V leaves [{low:g}, {high:g}]"
    figure.legend(handles=[ring], loc="outside upper center", frameon=False, title=title)
    figure.colorbar(image, ax=axes, label=f"median stopping time, in depth/width (capped at {data.attrs['time']:g})")
    return figure
