"""The limit of infinite width at fixed depth: the outputs of networks are a Gaussian process (theory §5 and §9).

Layers act on V and, where LayerNorm is used, on the tokens' means. V' = c·E[σ(u)σ(v)] for `Dense`, where
(u, v) is Gaussian with covariance V, and λ²V + γ²c·E[σ(g·u)σ(g·v)] for a residual MLP. Activations keep the slopes of
the architecture's width.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..design.activations import Activation, AnyActivation, ShapedReLU
from ..design.architecture import Architecture
from ..design.layers import MLP, Dense, Layer, Residual
from ..errors import InputError
from ..numerics.arrays import Floats

NODES = 64
"""Nodes of the quadrature in each direction, for activations without a closed form."""

CHUNK = 2**20
"""Numbers in an array of the quadrature: 8 megabytes."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of pairs of inputs, and first moments over the units.

    **Attributes:**

    - `own`, `other`: V of the inputs of each side with themselves, (N, 1) and (1, M), or shapes that broadcast alike.
    - `cross`: V of pairs, (N, M).
    - `own_mean`, `other_mean`: mean over the units, of the shapes of `own` and `other`.
    """

    own: Floats
    other: Floats
    cross: Floats
    own_mean: Floats
    other_mean: Floats


def covariance(architecture: Architecture, x: Floats, y: Floats | None = None) -> Floats:
    """Return the covariance of outputs at inputs x and y as the width grows, (N, M).

    **Arguments:**

    - `architecture`: layers that treat inputs one by one.
    - `x`, `y`: inputs, (N, p) and (M, p); `None` (the default) means x.

    **Raises:** `InputError` for other layers.
    """
    other = x if y is None else y
    p = x.shape[1]
    squares = (np.sum(x**2, axis=1) / p)[:, None], (np.sum(other**2, axis=1) / p)[None, :]
    cross = _through(architecture, Moments(*squares, x @ other.T / p, *map(np.zeros_like, squares))).cross
    return (cross + cross.T) / 2 if y is None else cross


def variance(architecture: Architecture, x: Floats) -> Floats:
    """Return the variances of the outputs at inputs x, (N,)."""
    squares = np.sum(x**2, axis=1) / x.shape[1]
    zeros = np.zeros_like(squares)
    return _through(architecture, Moments(squares, squares, squares, zeros, zeros)).own


def _through(architecture: Architecture, moments: Moments) -> Moments:
    """Return the moments after all layers."""
    for _ in range(architecture.depth):
        for layer in architecture.block:
            moments = _after(layer, moments, architecture.width)
    return moments


def _after(layer: Layer, moments: Moments, n: int) -> Moments:
    """Return the moments after a layer."""
    if isinstance(layer, Dense):
        gain = 1 / layer.activation.second_moment(n)
        own, other, cross = (gain * found for found in _expected(layer.activation, moments, n))
        means = [math.sqrt(gain) * _mean(layer.activation, square, n) for square in (moments.own, moments.other)]
        return Moments(own, other, cross, *means)
    if isinstance(layer, Residual) and isinstance(layer.branch, MLP):
        return _after_residual(layer, layer.branch, moments, n)
    raise InputError(
        f"the kernel of {type(layer).__name__} at infinite width is not implemented: use Dense, or MLP in Residual"
    )


def _after_residual(layer: Residual, branch: MLP, moments: Moments, n: int) -> Moments:
    """Return the moments after a residual MLP, whose output weights leave no mean over the units."""
    inner = _normalised(layer, moments) if layer.norm == "pre" else moments
    share = layer.scale**2 / (branch.activation.second_moment(n, branch.input_gain) if branch.normalise else 1.0)
    branches = _expected(branch.activation, inner, n, branch.input_gain)
    skip = layer.skip_scale
    own, other, cross = (
        skip**2 * before + share * added
        for before, added in zip((moments.own, moments.other, moments.cross), branches, strict=True)
    )
    out = Moments(own, other, cross, skip * moments.own_mean, skip * moments.other_mean)
    return _normalised(layer, out) if layer.norm == "post" else out


def _normalised(layer: Residual, moments: Moments) -> Moments:
    """Return the moments after RMSNorm or LayerNorm."""
    if layer.normaliser == "layer":
        moments = replace(
            moments,
            own=moments.own - moments.own_mean**2,
            other=moments.other - moments.other_mean**2,
            cross=moments.cross - moments.own_mean * moments.other_mean,
            own_mean=np.zeros_like(moments.own_mean),
            other_mean=np.zeros_like(moments.other_mean),
        )
    own, other = (np.divide(1, np.sqrt(v), out=np.zeros_like(v), where=v > 0) for v in (moments.own, moments.other))
    return Moments(
        moments.own * own**2,
        moments.other * other**2,
        moments.cross * own * other,
        moments.own_mean * own,
        moments.other_mean * other,
    )


def _expected(activation: AnyActivation, moments: Moments, n: int, gain: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Return E[σ(g·u)σ(g·v)] for the inputs of each side with themselves, and for the pairs."""
    own, other = gain * np.sqrt(np.maximum(moments.own, 0)), gain * np.sqrt(np.maximum(moments.other, 0))
    scale = own * other
    rho = np.clip(np.divide(gain**2 * moments.cross, scale, out=np.zeros_like(scale), where=scale > 0), -1, 1)
    bent = _bent(activation, n)
    if bent is not None:
        straight, bend = bent
        angle = (2 / np.pi) * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))
        size = straight**2 + bend**2
        return size * own**2, size * other**2, (straight**2 * rho + bend**2 * angle) * scale
    return (
        _by_quadrature(activation, n, own, own, np.ones_like(own)),
        _by_quadrature(activation, n, other, other, np.ones_like(other)),
        _by_quadrature(activation, n, own, other, rho),
    )


def _bent(activation: AnyActivation, n: int) -> tuple[float, float] | None:
    """Return A and B if σ(x) = A·x + B·|x|, whose moments have a closed form (arc-cosine kernels), else `None`."""
    if activation == Activation("relu"):
        return 0.5, 0.5
    if isinstance(activation, ShapedReLU):
        plus, minus = activation.slopes(n)
        return (plus + minus) / 2, (plus - minus) / 2
    slope = activation.linear_slope(n)
    return None if slope is None else (slope, 0.0)


def _mean(activation: AnyActivation, square: Floats, n: int) -> Floats:
    """Return E σ(u), u of this variance."""
    sd = np.sqrt(np.maximum(square, 0))
    bent = _bent(activation, n)
    if bent is not None:
        return bent[1] * math.sqrt(2 / math.pi) * sd
    nodes, weights = _rule()
    return np.asarray(activation.value(sd[..., None] * nodes, n) @ weights)


def _by_quadrature(activation: AnyActivation, n: int, first: Floats, second: Floats, rho: Floats) -> Floats:
    """Return E[σ(u)σ(v)] for Gaussian u, v with these standard deviations and correlations, by Gauss–Hermite rules."""
    arrays = np.broadcast_arrays(first, second, rho)
    first, second, rho = (a.ravel() for a in arrays)
    nodes, weights = _rule()
    out = np.empty(len(rho))
    step = max(1, CHUNK // NODES**2)
    for start in range(0, len(out), step):
        some = slice(start, start + step)
        r = rho[some, None, None]
        u = activation.value(first[some, None] * nodes, n)
        v = activation.value(second[some, None, None] * (r * nodes[:, None] + np.sqrt(1 - r**2) * nodes), n)
        out[some] = np.einsum("si,i,sij,j->s", u, weights, v, weights, optimize=True)
    return out.reshape(arrays[0].shape)


def _rule() -> tuple[Floats, Floats]:
    """Return nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / math.sqrt(2 * math.pi)
