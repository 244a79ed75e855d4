"""The lower row of the figure `gradients`: very wide Transformers, and the law of perceptrons' gradients."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.activations import Activation, ShapedReLU
from ..design.architecture import Architecture, shaped_mlp
from ..estimates import LEVELS, Estimate, from_array, normal
from ..numerics.arrays import Floats
from ..plotting.plots import add_legend, plot_band
from ..plotting.style import DESIGNS, SERIES
from ..views.sampling import initial_factor
from .pieces import Arrays, Task

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

PERCEPTRONS = {"relu": "ReLU", "linear": "linear", "shaped": "shaped ReLU"}
"""Perceptrons with their titles."""
RATES = {"relu": 5.0, "linear": 2.0}
"""Of the log-normal law: the log of a squared norm is N(−rate·λ/2, rate·λ) at depth/width λ (theory §8)."""
COLOUR = {"relu": SERIES[0], "linear": SERIES[1], "shaped": DESIGNS["shaped"]}


def tasks(
    designs: dict[str, Architecture],
    tokens: Floats,
    networks: int,
    perceptron_width: int,
    perceptron_depths: Sequence[int],
    samples: int,
    real: int,
    seed: int,
) -> dict[str, Task]:
    """Return the pieces.

    **Arguments:**

    - `designs`: wide Transformers by name.
    - `tokens`: their V0.
    - `networks`: number of networks of each.
    - `perceptron_width`, `perceptron_depths`: of the perceptrons.
    - `samples`, `real`: number of perceptrons of each depth, without weights and real.
    - `seed`: of all draws.
    """
    out: dict[str, Task] = {
        f"wide {name} {i}": partial(_wide, arch, tokens, [seed, i])
        for name, arch in designs.items()
        for i in range(networks)
    }
    for name in PERCEPTRONS:
        for depth in perceptron_depths:
            grow = partial(_growth, name, perceptron_width, depth)
            out[f"perceptron {name} {depth}"] = partial(grow, samples, seed)
            out[f"perceptron {name} {depth} real"] = partial(grow, real, seed, weights=True)
    return out


def _wide(architecture: Architecture, v0: Floats, seed: list[int]) -> Arrays:
    """Return the norms of the stream's gradient before each block and after the last, of one network."""
    from ..ntk import stream_norms

    width, rng = architecture.width, np.random.default_rng(seed)
    factor = initial_factor(v0, width)
    frame = np.linalg.qr(rng.standard_normal((width, factor.shape[-1])))[0].T
    drawn = stream_norms(architecture, (width**0.5 * factor @ frame)[None], 1, int(rng.integers(2**31)), workers=1)
    return {"backward": np.sqrt(drawn.backward[0, :, 0])}


def _growth(name: str, width: int, depth: int, samples: int, seed: int, *, weights: bool = False) -> Arrays:
    """Return quantiles of the log growth of the gradient's squared norm, and the dependence of both growths."""
    from ..ntk import Perceptron, stream_norms

    network: Architecture | Perceptron
    if name == "shaped":
        network = shaped_mlp(width, depth, activation=ShapedReLU(0.0, -1.0))
    elif name == "relu":
        network = Perceptron(width, depth)
    else:
        network = Perceptron(width, depth, Activation("identity"), weight_variance=1.0)
    drawn = stream_norms(network, np.ones((1, width)), samples, seed, weights=weights)
    forward = drawn.forward[:, -1, 0] / drawn.forward[:, 0, 0]
    backward = drawn.backward[:, 0, 0] / drawn.backward[:, -1, 0]
    return {"quantiles": np.quantile(np.log(backward), LEVELS), "dependence": _dependence(forward, backward)}


def _dependence(first: Floats, second: Floats) -> Floats:
    """Return E FB/(E F·E B) as an estimate, with the error of the ratio."""
    a, b, both = first.mean(), second.mean(), (first * second).mean()
    ratio = both / (a * b)
    influence = ratio * (first * second / both - first / a - second / b)
    return normal(float(ratio), float(influence.std() / np.sqrt(len(first)))).to_array()


def variables(
    done: dict[str, Arrays], designs: Sequence[str], networks: int, perceptron_depths: Sequence[int]
) -> dict[str, Any]:
    """Return the variables of the dataset from the pieces."""
    kinds, ways = list(PERCEPTRONS), ("", " real")
    pairs = list(product(kinds, perceptron_depths))

    def by_kind(quantity: str) -> Floats:
        found = ((done[f"perceptron {name} {depth}{way}"][quantity] for way in ways) for name, depth in pairs)
        return np.reshape([list(one) for one in found], (len(kinds), len(perceptron_depths), len(ways), -1))

    return {
        "wide": (
            ("design", "wide network", "layer"),
            [[done[f"wide {name} {i}"]["backward"] for i in range(networks)] for name in designs],
        ),
        "log growth": (("perceptron", "perceptron depth", "way", "quantile"), by_kind("quantiles")),
        "dependence": (("perceptron", "perceptron depth", "way", "bound"), by_kind("dependence")),
    }


def coordinates(perceptron_depths: Sequence[int]) -> dict[str, Any]:
    """Return the coordinates of the variables."""
    return {
        "perceptron": list(PERCEPTRONS),
        "perceptron depth": list(perceptron_depths),
        "way": ["without weights", "real"],
        "quantile": list(LEVELS),
        "bound": ["value", "low", "high"],
    }


def expected_dependence(name: str, width: int, depth: Floats) -> Floats:
    """Return E FB/(E F·E B) of a perceptron: [(1 + r/M)^L + 2(1 − 1/M)^L]/3 (theory §8)."""
    return np.asarray(((1 + RATES[name] / width) ** depth + 2 * (1 - 1 / width) ** depth) / 3)


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the growth of the gradient in wide networks, and the dependence in the deepest perceptrons."""
    from ..estimates import exact, median

    width, numbers = int(data.attrs["perceptron width"]), {}
    for design in ("shaped", "pre-norm"):
        norms = data["wide"].sel(design=design).to_numpy()
        title = f"gradient of the stream, first over last block, width {data.attrs['wide width']:,}, {design}"
        numbers[title] = median(norms[:, 0] / norms[:, -1])
    depth = int(data["perceptron depth"][-1])
    for name, title in PERCEPTRONS.items():
        found = data["dependence"].sel({"perceptron": name, "way": "without weights"}).isel({"perceptron depth": -1})
        where = f"{title} perceptron, depth/width {depth / width:.2g}"
        numbers[f"E FB / (E F E B), {where}"] = from_array(found)
        if name in RATES:
            numbers[f"the same in closed form, {where}"] = exact(
                float(expected_dependence(name, width, np.array(depth)))
            )
    return numbers


def plot(axes: Sequence["Axes"], data: "xarray.Dataset", titles: dict[str, str]) -> None:
    """Plot wide Transformers, the spread of perceptrons' gradients, and how it depends on that of the stream."""
    left, middle, right = axes
    _plot_wide(left, data, titles)
    width = int(data.attrs["perceptron width"])
    times = data["perceptron depth"].to_numpy() / width
    fine = np.linspace(0, times.max() * 1.05, 100)
    shift = {"relu": -0.012, "linear": 0.0, "shaped": 0.012}
    for name, title in PERCEPTRONS.items():
        at = times + shift[name] * times.max()
        for way, marker in (("without weights", "o"), ("real", "x")):
            one, real = data.sel({"perceptron": name, "way": way}), way == "real"
            style: dict[str, Any] = {"fmt": marker, "color": COLOUR[name], "markersize": 4, "capsize": 2}
            style |= {"alpha": 0.6 if real else 1.0, "label": None if real else title}
            low, mid, high = one["log growth"].to_numpy().T
            middle.errorbar(at, mid, [mid - low, high - mid], **style)
            value, low, high = one["dependence"].to_numpy().T
            right.errorbar(at, value, [value - low, high - value], **style)
        if name in RATES:
            rate = RATES[name]
            for z in (-1.645, 0.0, 1.645):
                middle.plot(fine, -rate * fine / 2 + z * np.sqrt(rate * fine), color=COLOUR[name], linewidth=0.9)
            right.plot(fine, expected_dependence(name, width, fine * width), color=COLOUR[name], linewidth=0.9)
    middle.set(xlabel="depth / width", ylabel="log growth of the squared gradient")
    middle.set_title("perceptrons: 5, 50, 95 %; lines: log-normal law", loc="left", fontsize=9.5)
    right.set(xlabel="depth / width", ylabel="E FB / (E F · E B)")
    right.set_title("growth of stream F and of gradient B; lines: theory", loc="left", fontsize=9.5)
    middle.plot([], [], "x", color="black", alpha=0.6, markersize=4, label="real networks")
    add_legend(middle, loc="lower left", fontsize=8)


def _plot_wide(panel: "Axes", data: "xarray.Dataset", titles: dict[str, str]) -> None:
    """Plot the norm of the stream's gradient through depth, over that after the last block."""
    layers = np.arange(data.sizes["layer"], dtype=np.float64)
    for name in titles:
        norms = data["wide"].sel(design=name).to_numpy()
        plot_band(panel, layers, np.quantile(norms / norms[:, -1:], (0, 0.5, 1), axis=0), DESIGNS[name], titles[name])
    panel.set(yscale="log", xlabel="block", ylabel="norm of the gradient of the stream")
    panel.set_title(f"width {data.attrs['wide width']:,}, without weights", loc="left", fontsize=9.5)
