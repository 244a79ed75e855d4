"""How drift, diffusion, and |ρ| and V₁₁ at the last layer depend on the branch strength γ [ST].

The residual branch enters the drift of the limit as γ², and its noise as γ²(2 − γ²) and γ⁴ (theory §4). The upper
panels measure both on one layer of the exact chain. The lower panels show the result of the whole depth.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.architecture import Architecture, shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import Estimate, from_array, normal
from ..inputs import Covariance, equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import add_legend, plot_view_band
from ..plotting.style import COLOURS, LABELS
from ..views import chain, sde
from .observed import INTERVALS, QUANTILES, draw_observables, medians_along, quantiles_along, samples_by_view
from .pieces import Arrays, PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {"mean_absolute_correlation": "mean |ρ|", "V11": "V11"}
"""Observables with their names in the numbers."""


def compute(
    runner: PieceRunner,
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
    """Sample shaped Transformers of several γ: one layer by the chain, and the whole depth by all three views.

    **Arguments:**

    - `layer_samples`: number of samples of the single layer.
    - the others as in the figure `density`.

    **Returns:** over γ, drift and diffusion of V₁₁ in one layer of the chain, with intervals, and in the limit; for
    each view and observable its quantiles at the last layer; the medians of the chain with intervals.
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {}
    designs = {g: shaped_transformer(width, depth, gamma=g, tau0=tau0, c_minus=c_minus) for g in gammas}
    for gamma, arch in designs.items():
        tasks[f"layer gamma={gamma:g}"] = partial(_one_layer, arch, v0, layer_samples, seed)
        for view, count in counts.items():
            tasks[f"{view} gamma={gamma:g}"] = partial(draw_observables, view, arch, v0, count, seed, list(OBSERVED))
    done = runner.run(tasks)
    out: dict[str, Any] = {
        "limit drift": ("gamma", [sde.drift(arch, v0)[0, 0] for arch in designs.values()]),
        "limit diffusion": ("gamma", [sde.diffusion(arch, v0)[0, 0, 0, 0] for arch in designs.values()]),
    }
    for name in ("chain drift", "chain diffusion"):
        out[name] = (("gamma", "bound"), [done[f"layer gamma={gamma:g}"][name] for gamma in gammas])
    for name in OBSERVED:
        last = {view: [done[f"{view} gamma={gamma:g}"][name][:, -1] for gamma in gammas] for view in counts}
        out |= {f"{view} {name}": quantiles_along("gamma", last[view]) for view in counts}
        out[f"median {name}"] = medians_along("gamma", last["chain"])
    coords: dict[str, Any] = {"gamma": list(gammas)} | QUANTILES | INTERVALS
    return xr.Dataset(out, coords=coords)


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
    """Return drift and diffusion over the limit's at the largest γ, and medians at the smallest and largest γ."""
    numbers = {}
    for name in ("drift", "diffusion"):
        measured, limit = data[f"chain {name}"], data[f"limit {name}"]
        title = f"{name} of V11 at γ = {float(data['gamma'][-1]):g}, one layer of the chain over the limit's"
        numbers[title] = from_array(measured.isel(gamma=-1)).scaled(1 / float(limit[-1]))
    for name, label in OBSERVED.items():
        for at in (0, -1):
            chosen = data[f"median {name}"].isel(gamma=at)
            numbers[f"median {label} at γ = {float(chosen['gamma']):g}"] = from_array(chosen)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot drift and diffusion of one layer, and bands at the last layer, against γ."""
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
        add_legend(panel)
    drift.set_title("drift: grows as γ²", loc="left")
    diffusion.set_title("diffusion: as γ²(2 − γ²) and γ⁴", loc="left")
    for panel, name in zip(bottom, OBSERVED, strict=True):
        observable = OBSERVABLES[name]
        for view in LABELS:
            plot_view_band(panel, view, gamma, *data[f"{view} {name}"].to_numpy().T)
        panel.set(xlabel="branch strength γ", ylabel=f"{observable.label}, at the last layer", yscale=observable.scale)
        add_legend(panel)
    bottom[0].set_title("median and 5–95 % band at the last layer", loc="left")
    bottom[0].set_ylim(0, 1.02)
    return figure
