"""Gradients through depth at initialisation: shaped, normalised and plain softmax Transformers, as PyTorch modules.

Once the tokens are parallel, softmax attention no longer depends on the logits, and the query weights stop learning. In
the shaped Transformer, the gradients of stream and weights keep the same order of magnitude without normalisation.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design import architecture as presets
from ..design.architecture import Architecture
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import Estimate, median
from ..inputs import Covariance, equicorrelated
from ..plotting.plots import add_legend_above, plot_band
from ..plotting.style import DESIGNS
from ..views.sampling import initial_factor
from . import backward
from .pieces import Arrays, PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

TITLES = {
    "shaped": "shaped Transformer, no norm",
    "pre-norm": "pre-norm",
    "post-norm": "post-norm",
    "skipless": "skipless softmax, no norm",
}
QUANTITIES = {"stream": "gradient of the stream", "query": "gradient of the query weights"}
SMALLEST = 1e-30
"""Smallest gradient that the picture shows: smaller ones are rounding errors of float64."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    heads: PositiveInt,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: AtLeastTwo,
    correlation: Correlation,
    networks: PositiveInt,
    wide_width: PositiveInt,
    wide_depth: PositiveInt,
    wide_networks: PositiveInt,
    perceptron_width: PositiveInt,
    perceptron_depths: PositiveInts,
    samples: Samples,
    network_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Sample networks of each design, and the gradients of a random linear function of their output, in float64.

    Real networks of moderate width give the gradients of weights. Without weights follow very wide ones, and the joint
    law of stream and gradient in perceptrons.

    **Arguments:**

    - `heads`: attention heads of all designs.
    - `networks`: number of networks of each design.
    - `wide_width`, `wide_depth`, `wide_networks`: of the same designs without weights, with one head.
    - `perceptron_width`, `perceptron_depths`: of ReLU, linear and shaped perceptrons.
    - `samples`, `network_samples`: number of perceptrons, without weights and real.
    - the others as in the figure `correlation`.

    **Returns:** Frobenius norms of the gradients, over (design, network, block): `stream`, at the input of each block,
    and `query`, of its query weights. The others are those of `backward.variables`.

    **Raises:** `MissingExtra` if PyTorch is not installed.
    """
    import xarray as xr

    from .. import nn  # noqa: F401 - raises `MissingExtra` before any work

    designs = _designs(width, depth, gamma, tau0, heads)
    v0 = equicorrelated(tokens, correlation)
    tasks: dict[str, Task] = {
        f"{name} {i}": partial(_gradients, arch, v0, seed + i)
        for name, arch in designs.items()
        for i in range(networks)
    }
    wide = _designs(wide_width, wide_depth, gamma, tau0, 1)
    tasks |= backward.tasks(
        wide, v0, wide_networks, perceptron_width, perceptron_depths, samples, network_samples, seed
    )
    done = runner.run(tasks)
    return xr.Dataset(
        backward.variables(done, list(designs), wide_networks, perceptron_depths)
        | {
            quantity: (
                ("design", "network", "block"),
                [[done[f"{name} {i}"][quantity] for i in range(networks)] for name in designs],
            )
            for quantity in QUANTITIES
        },
        coords={"design": list(designs), "block": np.arange(1, depth + 1)} | backward.coordinates(perceptron_depths),
        attrs={"width": width, "wide width": wide_width, "perceptron width": perceptron_width},
    )


def _designs(width: int, depth: int, gamma: float, tau0: float, heads: int) -> dict[str, Architecture]:
    """Return the networks by name."""
    shared: dict[str, Any] = {"heads": heads}
    return {
        "shaped": presets.shaped_transformer(width, depth, gamma=gamma, tau0=tau0, **shared),
        "pre-norm": presets.pre_norm_transformer(width, depth, **shared),
        "post-norm": presets.post_norm_transformer(width, depth, **shared),
        "skipless": presets.skipless_transformer(width, depth, **shared),
    }


def _gradients(architecture: Architecture, v0: Covariance, seed: int) -> Arrays:
    """Return the norms of the gradients in one network, by block."""
    import torch

    from .. import nn

    torch.manual_seed(seed)
    network = nn.from_architecture(architecture).double()
    rng = np.random.default_rng(seed)
    factor = initial_factor(v0, architecture.width)
    frame = np.linalg.qr(rng.standard_normal((architecture.width, factor.shape[-1])))[0].T
    x = torch.as_tensor(architecture.width**0.5 * factor @ frame)[None].requires_grad_()
    stream = [x]
    for block in network:
        stream.append(block(stream[-1]))
    queries = [p for name, p in network.named_parameters() if name.endswith("branch.query.weight")]
    direction = torch.as_tensor(rng.standard_normal(stream[-1].shape))
    gradients = torch.autograd.grad(stream[-1], [*stream[:-1], *queries], direction)
    norms = np.array([float(gradient.norm()) for gradient in gradients])
    return {"stream": norms[: len(network)], "query": norms[len(network) :]}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the ratio of the largest to the smallest gradient of each design, and the decay without skips."""
    numbers = {}
    for design in ("shaped", "pre-norm"):
        for quantity in QUANTITIES:
            norms = data[quantity].sel(design=design).to_numpy()
            ranges = norms.max(axis=1) / norms.min(axis=1)
            numbers[f"largest over smallest, {QUANTITIES[quantity]}, {TITLES[design]}"] = median(ranges)
    query = data["query"].sel(design="skipless").to_numpy()
    block = min(5, query.shape[1])
    decay = query.max(axis=1) / np.maximum(query[:, block - 1], SMALLEST)
    numbers[f"largest over that of block {block}, {QUANTITIES['query']}, {TITLES['skipless']}"] = median(decay)
    return numbers | backward.headline(data)


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot medians and ranges of the gradients' norms against the block; below, wide networks and perceptrons."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    axes = upper.subplots(1, 2)
    blocks = data["block"].to_numpy()
    for panel, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        for name, title in TITLES.items():
            norms = np.maximum(data[quantity].sel(design=name).to_numpy(), SMALLEST)
            plot_band(panel, blocks, np.quantile(norms, (0, 0.5, 1), axis=0), DESIGNS[name], title)
        panel.set(yscale="log", xlabel="block", ylabel=f"norm of the {label}")
    add_legend_above(upper, axes[0])
    upper.supxlabel(
        f"real networks of width {data.attrs['width']}: median and range at initialisation", fontsize="small"
    )
    backward.plot(lower.subplots(1, 3), data, TITLES)
    return figure
