"""The layer of a multilayer perceptron, without a skip connection."""

import math

import numpy as np

from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from ..activations import AnyActivation
from ..definition import definition
from .base import Layer, linear_diffusion, linear_noise


@definition
class Dense(Layer):
    """Layer X' = √c σ(X W/√n), c = 1/E σ(g)² [NC; theory §2 and §3, step 6].

    The state X is the output of the activation, times √c. So V = X Xᵀ/n is Φ = (c/n) σ(z) σ(z)ᵀ of [NC]: the covariance
    of the next pre-activations z' = X W/√n given this layer.

    ```python
    layer = st.Dense(st.ShapedReLU(c_plus=0.0, c_minus=-1.0))
    st.Architecture(64, 16, (layer,))
    ```

    **Arguments:**

    - `activation`: σ, shaped or plain.
    """

    activation: AnyActivation

    def check(self, n: int) -> None:
        self.activation.check(n)

    def hidden_width_of(self, n: int) -> int:
        return n

    def _gain(self, n: int) -> float:
        """Return √c."""
        return 1 / math.sqrt(self.activation.second_moment(n))

    def network_step(self, x: Array, draws: Draws) -> Array:
        n = x.shape[-1]
        return x.dtype.type(self._gain(n)) * self.activation.value(draws.linear(x, n), n)

    def chain_step(self, factor: Array, n: int, draws: Draws, lead: int) -> Array:
        tokens = linalg.rows(factor, lead)
        k = linalg.column_count(tokens)
        if self.activation.linear_slope(n) is not None and not lead:
            return linalg.product(tokens, draws.bartlett(k, n)) / math.sqrt(n)
        gain = self._gain(n)
        units = (self.activation.value(linalg.product(tokens, g), n) for g in draws.normal_chunks(k, n))
        if lead:  # in the coordinates of the network, which these are, the leading row is (1, …, 1)
            units = (linalg.vstack(np.full_like(linalg.rows(block, 0, 1), 1 / gain), block) for block in units)
        return gain / math.sqrt(n) * linalg.factor_of_sum(units)

    def limit_rate(self) -> float:
        return self.activation.limit_rate()

    def limit_obstacle(self) -> str | None:
        return self.activation.limit_obstacle()

    def limit_step(self, factor: Array, h: float, n: int, draws: Draws) -> Array:
        kernel = self.activation.limit_kernel(factor, h)
        return linalg.product(kernel, draws.bartlett(linalg.column_count(kernel), 1 / h)) * math.sqrt(h)

    def drift(self, v: Array, n: int) -> Array:
        return self.activation.drift(v)

    def diffusion(self, v: Array, n: int) -> Array:
        return linear_diffusion(v)

    def noise(self, factor: Array, n: int, draws: Draws) -> Array:
        return linear_noise(factor, 1.0, draws)
