"""Where shaped Transformers are stable: the median stopping time over (γ, τ0), exact chain and SDE side by side [ST].

A path stops when an eigenvalue of V leaves the window; the stopping time is that layer over the width, at most the
depth's. One row for each norm of the input: the usual one, and a large one on purpose, at which the limit's cubic drift
explodes and the network's softmax saturates. Real networks are drawn at a few points, as rings in the same colours.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, Estimate, median, share
from ..inputs import equicorrelated
from ..plotting.plots import edges, legend
from ..plotting.style import LABELS
from .observed import counts, observe
from .pieces import Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def compute(
    pieces: Pieces,
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
    """Draw stopping times over a grid of γ and τ0.

    **Arguments:**

    - `gammas`, `taus`: the grid; `network_every`: real networks at every so many points of both axes.
    - `norms`: ‖x‖/√n of the input's tokens, one row of the figure each.
    - `window`: eigenvalues of V between which a path goes on; the rest as in the figure `density`.

    **Returns:** `chain` and `sde`, median stopping times with their intervals, over (norm, gamma, tau0), and `network`,
    which is −1 where none was drawn; `alive`, the share of chains that reach the last layer.
    """
    import xarray as xr

    number = counts(samples, network_samples)
    shape = (len(norms), len(gammas), len(taus))

    def drawn(view: str, i: int, j: int) -> bool:
        return view != "network" or (i % network_every == 0 and j % network_every == 0)

    grid = [(view, *at) for view in number for at in np.ndindex(shape) if drawn(view, *at[1:])]
    tasks: dict[str, Task] = {}
    for view, k, i, j in grid:
        arch = shaped_transformer(width, depth, gamma=gammas[i], tau0=taus[j], c_minus=c_minus)
        v0 = equicorrelated(tokens, correlation, norms[k] ** 2)
        tasks[f"{view} {k} {i} {j}"] = partial(
            observe, view, arch, v0, number[view], seed, ["stopping_time"], stop=window
        )
    done = pieces(tasks)
    times = {view: np.full((*shape, 3), -1.0) for view in number}
    alive = np.zeros(shape)
    for view, *at in grid:
        found = done[" ".join(map(str, (view, *at)))]
        times[view][*at] = median(found["stopping_time"][:, -1]).to_array()
        if view == "chain":
            alive[*at] = np.mean(found["stopped"] > depth)
    dims = ("norm", "gamma", "tau0")
    return xr.Dataset(
        {view: ((*dims, "bound"), time) for view, time in times.items()} | {"alive": (dims, alive)},
        coords={"norm": list(norms), "gamma": list(gammas), "tau0": list(taus), "bound": list(BOUNDS)},
        attrs={"time": depth / width, "window": list(window)},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return how large a part of the map is stable in each view, and where they differ most."""
    numbers = {}
    whole = data.attrs["time"] - 1e-9
    for norm in data["norm"].values:
        for view in ("chain", "sde"):
            times = data[view].sel(norm=norm)
            name = f"part of the map whose median path stays to the end, norm {norm:g}, {LABELS[view]}"
            numbers[name] = Estimate(*(float(np.mean(times.sel(bound=b) >= whole)) for b in BOUNDS))
    drawn = data["network"].sel(bound="value").to_numpy() >= 0
    seen, chain = (data[view].to_numpy()[drawn] for view in ("network", "chain"))
    overlap = (seen[:, 1] <= chain[:, 2] + 1e-9) & (chain[:, 1] <= seen[:, 2] + 1e-9)
    return numbers | {"points at which intervals of network and chain overlap": share(overlap)}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the maps of chain and SDE with common colours, networks as points on the chain's."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    norms, gamma, tau0 = (data[name].to_numpy() for name in ("norm", "gamma", "tau0"))
    figure = Figure(figsize=(9.6, 3.4 * len(norms) + 0.8), layout="constrained")
    axes = figure.subplots(len(norms), 2, sharex=True, sharey=True, squeeze=False)
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": data.attrs["time"]}
    x, y = np.exp(edges(np.log(tau0))), edges(gamma)
    for row, norm in zip(axes, norms, strict=True):
        for panel, view in zip(row, ("chain", "sde"), strict=True):
            time = data[view].sel(norm=norm, bound="value").to_numpy()
            image = panel.pcolormesh(x, y, time, rasterized=True, **colours)
            panel.set_xscale("log")
            panel.set_title(f"{LABELS[view]}, input norm {norm:g}", loc="left")
        seen = data["network"].sel(norm=norm, bound="value").to_numpy()
        i, j = np.nonzero(seen >= 0)
        row[0].scatter(tau0[j], gamma[i], c=seen[i, j], s=60, edgecolors="white", linewidths=1.4, **colours)
        row[0].set_ylabel("branch strength γ")
    for panel in axes[-1]:
        panel.set_xlabel("temperature constant τ0")
    ring = Line2D([], [], marker="o", color="grey", markeredgecolor="black", linestyle="", label=LABELS["network"])
    legend(axes[0, 0], handles=[ring], loc="lower right")
    low, high = data.attrs["window"]
    figure.suptitle(
        f"median time at which an eigenvalue of V leaves [{low:g}, {high:g}]", fontsize="medium", x=0.01, ha="left"
    )
    figure.colorbar(image, ax=axes, label=f"median stopping time, in depth/width (capped at {data.attrs['time']:g})")
    return figure
