"""Shaped against unshaped perceptrons: paths and laws of ρ, norms and explosion by activation [NC].

Without shaping two tokens become parallel; with a ReLU of slopes 1 + c/√n their correlation follows an SDE, here also
in its own two-token form dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB. With a smooth activation the norm of one token is
stable, neutral or explosive by the sign of β = ¾φ''(0)² + φ'''(0).
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.activations import Activation, ShapedReLU, ShapedSmooth, Smooth
from ..design.architecture import Architecture, shaped_mlp
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, LEVELS, Estimate, distance, from_array, median, share
from ..inputs import equicorrelated
from ..numerics.arrays import Floats
from ..plotting.plots import band, densities, legend
from ..plotting.style import COLOURS, LABELS, SERIES
from ..views.stopping import WINDOW
from .observed import counts, observe
from .pieces import Arrays, Pieces, Task
from .settings import Correlation, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def bent(x: Floats) -> Floats:
    """A softplus through the origin with slope 1: φ'' = ½, φ''' = 0, β = 3/16 > 0."""
    return np.asarray(2 * (np.logaddexp(0, x) - np.log(2)))


WEIGHT = (np.sqrt(5.5) - 2) * 8 / 3
"""The root of (3/16)w² + 2w − 2, at which `balanced` has β = 0."""


def balanced(x: Floats) -> Floats:
    """w·`bent` + (1 − w)·tanh with φ'' = w/2, φ''' = −2(1 − w), so that β = (3/16)w² − 2(1 − w) = 0."""
    return np.asarray(WEIGHT * bent(x) + (1 - WEIGHT) * np.tanh(x))


ACTIVATIONS: dict[str, Smooth] = {
    "tanh, β = −2": Smooth(np.tanh, 0.0, -2.0),
    "balanced, β = 0": Smooth(balanced, WEIGHT / 2, -2 * (1 - WEIGHT)),
    "softplus, β = 3/16": Smooth(bent, 0.5, 0.0),
}


def compute(
    pieces: Pieces,
    width: PositiveInt,
    depth: PositiveInt,
    c_plus: float,
    c_minus: float,
    a: PositiveFloat,
    correlation: Correlation,
    paths: PositiveInt,
    samples: Samples,
    network_samples: Samples,
    norm_samples: Samples,
    records: PositiveInt,
    steps: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Draw perceptrons of Dense layers: two tokens with ReLUs, one token with smooth activations.

    **Arguments:** `c_plus`, `c_minus`: of the shaped ReLU; `a`: of the smooth activations, whose drift goes as a⁻²;
    `paths`: sample paths to draw, if there are so many; `samples` of chain and SDE, `network_samples`, and
    `norm_samples` with smooth activations; `steps` of the SDEs; the rest as in the figure `correlation`.

    **Returns:** paths and draws of ρ, unshaped and shaped, by view; quantiles of the norm through depth and the share
    of exploded paths by activation for chain and SDE.
    """
    import xarray as xr

    paths = min(paths, samples, network_samples)
    two, one = equicorrelated(2, correlation), np.ones((1, 1))
    unshaped = shaped_mlp(width, depth, activation=Activation("relu"))
    shaped = shaped_mlp(width, depth, activation=ShapedReLU(c_plus, c_minus))
    number = counts(samples, network_samples)
    tasks: dict[str, Task] = {}
    for name, arch, views in (("unshaped", unshaped, ("network", "chain")), ("shaped", shaped, tuple(number))):
        for view in views:
            tasks[f"{name} {view}"] = partial(
                observe, view, arch, two, number[view], seed, ["rho12"], record=records, **_steps(view, steps)
            )
    tasks["two tokens"] = partial(_two_tokens, correlation, c_plus - c_minus, depth / width, samples, steps, seed)
    for name, phi in ACTIVATIONS.items():
        arch = shaped_mlp(width, depth, activation=ShapedSmooth(phi, a))
        for view in ("chain", "sde"):
            tasks[f"{name} {view}"] = partial(
                _norms, view, arch, one, norm_samples, seed, record=records, **_steps(view, steps)
            )
    done = pieces(tasks)
    out: dict[str, Any] = {"rho two tokens": ("sample_chain", done["two tokens"]["rho"])}
    for key in ("unshaped network", "unshaped chain", "shaped network", "shaped chain", "shaped sde"):
        rho = done[key]["rho12"]
        out[f"rho {key}"] = (f"sample_{key.split()[1]}", rho[:, -1])
        out[f"path {key}"] = (("path", f"layer_{key.split()[1]}"), rho[:paths])
    for view in ("chain", "sde"):
        found = [done[f"{name} {view}"] for name in ACTIVATIONS]
        out[f"norm {view}"] = (("activation", "quantile", f"layer_{view}"), [f["quantiles"] for f in found])
        out[f"exploded {view}"] = (("activation", "bound"), [f["exploded"] for f in found])
    coords: dict[str, Any] = {f"layer_{view}": done[f"shaped {view}"]["depth"] for view in number}
    coords |= {"activation": list(ACTIVATIONS), "quantile": list(LEVELS), "bound": list(BOUNDS)}
    return xr.Dataset(out, coords=coords, attrs={"time": depth / width, "width": width})


def _steps(view: str, steps: int) -> dict[str, int]:
    return {"steps": steps} if view == "sde" else {}


def _norms(view: str, arch: Architecture, v0: Floats, samples: int, seed: int, **options: Any) -> Arrays:
    """Quantiles of the norm through depth, and the share of paths that exploded (those that stopped included)."""
    found = observe(view, arch, v0, samples, seed, ["V11"], **options)
    norm = found["V11"]
    exploded = share((norm > WINDOW[1]).any(axis=1) | (found["stopped"] <= arch.depth))
    return {
        "quantiles": np.quantile(norm, LEVELS, axis=0),
        "exploded": exploded.to_array(),
        "depth": found["depth"],
    }


def _two_tokens(correlation: float, bend: float, time: float, samples: int, steps: int, seed: int) -> Arrays:
    """Draws at `time` of the two-token SDE [NC], by Euler steps of z = artanh ρ, whose noise is additive.

    Itô: dz = [ν(ρ)/(1 − ρ²) + ρ/2] dt + dB.
    """
    rng = np.random.default_rng([seed, 2])
    z, h = np.full(samples, np.arctanh(correlation)), time / steps
    for _ in range(steps):
        rho = np.tanh(z)
        nu = bend**2 / (2 * np.pi) * (np.sqrt(1 - rho**2) - rho * np.arccos(rho))
        z = z + h * (nu * np.cosh(z) ** 2 + rho / 2) + np.sqrt(h) * rng.standard_normal(samples)
    return {"rho": np.tanh(z)}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians of ρ, the distance of the two-token SDE, and the shares of exploded paths."""
    rho = {key: data[f"rho {key}"] for key in ("unshaped network", "unshaped chain", "shaped network", "shaped chain")}
    numbers = {f"median ρ, {key}": median(draws) for key, draws in rho.items()}
    numbers["median ρ, shaped SDE"] = median(data["rho shaped sde"])
    numbers["KS distance of ρ, two-token SDE to SDE"] = distance(data["rho two tokens"], data["rho shaped sde"])
    for view in ("chain", "sde"):
        for name in ACTIVATIONS:
            numbers[f"exploded, {name}, {LABELS[view]}"] = from_array(data[f"exploded {view}"].sel(activation=name))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot paths of ρ above, laws below; on the right norms and exploded paths by activation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.4), layout="constrained")
    axes = figure.subplots(2, 3)
    for column, name, views in ((0, "unshaped", ("network", "chain")), (1, "shaped", ("network", "chain", "sde"))):
        top, bottom = axes[:, column]
        for view in ("network", "sde"):
            if view in views:
                layers, paths = data[f"layer_{view}"].to_numpy(), data[f"path {name} {view}"].to_numpy()
                top.plot(layers, paths.T, color=COLOURS[view], linewidth=0.8, alpha=0.7)
                top.plot([], [], color=COLOURS[view], label=LABELS[view])
        top.set(xlabel="layer", ylabel="correlation ρ of two tokens", ylim=(-1.03, 1.03))
        top.set_title(f"{name} ReLU: sample paths", loc="left")
        densities(bottom, {view: data[f"rho {name} {view}"].to_numpy() for view in views})
        bottom.set_xlabel("correlation ρ at the last layer")
        bottom.set_title(f"{name} ReLU: law", loc="left")
        legend(top, loc="lower right")
    _two_token_density(axes[1, 1], data["rho two tokens"].to_numpy(), data["rho shaped chain"].to_numpy())
    for panel in axes[1, :2]:
        legend(panel, loc="upper left")
    top, bottom = axes[:, 2]
    for index, (name, colour) in enumerate(zip(ACTIVATIONS, SERIES, strict=False)):
        layers = data["layer_chain"].to_numpy()
        band(top, layers, data["norm chain"].sel(activation=name).to_numpy(), colour, name)
        for offset, view in ((-0.12, "chain"), (0.12, "sde")):
            value, low, high = data[f"exploded {view}"].sel(activation=name).to_numpy()
            label = None if index else LABELS[view]
            size = [[value - low], [high - value]]
            bottom.errorbar(index + offset, value, size, fmt="o", color=COLOURS[view], capsize=3, label=label)
    top.set(xlabel="layer", ylabel="norm of one token, V₁₁", yscale="log")
    top.set_title("smooth activations: median, 5–95 %", loc="left")
    legend(top)
    bottom.set_xticks(range(len(ACTIVATIONS)), [name.replace(", ", "\n") for name in ACTIVATIONS])
    bottom.set(ylabel=f"share of paths above {WINDOW[1]:g}", ylim=(-0.01, None), xlim=(-0.5, len(ACTIVATIONS) - 0.5))
    bottom.set_title("explosion, with 95 % bars", loc="left")
    legend(bottom, loc="upper left")
    return figure


def _two_token_density(axes: Any, rho: Floats, reference: Floats) -> None:
    low, high = np.quantile(reference, (0.01, 0.99))
    edges = np.linspace(low, high, 32)
    density = np.histogram(rho, edges)[0] / (len(rho) * np.diff(edges))
    axes.stairs(density, edges, color=SERIES[0], linestyle=":", linewidth=2, label="two-token SDE of ρ")
