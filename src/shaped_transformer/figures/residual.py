"""How the branch strength γ scales drift and diffusion, and with them |ρ| and V₁₁ at the last layer [ST].

The residual branch enters the limit's drift as γ² and its noise as γ²(2 − γ²) and γ⁴ (theory §4). The first two panels
measure both on one layer of the exact chain; the others show what they come to over the whole depth.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design.architecture import Architecture, shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..inputs import Covariance, equicorrelated
from ..plotting.plots import legend, view_band
from ..plotting.style import COLOURS, LABELS
from ..views import chain, sde
from .observed import LEVELS, Number, median, observe
from .pieces import Arrays, Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {"mean |rho|": ("mean |ρ| over pairs", "linear"), "V11": ("norm of token 1, V₁₁", "log")}


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

    **Returns:** over γ, `drift` and `diffusion` of V₁₁ in one layer of the chain (value and standard error) and in the
    limit, and for each view and statistic its quantiles and their intervals at the last layer.
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    counts = {"network": network_samples, "chain": samples, "sde": samples}
    tasks: dict[str, Task] = {}
    designs = {g: shaped_transformer(width, depth, gamma=g, tau0=tau0, c_minus=c_minus) for g in gammas}
    for gamma, arch in designs.items():
        tasks[f"layer gamma={gamma:g}"] = partial(_one_layer, arch, v0, layer_samples, seed)
        for view, count in counts.items():
            tasks[f"{view} gamma={gamma:g}"] = partial(observe, view, arch, v0, count, seed, list(OBSERVED))
    done = pieces(tasks)
    layers = [done[f"layer gamma={gamma:g}"] for gamma in gammas]
    draws = {
        f"{view} {name}": (
            ("gamma", "quantile"),
            [np.quantile(done[f"{view} gamma={gamma:g}"][name][:, -1], LEVELS) for gamma in gammas],
        )
        for view in counts
        for name in OBSERVED
    }
    medians = {
        f"median {name}": (
            ("gamma", "bound"),
            [
                [(m := median(name, done[f"chain gamma={gamma:g}"][name][:, -1])).value, m.low, m.high]
                for gamma in gammas
            ],
        )
        for name in OBSERVED
    }
    moments = {
        name: (("gamma", "estimate"), [layer[name] for layer in layers]) for name in ("chain drift", "chain diffusion")
    }
    limit = {
        "limit drift": ("gamma", [sde.drift(arch, v0)[0, 0] for arch in designs.values()]),
        "limit diffusion": ("gamma", [sde.diffusion(arch, v0)[0, 0, 0, 0] for arch in designs.values()]),
    }
    coords = {
        "gamma": list(gammas),
        "quantile": list(LEVELS),
        "bound": ["value", "low", "high"],
        "estimate": ["value", "error"],
    }
    return xr.Dataset(draws | medians | moments | limit, coords=coords)


def _one_layer(arch: Architecture, v0: Covariance, samples: int, seed: int) -> Arrays:
    """Width times mean and variance of the change of V₁₁ in one block of the chain, with standard errors."""
    one = Architecture(arch.width, 1, arch.block)
    change = chain.sample(one, v0, samples, seed, record=1).covariance[:, -1, 0, 0] - v0[0, 0]
    mean, variance = change.mean(), change.var(ddof=1)
    error_of_variance = np.sqrt(np.mean((change - mean) ** 4) - variance**2) / np.sqrt(samples)
    drift = np.array([mean, np.sqrt(variance / samples)])
    return {
        "chain drift": arch.width * drift,
        "chain diffusion": arch.width * np.array([variance, error_of_variance]),
    }


def headline(data: "xarray.Dataset") -> list[Number]:
    """Return how drift and diffusion grow from the smallest to the largest γ, and the medians there."""
    numbers = []
    for name in ("drift", "diffusion"):
        seen, limit = data[f"chain {name}"], data[f"limit {name}"]
        value, error = (float(seen.isel(gamma=-1).sel(estimate=part)) for part in ("value", "error"))
        expected = float(limit[-1])
        numbers.append(
            Number(
                f"{name} of V11 at γ = {float(data['gamma'][-1]):g}, one layer of the chain over the limit's",
                value / expected,
                (value - 1.96 * error) / expected,
                (value + 1.96 * error) / expected,
            )
        )
    for name in OBSERVED:
        for at in (0, -1):
            chosen = data[f"median {name}"].isel(gamma=at)
            label = name.replace("rho", "ρ")
            numbers.append(
                Number(f"median {label} at γ = {float(chosen['gamma']):g}", *(float(x) for x in chosen.values))
            )
    return numbers


def draw(data: "xarray.Dataset") -> "Figure":
    """Draw drift and diffusion of one layer, and the quantiles at the last layer, against γ."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.6), layout="constrained")
    (drift, diffusion), bottom = figure.subplots(2, 2)
    gamma = data["gamma"].to_numpy()
    for panel, name in ((drift, "drift"), (diffusion, "diffusion")):
        seen = data[f"chain {name}"]
        error = 1.96 * seen.sel(estimate="error").to_numpy()
        panel.errorbar(
            gamma,
            seen.sel(estimate="value"),
            error,
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
    for panel, (name, (label, scale)) in zip(bottom, OBSERVED.items(), strict=True):
        for view in LABELS:
            view_band(panel, view, gamma, *data[f"{view} {name}"].to_numpy().T)
        panel.set(xlabel="branch strength γ", ylabel=f"{label}, at the last layer", yscale=scale)
        legend(panel)
    bottom[0].set_title("median and 5–95 % band at the last layer", loc="left")
    bottom[0].set_ylim(0, 1.02)
    return figure
