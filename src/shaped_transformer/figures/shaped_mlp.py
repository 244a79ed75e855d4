"""Shaped and unshaped perceptrons: paths and distributions of ρ, norms and explosion by activation [NC].

Without shaping two tokens become parallel. With a ReLU of slopes 1 + c/√n their correlation follows an SDE, which is
also sampled in its own form for two tokens, dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB. With a smooth activation the
norm of one token is stable, neutral or explosive, depending on the sign of β = ¾φ''(0)² + φ'''(0).
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.activations import Activation, ShapedReLU, ShapedSmooth, Smooth
from ..design.architecture import Architecture, shaped_mlp
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, distance, from_array, median, share
from ..inputs import equicorrelated
from ..numerics.arrays import Floats
from ..plotting.plots import (
    RANGES,
    add_legend,
    add_legend_above,
    density_curve,
    density_grid,
    plot_band,
    plot_densities,
)
from ..plotting.style import COLOURS, LABELS, SERIES
from ..views.stopping import WINDOW
from .observed import INTERVALS, QUANTILES, draw_observables, samples_by_view
from .pieces import Arrays, PieceRunner, Task
from .settings import Correlation, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def bent(x: Floats) -> Floats:
    """Return a softplus through the origin with slope 1: φ'' = ½, φ''' = 0, β = 3/16 > 0."""
    return np.asarray(2 * (np.logaddexp(0, x) - np.log(2)))


WEIGHT = (np.sqrt(5.5) - 2) * 8 / 3
"""The root w of (3/16)w² + 2w − 2, at which `balanced` has β = 0."""


def balanced(x: Floats) -> Floats:
    """Return w·`bent` + (1 − w)·tanh with φ'' = w/2, φ''' = −2(1 − w), so that β = (3/16)w² − 2(1 − w) = 0."""
    return np.asarray(WEIGHT * bent(x) + (1 - WEIGHT) * np.tanh(x))


ACTIVATIONS: dict[str, Smooth] = {
    "tanh, β = −2": Smooth(np.tanh, 0.0, -2.0),
    "balanced, β = 0": Smooth(balanced, WEIGHT / 2, -2 * (1 - WEIGHT)),
    "softplus, β = 3/16": Smooth(bent, 0.5, 0.0),
}
"""Smooth activations by title, with one of each sign of β."""
RELU_VIEWS = {"unshaped": ("network", "chain"), "shaped": ("network", "chain", "sde")}
"""Views of the perceptrons with ReLUs; the unshaped one has no SDE."""


def compute(
    runner: PieceRunner,
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
    """Sample perceptrons of Dense layers: two tokens with ReLUs, one token with smooth activations.

    **Arguments:**

    - `c_plus`, `c_minus`: slopes of the shaped ReLU, 1 + c/√n.
    - `a`: scale of the smooth activations; their drift is proportional to a⁻².
    - `paths`: largest number of sample paths in the picture.
    - `norm_samples`: number of samples with smooth activations.
    - `steps`: steps of the SDEs.
    - the others as in the figure `correlation`.

    **Returns:** paths and samples of ρ, unshaped and shaped, by view; by activation, for chain and SDE, quantiles of
    the norm through depth and the share of exploded paths.
    """
    import xarray as xr

    paths = min(paths, samples, network_samples)
    two, one = equicorrelated(2, correlation), np.ones((1, 1))
    unshaped = shaped_mlp(width, depth, activation=Activation("relu"))
    shaped = shaped_mlp(width, depth, activation=ShapedReLU(c_plus, c_minus))
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {}
    for name, arch in (("unshaped", unshaped), ("shaped", shaped)):
        for view in RELU_VIEWS[name]:
            tasks[f"{name} {view}"] = partial(
                draw_observables, view, arch, two, counts[view], seed, ["rho12"], record=records, **_steps(view, steps)
            )
    tasks["two tokens"] = partial(_two_tokens, correlation, c_plus - c_minus, depth / width, samples, steps, seed)
    for name, phi in ACTIVATIONS.items():
        arch = shaped_mlp(width, depth, activation=ShapedSmooth(phi, a))
        for view in ("chain", "sde"):
            tasks[f"{name} {view}"] = partial(
                _norms, view, arch, one, norm_samples, seed, record=records, **_steps(view, steps)
            )
    done = runner.run(tasks)
    out: dict[str, Any] = {"rho two tokens": ("sample_chain", done["two tokens"]["rho"])}
    for name, view in ((name, view) for name, views in RELU_VIEWS.items() for view in views):
        rho = done[f"{name} {view}"]["rho12"]
        out[f"rho {name} {view}"] = (f"sample_{view}", rho[:, -1])
        out[f"path {name} {view}"] = (("path", f"layer_{view}"), rho[:paths])
    for view in ("chain", "sde"):
        norms = [done[f"{name} {view}"] for name in ACTIVATIONS]
        out[f"norm {view}"] = (("activation", "quantile", f"layer_{view}"), [x["quantiles"] for x in norms])
        out[f"exploded {view}"] = (("activation", "bound"), [x["exploded"] for x in norms])
    coords: dict[str, Any] = {f"layer_{view}": done[f"shaped {view}"]["depth"] for view in counts}
    coords |= {"activation": list(ACTIVATIONS)} | QUANTILES | INTERVALS
    return xr.Dataset(out, coords=coords, attrs={"time": depth / width, "width": width})


def _steps(view: str, steps: int) -> dict[str, int]:
    """Return the argument `steps` of a view's `sample`, which only the SDE has."""
    return {"steps": steps} if view == "sde" else {}


def _norms(view: str, arch: Architecture, v0: Floats, samples: int, seed: int, **options: Any) -> Arrays:
    """Return quantiles of the norm through depth, and the share of paths that exploded or were stopped."""
    found = draw_observables(view, arch, v0, samples, seed, ["V11"], **options)
    norm = found["V11"]
    exploded = share((norm > WINDOW[1]).any(axis=1) | (found["stopped"] <= arch.depth))
    return {
        "quantiles": np.quantile(norm, LEVELS, axis=0),
        "exploded": exploded.to_array(),
        "depth": found["depth"],
    }


def _two_tokens(correlation: float, bend: float, time: float, samples: int, steps: int, seed: int) -> Arrays:
    """Sample the SDE of the correlation of two tokens [NC], up to `time`.

    The Euler steps are those of z = artanh ρ, whose noise is additive: dz = [ν(ρ)/(1 − ρ²) + ρ/2] dt + dB (Itô).
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
    keys = [f"{name} {view}" for name in RELU_VIEWS for view in ("network", "chain")]
    numbers = {f"median ρ, {key}": median(data[f"rho {key}"]) for key in keys}
    numbers["median ρ, shaped SDE"] = median(data["rho shaped sde"])
    numbers["KS distance of ρ, two-token SDE to SDE"] = distance(data["rho two tokens"], data["rho shaped sde"])
    for view in ("chain", "sde"):
        for name in ACTIVATIONS:
            numbers[f"exploded, {name}, {LABELS[view]}"] = from_array(data[f"exploded {view}"].sel(activation=name))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot paths (top) and densities (bottom) of ρ with ReLUs; on the right norms and explosion by activation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    for (top, bottom), name in zip(axes.T, RELU_VIEWS, strict=False):
        _plot_correlation(top, bottom, data, name)
    at = density_grid(*RANGES["rho12"])
    density = density_curve(data["rho two tokens"].to_numpy(), at, RANGES["rho12"])
    axes[1, 1].plot(at, density, color="black", linestyle=":", linewidth=2, label="two-token SDE of ρ")
    _plot_norms(axes[0, 2], axes[1, 2], data)
    add_legend_above(figure, axes[1, 1], title="distributions of real networks with 95 % bars")
    return figure


def _plot_correlation(top: "Axes", bottom: "Axes", data: "xarray.Dataset", name: str) -> None:
    """Plot sample paths of ρ through depth, and its densities at the last layer, of one perceptron with ReLUs."""
    for view in ("network", "sde"):
        if view in RELU_VIEWS[name]:
            layers, paths = data[f"layer_{view}"].to_numpy(), data[f"path {name} {view}"].to_numpy()
            top.plot(layers, paths.T, color=COLOURS[view], linewidth=0.8, alpha=0.7)
    top.set(xlabel="layer", ylabel="correlation ρ of two tokens", ylim=(-1.03, 1.03))
    top.set_title(f"{name} ReLU: paths", loc="left")
    samples = {view: data[f"rho {name} {view}"].to_numpy() for view in RELU_VIEWS[name]}
    plot_densities(bottom, samples, bounds=RANGES["rho12"])
    bottom.set_xlabel("correlation ρ at the last layer")
    bottom.set_title(f"{name} ReLU: distribution", loc="left")


def _plot_norms(top: "Axes", bottom: "Axes", data: "xarray.Dataset") -> None:
    """Plot the norm of one token through depth, and the share of exploded paths, by smooth activation."""
    layers = data["layer_chain"].to_numpy()
    for index, (name, colour) in enumerate(zip(ACTIVATIONS, SERIES, strict=False)):
        plot_band(top, layers, data["norm chain"].sel(activation=name).to_numpy(), colour, name)
        for offset, view in ((-0.12, "chain"), (0.12, "sde")):
            value, low, high = data[f"exploded {view}"].sel(activation=name).to_numpy()
            size = [[value - low], [high - value]]
            bottom.errorbar(index + offset, value, size, fmt="o", color=COLOURS[view], capsize=3)
    top.set(xlabel="layer", ylabel="norm of one token, V₁₁", yscale="log")
    top.set_title("smooth activations, 5–95 %", loc="left")
    add_legend(top, loc="upper left")
    bottom.set_xticks(range(len(ACTIVATIONS)), [name.replace(", ", "\n") for name in ACTIVATIONS])
    bottom.set(ylabel=f"share of paths above {WINDOW[1]:g}", ylim=(-0.01, None), xlim=(-0.5, len(ACTIVATIONS) - 0.5))
    bottom.set_title("explosion, with 95 % bars", loc="left")
