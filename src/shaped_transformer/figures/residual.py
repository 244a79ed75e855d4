"""How the branch strength γ scales drift and diffusion, and with them |ρ| and V₁₁ at the last layer [ST].

The residual branch enters the limit's drift as γ² and its noise as γ²(2 − γ²) and γ⁴ (theory §4). The first two panels
measure both on one layer of the exact chain; the others show what they come to over the whole depth.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design.architecture import Architecture, shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, LEVELS, Estimate, from_array, median, normal, to_array
from ..inputs import Covariance, equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import legend, view_band
from ..plotting.style import COLOURS, LABELS
from ..views import chain, sde
from .observed import counts, observe
from .pieces import Arrays, Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {"mean_absolute_correlation": "mean |ρ|", "V11": "V11"}
"""Observables, as the numbers name them."""


def compute(
    pieces: Pieces,
    width: PositiveInt,
    depth: PositiveInt,
    gammas: PositiveFloats,
    tau0: PositiveFloat,
    c_minus: float,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    network_samples: Samples,
    layer_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Draw shaped Transformers of many γ: one layer of the chain very often, and the whole depth by all three views.

    **Arguments:** `layer_samples`: draws of the single layer; the rest as in the figure `density`.

    **Returns:** over γ, `drift` and `diffusion` of V₁₁ in one layer of the chain (with intervals) and in the
    limit, and for each view and statistic its quantiles and their intervals at the last layer.
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    drawn = counts(samples, network_samples)
    tasks: dict[str, Task] = {}
    designs = {g: shaped_transformer(width, depth, gamma=g, tau0=tau0, c_minus=c_minus) for g in gammas}
    for gamma, arch in designs.items():
        tasks[f"layer gamma={gamma:g}"] = partial(_one_layer, arch, v0, layer_samples, seed)
        for view, count in drawn.items():
            tasks[f"{view} gamma={gamma:g}"] = partial(observe, view, arch, v0, count, seed, list(OBSERVED))
    done = pieces(tasks)
    layers = [done[f"layer gamma={gamma:g}"] for gamma in gammas]
    draws = {
        f"{view} {name}": (
            ("gamma", "quantile"),
            [np.quantile(done[f"{view} gamma={gamma:g}"][name][:, -1], LEVELS) for gamma in gammas],
        )
        for view in drawn
        for name in OBSERVED
    }
    medians = {
        f"median {name}": (
            ("gamma", "bound"),
            to_array(median(done[f"chain gamma={gamma:g}"][name][:, -1]) for gamma in gammas),
        )
        for name in OBSERVED
    }
    moments = {
        name: (("gamma", "bound"), [layer[name] for layer in layers]) for name in ("chain drift", "chain diffusion")
    }
    limit = {
        "limit drift": ("gamma", [sde.drift(arch, v0)[0, 0] for arch in designs.values()]),
        "limit diffusion": ("gamma", [sde.diffusion(arch, v0)[0, 0, 0, 0] for arch in designs.values()]),
    }
    coords = {
        "gamma": list(gammas),
        "quantile": list(LEVELS),
        "bound": list(BOUNDS),
    }
    return xr.Dataset(draws | medians | moments | limit, coords=coords)


def _one_layer(arch: Architecture, v0: Covariance, samples: int, seed: int) -> Arrays:
    """Return width times mean and variance of the change of V₁₁ in one block of the chain, with intervals."""
    one = Architecture(arch.width, 1, arch.block)
    change = chain.sample(one, v0, samples, seed, record=1).covariance[:, -1, 0, 0] - v0[0, 0]
    mean, variance = change.mean(), change.var(ddof=1)
    error_of_variance = np.sqrt(np.mean((change - mean) ** 4) - variance**2) / np.sqrt(samples)
    drift = normal(float(mean), float(np.sqrt(variance / samples)))
    diffusion = normal(float(variance), float(error_of_variance))
    return {
        "chain drift": drift.scaled(arch.width).to_array(),
        "chain diffusion": diffusion.scaled(arch.width).to_array(),
    }


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return how drift and diffusion grow from the smallest to the largest γ, and the medians there."""
    numbers = {}
    for name in ("drift", "diffusion"):
        seen, limit = data[f"chain {name}"], data[f"limit {name}"]
        title = f"{name} of V11 at γ = {float(data['gamma'][-1]):g}, one layer of the chain over the limit's"
        numbers[title] = from_array(seen.isel(gamma=-1)).scaled(1 / float(limit[-1]))
    for name, label in OBSERVED.items():
        for at in (0, -1):
            chosen = data[f"median {name}"].isel(gamma=at)
            numbers[f"median {label} at γ = {float(chosen['gamma']):g}"] = from_array(chosen)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot drift and diffusion of one layer, and the quantiles at the last layer, against γ."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.6), layout="constrained")
    (drift, diffusion), bottom = figure.subplots(2, 2)
    gamma = data["gamma"].to_numpy()
    for panel, name in ((drift, "drift"), (diffusion, "diffusion")):
        value, low, high = data[f"chain {name}"].to_numpy().T
        panel.errorbar(
            gamma,
            value,
            [value - low, high - value],
            fmt="o",
            color=COLOURS["chain"],
            capsize=2,
            label=f"{LABELS['chain']}, one layer (95 %)",
        )
        panel.plot(gamma, data[f"limit {name}"], "--", color=COLOURS["sde"], label=LABELS["sde"])
        panel.set(xlabel="branch strength γ", ylabel=f"{name} of V₁₁, per unit of depth/width")
        legend(panel)
    drift.set_title("drift: grows as γ²", loc="left")
    diffusion.set_title("diffusion: as γ²(2 − γ²) and γ⁴", loc="left")
    for panel, name in zip(bottom, OBSERVED, strict=True):
        observable = OBSERVABLES[name]
        for view in LABELS:
            view_band(panel, view, gamma, *data[f"{view} {name}"].to_numpy().T)
        panel.set(xlabel="branch strength γ", ylabel=f"{observable.label}, at the last layer", yscale=observable.scale)
        legend(panel)
    bottom[0].set_title("median and 5–95 % band at the last layer", loc="left")
    bottom[0].set_ylim(0, 1.02)
    return figure
