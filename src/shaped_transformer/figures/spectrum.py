"""Eigenvalues of V through depth with many tokens: deep linear and shaped networks, against closed forms [DL].

In the linear network the logarithms of the eigenvalues spread linearly in depth (Newman's exponents of products of
Gaussian matrices), and their mean is known exactly (theory §5).
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..design import architecture as presets
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, mean, median
from ..inputs import equicorrelated
from ..numerics.arrays import Floats
from ..plotting.plots import add_legend_above, label_line_ends, plot_band
from .observed import QUANTILES, draw_observables
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


TITLES = {"linear": "deep linear network", "shaped": "shaped Transformer"}
SHOWN = 6
"""Number of eigenvalues in the picture, evenly spaced from the largest to the smallest."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: AtLeastTwo,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: AtLeastTwo,
    samples: Samples,
    records: AtLeastTwo,
    seed: int,
) -> "xarray.Dataset":
    """Sample both networks by the exact chain, from orthonormal tokens.

    **Arguments:**

    - `tokens`: number of tokens, at most `width`.
    - the others as in the figure `correlation`.

    **Returns:** quantiles of the logarithms of the eigenvalues through depth; in each sample their mean over the
    spectrum at the last layer (`mean log`) and their slopes over the second half of the depth (`slope`); the closed
    forms of the linear network (`exact mean`, `exponent`).
    """
    import xarray as xr

    v0 = equicorrelated(tokens, 0.0)
    designs = {
        "linear": presets.deep_linear(width, depth),
        "shaped": presets.shaped_transformer(width, depth, gamma=gamma, tau0=tau0),
    }
    tasks: dict[str, Task] = {
        name: partial(draw_observables, "chain", arch, v0, samples, seed, ["eigenvalues"], record=records)
        for name, arch in designs.items()
    }
    done = runner.run(tasks)
    smallest = np.finfo(np.float64).tiny
    logs = {name: np.log(np.maximum(done[name]["eigenvalues"], smallest)) for name in designs}
    layer = done["linear"]["depth"]
    half = len(layer) // 2
    slopes = [(logs[name][:, -1] - logs[name][:, half]) / (layer[-1] - layer[half]) for name in designs]
    exponent = newman(width, tokens)
    return xr.Dataset(
        {
            "log eigenvalue": (
                ("design", "quantile", "layer", "eigenvalue"),
                [np.quantile(x, LEVELS, axis=0) for x in logs.values()],
            ),
            "mean log": (("design", "sample"), [x[:, -1].mean(axis=1) for x in logs.values()]),
            "slope": (("design", "sample", "eigenvalue"), slopes),
            "exponent": ("eigenvalue", exponent),
            "exact mean": ("layer", layer * exponent.mean()),
        },
        coords=QUANTILES | {"design": list(designs), "layer": layer, "eigenvalue": np.arange(1, tokens + 1)},
    )


def newman(width: int, tokens: int) -> Floats:
    """Return the exponents of a deep linear network, lim log λ_i / d = ψ((n − i + 1)/2) + log(2/n), largest first.

    At any depth, their mean is exactly the mean of log λ / d from orthonormal tokens (theory §5). Each one holds in the
    limit of large depth (Newman 1986, for products of Gaussian matrices).

    **Arguments:**

    - `width`: width n.
    - `tokens`: number of tokens m, at most n.

    **Returns:** (m,).
    """
    from scipy.special import digamma

    return np.asarray(digamma((width - np.arange(tokens)) / 2) + np.log(2 / width))


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return mean and slopes of the linear network over their closed forms, and the spread of both networks."""
    numbers = {}
    ratio = data["mean log"].sel(design="linear") / float(data["exact mean"][-1])
    numbers["linear: mean log eigenvalue over the closed form"] = mean(ratio)
    slopes = data["slope"].to_numpy()
    spread = slopes[..., 0] - slopes[..., -1]
    exponent = data["exponent"].to_numpy()
    numbers["linear: spread of the spectrum per layer over Newman's"] = mean(spread[0] / (exponent[0] - exponent[-1]))
    for design, values in zip(data["design"].values, spread, strict=True):
        title = f"{TITLES[str(design)]}: decades per layer, largest over smallest"
        numbers[title] = median(values / np.log(10))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot eigenvalues through depth, with the closed forms of the linear network."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    layer, count = data["layer"].to_numpy(), data.sizes["eigenvalue"]
    shown = np.unique(np.linspace(1, count, SHOWN).round().astype(int))
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(shown)))
    labels: list[dict[str, tuple[float, str]]] = []
    for panel, design in zip(axes, data["design"].values, strict=True):
        ends = {}
        for index, shade in zip(shown, colours, strict=True):
            quantiles = np.exp(data["log eigenvalue"].sel(design=design, eigenvalue=index).to_numpy())
            colour = mpl.colors.to_hex(shade)
            plot_band(panel, layer, quantiles, colour)
            ends[f"λ{index}"] = (float(quantiles[1, -1]), colour)
        labels.append(ends)
        panel.set(yscale="log", xlabel="layer")
        panel.set_title(TITLES[str(design)], loc="left")
    half = len(layer) // 2
    start = data["log eigenvalue"].sel(design="linear", quantile=0.5).isel(layer=half)
    for position, index in enumerate(shown):
        line = float(start.sel(eigenvalue=index)) + float(data["exponent"].sel(eigenvalue=index)) * (
            layer - layer[half]
        )
        label = None if position else "Newman's exponents"
        axes[0].plot(layer[half:], np.exp(line[half:]), ":", color="black", label=label)
    axes[0].plot(layer, np.exp(data["exact mean"]), "--", color="black", label="geometric mean, closed form")
    axes[0].set_ylabel("eigenvalues of V")
    for panel, ends in zip(axes, labels, strict=True):
        label_line_ends(panel, layer[-1], ends, gap=0.05)
    add_legend_above(figure, axes[0])
    return figure
