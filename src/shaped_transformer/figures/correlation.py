"""Rank collapse and its cure: |ρ| by layer in four Transformers, and the distribution of ρ in the shaped one [ST].

The left panel shows the argument of the paper's introduction: softmax attention turns all tokens into one direction,
quickly without skips and slowly with norms; the shaped Transformer does not. The right panel compares its three views.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design import architecture as presets
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, distance, median
from ..inputs import equicorrelated
from ..plotting.plots import RANGES, add_legend_above, label_line_ends, plot_band, plot_densities
from ..plotting.style import DESIGNS, LABELS
from .observed import QUANTILES, draw_observables, samples_by_view
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Correlation, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SHOWN = "mean_absolute_correlation"
"""The observable of the left panel."""
TITLES = {
    "skipless": "skipless softmax",
    "post-norm": "post-norm",
    "pre-norm": "pre-norm",
    "shaped": "shaped Transformer",
}


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    c_minus: float,
    tokens: AtLeastTwo,
    correlation: Correlation,
    path_samples: Samples,
    samples: Samples,
    network_samples: Samples,
    records: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Sample four Transformers by the exact chain, and the shaped one by all three views.

    **Arguments:**

    - `width`, `depth`: size of all four.
    - `gamma`, `tau0`, `c_minus`: branch strength, temperature constant and negative slope of the shaped Transformer.
    - `tokens`, `correlation`: number of tokens of the input, and their common correlation.
    - `path_samples`: number of samples of the chain by which each design is followed through depth.
    - `samples`: number of samples of chain and SDE at the last layer, from which the densities are estimated.
    - `network_samples`: number of real networks.
    - `records`: number of recorded layers.
    - `seed`: seed of all views.

    **Returns:** quantiles of the mean |ρ| over pairs through depth by design, its samples at the last layer, and
    samples of ρ₁₂ by view.
    """
    import xarray as xr

    shaped = presets.shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_minus=c_minus)
    designs = {
        "skipless": presets.skipless_transformer(width, depth),
        "post-norm": presets.post_norm_transformer(width, depth),
        "pre-norm": presets.pre_norm_transformer(width, depth),
        "shaped": shaped,
    }
    v0 = equicorrelated(tokens, correlation)
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {
        f"design {name}": partial(draw_observables, "chain", arch, v0, path_samples, seed, [SHOWN], record=records)
        for name, arch in designs.items()
    }
    tasks |= {
        f"view {view}": partial(draw_observables, view, shaped, v0, count, seed, ["rho12"])
        for view, count in counts.items()
    }
    done = runner.run(tasks)
    paths = {name: done[f"design {name}"] for name in designs}
    return xr.Dataset(
        {
            "path": (
                ("design", "quantile", "layer"),
                [np.quantile(p[SHOWN], LEVELS, axis=0) for p in paths.values()],
            ),
            "last": (("design", "sample"), [p[SHOWN][:, -1] for p in paths.values()]),
        }
        | {f"rho_{view}": (f"sample_{view}", done[f"view {view}"]["rho12"][:, -1]) for view in counts},
        coords=QUANTILES | {"design": list(designs), "layer": paths["shaped"]["depth"]},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians at the last layer, and the distance between network and chain."""
    collapse = {f"median |ρ|, {TITLES[str(d)]}": median(data["last"].sel(design=d)) for d in data["design"].values}
    views = {f"median ρ12, {LABELS[view]}": median(data[f"rho_{view}"]) for view in LABELS}
    return collapse | views | {"KS distance, network to chain": distance(data["rho_network"], data["rho_chain"])}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot |ρ| against layer by design, and the densities of ρ₁₂ by view."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    layer, ends = data["layer"].to_numpy(), {}
    for name, title in TITLES.items():
        path, colour = data["path"].sel(design=name).to_numpy(), DESIGNS[name]
        plot_band(left, layer, path, colour, title)
        ends[title.replace(" ", "\n")] = (float(path[1, -1]), colour)
    left.set(xlabel="layer", ylabel="mean |ρ| over pairs of tokens", ylim=(0, 1.03), xlim=(0, layer[-1]))
    left.set_title("median and 5–95 % band, exact chain", loc="left")
    label_line_ends(left, layer[-1], ends, gap=0.1)
    plot_densities(right, {view: data[f"rho_{view}"].to_numpy() for view in LABELS}, bounds=RANGES["rho12"])
    right.set_xlabel("ρ of tokens 1 and 2, at the last layer")
    right.set_title("distribution of ρ, shaped Transformer", loc="left")
    add_legend_above(figure, right, loc="outside upper right")
    return figure
