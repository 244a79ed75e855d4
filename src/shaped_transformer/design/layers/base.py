"""The base classes of layers, and of the branches inside residual layers: the methods that the three views call.

Arrays are batches of matrices: X (samples, m, n) in the network, factors (samples, m, k) in the chain and the limit.
`n` is always the width of the network. A layer never loops over depth, and draws random numbers only through `Draws`. A
part without a proportional limit gives the reason in `limit_obstacle` and need not define the methods of the limit.
"""

from abc import ABC, abstractmethod

import numpy as np

from ...errors import NoProportionalLimit
from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from ..definition import Definition


class Part(Definition, ABC):
    """Base class of layers and branches."""

    def check(self, n: int) -> None:
        """Raise `DefinitionError` if the part does not fit a network of width n."""
        return

    def check_tokens(self, tokens: int) -> None:
        """Raise `InputError` if the part does not fit this number of tokens."""
        return

    def largest_weight(self, n: int) -> int:
        """Return the number of columns of the largest weight matrix with n rows, which bounds a sample's memory."""
        return n

    def smallest_inner_width(self, n: int) -> int:
        """Return the smallest width inside the part whose Wishart fluctuations survive in the limit."""
        return n

    def hidden_width_of(self, n: int) -> int:
        """Return the number of hidden units that the chain draws per token, 0 if none."""
        return 0

    @property
    def mixes_tokens(self) -> bool:
        """Whether the part's output at one token depends on the others, as in attention."""
        return False

    def limit_rate(self) -> float:
        """Return the rate at which the drift relaxes V in the limit, per unit of time; 0 if it needs no small steps."""
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
    """The branch of a residual layer: Z(X). In its methods, V is the covariance of its input.

    `drift` is the drift of K = E[Z Zᵀ/n | branch]; `diffusion` and `noise` are of the fluctuations of K, times n.
    """

    @abstractmethod
    def network(self, x: Array, draws: Draws) -> Array:
        """Return Z(X), (samples, m, n), with fresh weights."""

    @abstractmethod
    def chain_factor(self, factor: Array, n: int, draws: Draws) -> Array:
        """Return a factor F of K = F·Fᵀ, given a factor of the input's covariance (theory §3, steps 1 to 3)."""

    def limit_factors(self, factor: Array, h: float, share: float, n: int, draws: Draws) -> tuple[Array, Array]:
        """Return the factor that the skip passes on, and F, for a step of length h of the Wishart scheme (theory §4).

        `share` is γ², the weight of K in the next V.
        """
        raise NoProportionalLimit(self.limit_obstacle())


class Layer(Part):
    """One element of a block: how it changes X, the chain's factor and the limit's factor.

    In the chain the factor may have one leading row (`lead` = 1): the all-ones vector, which LayerNorm needs (theory
    §3, step 5).
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
        """Return a factor of the next covariance, with the exact distribution (theory §3)."""

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
