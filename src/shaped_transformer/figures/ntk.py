"""How much tangent kernels vary: the three phases of a ReLU perceptron, and what shaping changes (theory §8).

All kernels are drawn without weights. On the left Θ(x, x) of perceptrons with bias gradients; beside it that of shaped
and unshaped networks, of weights alone; on the right the cosine of two inputs under Θ.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design import architecture as presets
from ..design.activations import Activation, ShapedReLU
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, exact, from_array, quantiles, to_array
from ..inputs import equicorrelated
from ..numerics.arrays import Floats
from ..plotting.plots import label_plainly, plot_band
from ..plotting.style import DESIGNS, SERIES
from ..views.sampling import initial_factor
from .pieces import Arrays, PieceRunner, Task
from .settings import Correlation, PositiveFloats, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..ntk.modules import Network

NETWORKS = {
    "relu": "ReLU MLP",
    "shaped-relu": "shaped ReLU MLP",
    "shaped": "shaped Transformer, γ = ½/√d",
    "shaped-fixed": "shaped Transformer, fixed γ",
    "pre-norm": "pre-norm",
    "post-norm": "post-norm",
    "skipless": "skipless",
}
"""Networks with their titles."""
COLOURS = DESIGNS | {"relu": SERIES[0], "shaped-relu": SERIES[2], "shaped-fixed": DESIGNS["shaped"]}
BANDS = ("relu", "shaped")
"""Networks whose cosine has a band."""
SHAPED = ShapedReLU(0.0, -1.0)
REACHED = {True: ("full", "drawn, 95 %"), False: ("none", "drawn, tail not reached")}
"""How a point is filled, and its label, by whether the draws reach the tail from which the error comes."""
ROOM = 4.0
"""Factor from the largest estimate to the upper end of the axis, which cuts longer bars."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depths: PositiveInts,
    variances: PositiveFloats,
    samples: Samples,
    network_width: PositiveInt,
    network_depths: PositiveInts,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: PositiveInt,
    correlation: Correlation,
    networks: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Draw the kernels of perceptrons and of shaped and unshaped networks.

    **Arguments:**

    - `width`, `depths`, `variances`: M, L and σ_w² of the perceptrons, on an input of norm 1.
    - `samples`: number of their kernels, for each depth and variance.
    - `network_width`, `network_depths`: n and d of the other networks.
    - `gamma`: γ of the shaped Transformer whose γ does not depend on the depth.
    - `tau0`: of both shaped Transformers.
    - `tokens`: length of each of two inputs; perceptrons see the last token.
    - `correlation`: of any two tokens.
    - `networks`: number of kernels of each network and depth.
    - `seed`: of all draws.

    **Returns:** `phase`, over (variance, depth, bound), with `phase_reached`; `formula` and `limit` over (variance,
    layer); `dispersion` over (network, network_depth, bound), with `reached`; `cosine` over (network, network_depth,
    quantile); `network_formula` over (perceptron, network_layer).

    **Raises:** `MissingExtra` if PyTorch is not installed.
    """
    import xarray as xr

    from .. import ntk

    tasks: dict[str, Task] = {
        f"perceptron {variance:g} {depth}": partial(_perceptron, width, depth, variance, samples, seed)
        for variance in variances
        for depth in depths
    }
    vectors = _inputs(network_width, tokens, correlation, seed)
    for depth in network_depths:
        for name, network in _networks(network_width, depth, gamma, tau0).items():
            tasks[f"{name} {depth}"] = partial(_network, network, vectors, networks, seed)
    done = runner.run(tasks)

    def gathered(names: Sequence[str], key: str, steps: Sequence[int]) -> list[list[Any]]:
        return [[done[f"{name} {step}"][key] for step in steps] for name in names]

    perceptrons = [f"perceptron {variance:g}" for variance in variances]
    layers, network_layers = (np.arange(1, max(steps) + 1) for steps in (depths, network_depths))
    shaped_slopes = (1.0, 1 - network_width**-0.5)
    out: dict[str, Any] = {
        "phase": (("variance", "depth", "bound"), gathered(perceptrons, "dispersion", depths)),
        "phase_reached": (("variance", "depth"), gathered(perceptrons, "reached", depths)),
        "formula": (
            ("variance", "layer"),
            [[ntk.dispersion(width, int(one), v, bias_gradients=True) for one in layers] for v in variances],
        ),
        "limit": (
            ("variance", "layer"),
            [[ntk.limit_dispersion(one / width, v, bias_gradients=True) for one in layers] for v in variances],
        ),
        "dispersion": (("network", "network_depth", "bound"), gathered(list(NETWORKS), "dispersion", network_depths)),
        "reached": (("network", "network_depth"), gathered(list(NETWORKS), "reached", network_depths)),
        "cosine": (("network", "network_depth", "quantile"), gathered(list(NETWORKS), "cosine", network_depths)),
        "network_formula": (
            ("perceptron", "network_layer"),
            [
                [ntk.dispersion(network_width, int(one), slopes=slopes) for one in network_layers]
                for slopes in ((1.0, 0.0), shaped_slopes)
            ],
        ),
    }
    coords = {"variance": list(variances), "depth": list(depths), "layer": layers, "network": list(NETWORKS)}
    more = {"network_depth": list(network_depths), "network_layer": network_layers, "quantile": list(LEVELS)}
    data = xr.Dataset(out, coords | more | {"perceptron": ["relu", "shaped-relu"]})
    return data.assign_attrs(width=width, network_width=network_width, correlation=correlation, gamma=gamma)


def _networks(width: int, depth: int, gamma: float, tau0: float) -> dict[str, "Network"]:
    """Return the networks of `NETWORKS`."""
    from ..ntk import Perceptron

    return {
        "relu": Perceptron(width, depth, Activation("relu"), 2.0),
        "shaped-relu": Perceptron(width, depth, SHAPED, 1 / SHAPED.second_moment(width)),
        "shaped": presets.shaped_transformer(width, depth, gamma=presets.default_gamma(depth), tau0=tau0),
        "shaped-fixed": presets.shaped_transformer(width, depth, gamma=gamma, tau0=tau0),
        "pre-norm": presets.pre_norm_transformer(width, depth),
        "post-norm": presets.post_norm_transformer(width, depth),
        "skipless": presets.skipless_transformer(width, depth),
    }


def _inputs(width: int, tokens: int, correlation: float, seed: int) -> Floats:
    """Return two inputs of equicorrelated tokens, (2, tokens, width)."""
    factor = initial_factor(equicorrelated(2 * tokens, correlation), width)
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.standard_normal((width, factor.shape[-1])))[0].T
    return (width**0.5 * factor @ frame).reshape(2, tokens, width)


def _perceptron(width: int, depth: int, variance: float, samples: int, seed: int) -> Arrays:
    """Return the dispersion of Θ(x, x) of perceptrons with bias gradients, ‖x‖ = 1."""
    from .. import ntk

    mlp = ntk.Perceptron(width, depth, weight_variance=variance)
    x = np.full((1, width), width**-0.5)
    return _dispersion(ntk.sample(mlp, x, samples, seed, bias_gradients=True)[:, 0, 0])


def _network(network: "Network", vectors: Floats, samples: int, seed: int) -> Arrays:
    """Return the dispersion of Θ(x, x), and quantiles of the cosine of two inputs."""
    from .. import ntk

    x = vectors[:, -1] if isinstance(network, ntk.Perceptron) else vectors
    theta = ntk.sample(network, x, samples, seed)
    norms = theta[:, 0, 0] * theta[:, 1, 1]
    cosine = theta[norms > 0, 0, 1] / np.sqrt(norms[norms > 0])
    return _dispersion(theta[:, 0, 0]) | {"cosine": quantiles(cosine).value}


def _dispersion(values: Floats) -> Arrays:
    """Return E Θ²/(E Θ)² with its honest interval, and whether the tail is reached."""
    from .. import ntk

    found = ntk.measure_dispersion(values)
    return {"dispersion": to_array([found.honest])[0], "reached": np.array(found.reached)}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the dispersion at the largest depth beside the formula's, and that of each network."""
    numbers: dict[str, Estimate[float]] = {}
    depth, width = int(data["depth"][-1]), data.attrs["width"]
    for variance in data["variance"].to_numpy():
        one = data.sel(variance=variance)
        name = f"E Θ²/(E Θ)², M = {width}, L = {depth}, σ_w² = {variance:g}"
        numbers[name] = from_array(one["phase"].sel(depth=depth))
        numbers[f"{name}, formula"] = exact(float(one["formula"].sel(layer=depth)))
        numbers[f"{name}, limit"] = exact(float(one["limit"].sel(layer=depth)))
    depth = int(data["network_depth"][-1])
    for network, title in NETWORKS.items():
        name = f"E Θ²/(E Θ)², n = {data.attrs['network_width']}, d = {depth}, {title}"
        numbers[name] = from_array(data["dispersion"].sel(network=network, network_depth=depth))
        if network in data["perceptron"]:
            found = data["network_formula"].sel(perceptron=network, network_layer=depth)
            numbers[f"{name}, formula"] = exact(float(found))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the phases, the networks and the cosines, against depth over width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    phases, shaping, cosines = figure.subplots(1, 3)
    width, network_width = data.attrs["width"], data.attrs["network_width"]
    names = ("ordered", "critical", "chaotic")
    for variance, colour in zip(data["variance"].to_numpy(), SERIES, strict=False):
        one = data.sel(variance=variance)
        phase = names[int(np.sign(round(variance / 2 - 1, 9))) + 1]
        at = data["layer"].to_numpy() / width
        phases.plot(at, one["formula"], color=colour, label=f"σ_w² = {variance:g}, {phase}")
        phases.plot(at, one["limit"], ":", color=colour)
        _plot_points(phases, data["depth"] / width, one["phase"], one["phase_reached"], colour)
    phases.set(xlabel="hidden layers over width, L/M", ylabel="E Θ²/(E Θ)²", yscale="log")
    phases.set_title(f"ReLU perceptron, bias gradients, M = {width}", loc="left", fontsize="medium")
    ratio = data["network_depth"].to_numpy() / network_width
    for place, (name, title) in enumerate(NETWORKS.items()):
        one, colour = data.sel(network=name), COLOURS[name]
        style = "--" if name == "shaped-fixed" else "-"
        label = title.replace("fixed γ", f"γ = {data.attrs['gamma']:.2g}")
        if name in data["perceptron"]:
            formula = data["network_formula"].sel(perceptron=name)
            shaping.plot(data["network_layer"] / network_width, formula, color=colour, label=f"{label}: formula")
        else:
            shaping.plot(ratio, one["dispersion"][:, 0], style, color=colour, label=label)
        apart = ratio * (1 + 0.015 * (place - len(NETWORKS) / 2))  # so that bars do not cover each other
        _plot_points(shaping, apart, one["dispersion"], one["reached"], colour)
        if name in BANDS:
            plot_band(cosines, ratio, one["cosine"].to_numpy().T, colour, label)
        else:
            cosines.plot(ratio, one["cosine"][:, 1], style, color=colour, label=label)
    shaping.set(xlabel="blocks over width, d/n", ylabel="E Θ²/(E Θ)²", yscale="log")
    shaping.set_title(f"shaped and unshaped, weights alone, n = {network_width}", loc="left", fontsize="medium")
    cosines.set(xlabel="blocks over width, d/n", ylabel="Θ(x, x')/√(Θ(x, x) Θ(x', x'))")
    cosines.set_title("cosine of two inputs: medians, two with 5–95 %", loc="left", fontsize="medium")
    for panel, values in ((phases, data["phase"]), (shaping, data["dispersion"])):
        panel.set_ylim(0.9, ROOM * float(values[..., 0].max()))
        label_plainly(panel.yaxis)
    _add_legends(figure, phases, shaping)
    return figure


def _plot_points(axes: "Axes", at: Any, values: "xarray.DataArray", reached: "xarray.DataArray", colour: str) -> None:
    """Plot estimates with bars; points are open where the draws do not reach the tail."""
    value, low, high = values.to_numpy().T
    for full, (fill, _) in REACHED.items():
        some = reached.to_numpy() == full
        size = np.stack([value - low, high - value])[:, some]
        style: Any = {"fillstyle": fill, "markersize": 5, "capsize": 2, "linewidth": 1}
        axes.errorbar(np.asarray(at)[some], value[some], size, fmt="o", color=colour, **style)


def _add_legends(figure: "Figure", phases: "Axes", shaping: "Axes") -> None:
    """Add the legend of the phases in their panel, where the axis has room for it, and that of the networks below."""
    from matplotlib.lines import Line2D

    kinds = [Line2D([], [], color="black", label="formula"), Line2D([], [], color="black", ls=":", label="limit")]
    for fill, label in REACHED.values():
        style: Any = {"fillstyle": fill, "markersize": 5, "label": label}
        kinds.append(Line2D([], [], color="black", marker="o", linestyle="none", **style))
    handles, _ = phases.get_legend_handles_labels()
    phases.legend(handles=[*handles, *kinds], loc="upper left", frameon=False, fontsize="small")
    handles, labels = shaping.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
