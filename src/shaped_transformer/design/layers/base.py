"""The contract of layers and of the branches inside residual layers.

Arrays are batches of matrices: X (samples, m, n) in the network, factors (samples, m, k) in the chain and the limit.
`n` is the width of the network throughout. A layer never loops over depth, and draws only through `Draws`. A part
without a proportional limit says so in `limit_obstacle` and leaves the rules of the limit out.
"""

from abc import ABC, abstractmethod

import numpy as np

from ...errors import NoProportionalLimit
from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from ..definition import Definition


class Part(Definition, ABC):
    """What layers and branches have in common."""

    def check(self, n: int) -> None:
        """Raise `DefinitionError` if the part does not fit a network of width n."""
        return

    def check_tokens(self, tokens: int) -> None:
        """Raise `InputError` if the part does not fit this number of tokens."""
        return

    def largest_weight(self, n: int) -> int:
        """Return the number of columns of the largest weight matrix with n rows: what one sample needs of memory."""
        return n

    def smallest_inner_width(self, n: int) -> int:
        """Return the smallest width inside the part whose Wishart fluctuations survive in the limit."""
        return n

    def hidden_width_of(self, n: int) -> int:
        """Return how many hidden units the chain must draw per token, 0 if none."""
        return 0

    def limit_rate(self) -> float:
        """Return how fast the part's drift relaxes V in the limit, per unit of time, 0 if it needs no small steps."""
        return 0.0

    @abstractmethod
    def limit_obstacle(self) -> str | None:
        """Return why the part has no proportional limit, or `None` if it has one."""

    def drift(self, v: Array, n: int) -> Array:
        """Return the part's b(V), (…, m, m) (theory §4)."""
        raise NoProportionalLimit(self.limit_obstacle())

    def diffusion(self, v: Array, n: int) -> Array:
        """Return the part's Σ(V) as a dense array (m, m, m, m), for one V (theory §4)."""
        raise NoProportionalLimit(self.limit_obstacle())

    def noise(self, factor: Array, n: int, draws: Draws) -> Array:
        """Return a symmetric Gaussian matrix with covariance Σ(V), V = factor·factorᵀ, (samples, m, m)."""
        raise NoProportionalLimit(self.limit_obstacle())


class Branch(Part):
    """What a residual layer adds: Z(X), known by five rules. Its V is that of its input.

    `drift` is of K = E[Z Zᵀ/n | branch], `diffusion` and `noise` are of the fluctuations of K times n.
    """

    @abstractmethod
    def network(self, x: Array, draws: Draws) -> Array:
        """Return Z(X), (samples, m, n), with fresh weights."""

    @abstractmethod
    def chain_factor(self, factor: Array, n: int, draws: Draws) -> Array:
        """Return F, F·Fᵀ = K, given a factor of the input's covariance (theory §3, steps 1 to 3)."""

    def limit_factors(self, factor: Array, h: float, share: float, n: int, draws: Draws) -> tuple[Array, Array]:
        """Return what the skip carries on and F, for one step of length h of the Wishart scheme (theory §4).

        `share` is γ², the part of K in the next V.
        """
        raise NoProportionalLimit(self.limit_obstacle())


class Layer(Part):
    """One element of a block: how it moves X, the chain's factor and the limit's factor.

    In the chain the factor may carry one leading row (`lead` = 1): the all-ones vector that LayerNorm needs (theory §3,
    step 5).
    """

    @property
    def needs_mean(self) -> bool:
        """Whether the layer needs the tokens' means, and so the leading row."""
        return False

    @abstractmethod
    def network_step(self, x: Array, draws: Draws) -> Array:
        """Return the next X, (samples, m, n)."""

    @abstractmethod
    def chain_step(self, factor: Array, n: int, draws: Draws, lead: int) -> Array:
        """Return a factor of the next covariance, exactly in law (theory §3)."""

    @abstractmethod
    def limit_step(self, factor: Array, h: float, n: int, draws: Draws) -> Array:
        """Return the factor after one step of length h of the Wishart scheme (theory §4)."""


def linear_diffusion(v: Array) -> Array:
    """Return Σ_lin^{αβ,δω} = V^{αδ}V^{βω} + V^{αω}V^{βδ} (theory §4)."""
    return np.einsum("ad,bw->abdw", v, v) + np.einsum("aw,bd->abdw", v, v)


def linear_noise(factor: Array, strength: float, draws: Draws) -> Array:
    """Return √(κ/2)·L(G + Gᵀ)Lᵀ, whose covariance is κ·Σ_lin(L·Lᵀ), κ = `strength` (theory §4)."""
    k = linalg.column_count(factor)
    half = linalg.product_t(linalg.product(factor, draws.normal(k, k)), factor)
    return np.sqrt(strength / 2) * linalg.plus_transpose(half)
