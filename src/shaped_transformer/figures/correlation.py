"""Rank collapse and its cure: |ρ| against layer in four Transformers, and the law of ρ in the shaped one [ST].

The left panel is the paper's introduction in our words: softmax networks drive all tokens into one direction, at once
without skips and slowly with norms; the shaped Transformer does not. The right panel sets its three views side by side.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design import architecture as presets
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, distance, median
from ..inputs import equicorrelated
from ..plotting.plots import band, densities, legend
from ..plotting.style import LABELS, SERIES
from .observed import counts, observe
from .pieces import Pieces, Task
from .settings import AtLeastTwo, Correlation, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SHOWN = "mean_absolute_correlation"
"""The observable of the left panel."""
DESIGNS = {
    "skipless": "skipless softmax",
    "post-norm": "post-norm",
    "pre-norm": "pre-norm",
    "shaped": "shaped Transformer",
}


def compute(
    pieces: Pieces,
    width: PositiveInt,
    depth: PositiveInt,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    c_minus: float,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    network_samples: Samples,
    records: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Draw four Transformers by the exact chain, and the shaped one by all three views.

    **Arguments:** of the shaped Transformer: `gamma`, `tau0`, `c_minus`; of all: `width`, `depth`; of the input:
    `tokens`, all with this `correlation`; `samples` of chain and SDE, `network_samples`, `records` and `seed`.

    **Returns:** quantiles of the mean |ρ| over pairs through depth by design, and draws of ρ₁₂ by view.
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
    drawn = counts(samples, network_samples)
    tasks: dict[str, Task] = {
        f"design {name}": partial(observe, "chain", arch, v0, samples, seed, [SHOWN], record=records)
        for name, arch in designs.items()
    }
    tasks |= {f"view {view}": partial(observe, view, shaped, v0, drawn[view], seed, ["rho12"]) for view in drawn}
    done = pieces(tasks)
    paths = {name: done[f"design {name}"] for name in designs}
    return xr.Dataset(
        {
            "path": (
                ("design", "quantile", "layer"),
                [np.quantile(p[SHOWN], LEVELS, axis=0) for p in paths.values()],
            ),
            "last": (("design", "sample"), [p[SHOWN][:, -1] for p in paths.values()]),
        }
        | {f"rho_{view}": (f"sample_{view}", done[f"view {view}"]["rho12"][:, -1]) for view in drawn},
        coords={"design": list(designs), "quantile": list(LEVELS), "layer": paths["shaped"]["depth"]},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians at the last layer."""
    collapse = {f"median |ρ|, {DESIGNS[str(d)]}": median(data["last"].sel(design=d)) for d in data["design"].values}
    views = {f"median ρ12, {LABELS[view]}": median(data[f"rho_{view}"]) for view in LABELS}
    return collapse | views | {"KS distance, network to chain": distance(data["rho_network"], data["rho_chain"])}


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot |ρ| against layer by design, and the densities of ρ₁₂ by view."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in zip(DESIGNS, (SERIES[3], SERIES[2], SERIES[1], SERIES[0]), strict=True):
        band(left, data["layer"].to_numpy(), data["path"].sel(design=name).to_numpy(), colour, DESIGNS[name])
    left.set(xlabel="layer", ylabel="mean |ρ| over pairs of tokens", ylim=(0, 1.03))
    left.set_title("median and 5–95 % band, exact chain", loc="left")
    legend(left, loc="center right")
    densities(right, {view: data[f"rho_{view}"].to_numpy() for view in LABELS})
    right.set_xlabel("ρ of tokens 1 and 2, at the last layer")
    right.set_title("law of ρ in the shaped Transformer", loc="left")
    legend(right)
    return figure
