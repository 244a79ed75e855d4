"""The residual branch with one hidden layer: Z = √(c/n_h) σ(g·X W₁/√n) W₂."""

import math

from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from ..activations import AnyActivation
from ..definition import PositiveFloat, PositiveInt, definition
from .base import Branch, linear_diffusion, linear_noise


@definition
class MLP(Branch):
    """Branch Z = √(c/n_h) σ(g·X̃ W₁/√n) W₂ [ST for n_h = n; theory §2].

    ```python
    mlp = st.MLP(st.ShapedReLU(c_plus=0.0, c_minus=-1.0), hidden_width=256)
    st.Architecture(64, 16, (st.Residual(mlp, scale=0.5),))
    ```

    **Arguments:**

    - `activation`: σ, shaped or plain.
    - `hidden_width`: n_h; `None` (the default) is the network's width n, as in the paper.
    - `input_gain`: g, default 1. Weights with standard deviation s instead of 1/√n correspond to g = s√n.
    - `normalise`: if true (the default, as in the paper), c = 1/E σ(g·z)², z ~ N(0, 1), which keeps unit tokens at unit
      variance on average; if false, c = 1.
    """

    activation: AnyActivation
    hidden_width: PositiveInt | None = None
    input_gain: PositiveFloat = 1.0
    normalise: bool = True

    def hidden_width_of(self, n: int) -> int:
        return self.hidden_width or n

    def check(self, n: int) -> None:
        self.activation.check(n, self.input_gain)

    def largest_weight(self, n: int) -> int:
        return max(n, self.hidden_width_of(n))

    def smallest_inner_width(self, n: int) -> int:
        return self.hidden_width_of(n)

    def _gain(self, n: float) -> float:
        """Return √c at width n."""
        return 1 / math.sqrt(self.activation.second_moment(n, self.input_gain)) if self.normalise else 1.0

    def _hidden(self, z: Array, n: int) -> Array:
        """Return σ(g·z)."""
        return self.activation.value(z if self.input_gain == 1 else z.dtype.type(self.input_gain) * z, n)

    def network(self, x: Array, draws: Draws) -> Array:
        n = x.shape[-1]
        gain = x.dtype.type(self._gain(n))
        return gain * draws.linear(self._hidden(draws.linear(x, self.hidden_width_of(n)), n), n)

    def chain_factor(self, factor: Array, n: int, draws: Draws) -> Array:
        hidden, k = self.hidden_width_of(n), linalg.column_count(factor)
        slope = self.activation.linear_slope(n)
        if slope is not None:
            scale = self._gain(n) / math.sqrt(hidden) * slope * self.input_gain
            return scale * linalg.product(factor, draws.bartlett(k, hidden))
        units = (self._hidden(linalg.product(factor, g), n) for g in draws.normal_chunks(k, hidden))
        return self._gain(n) / math.sqrt(hidden) * linalg.factor_of_sum(units)

    def limit_rate(self) -> float:
        return self.activation.with_input_gain(self.input_gain).limit_rate()

    def limit_obstacle(self) -> str | None:
        if not self.normalise:
            return "MLP(normalise=False) multiplies the branch by E σ(g)² instead of 1: use normalise=True"
        return self.activation.limit_obstacle()

    def limit_factors(self, factor: Array, h: float, share: float, n: int, draws: Draws) -> tuple[Array, Array]:
        """Return factors of the kernel, which follows the layer's drift, and of its Wishart draw, as if linear."""
        moved = self.activation.with_input_gain(self.input_gain).limit_kernel(factor, share * h)
        freedom = self.hidden_width_of(n) / n / h
        return moved, linalg.product(moved, draws.bartlett(linalg.column_count(moved), freedom)) / math.sqrt(freedom)

    def drift(self, v: Array, n: int) -> Array:
        return self.activation.with_input_gain(self.input_gain).drift(v)

    def diffusion(self, v: Array, n: int) -> Array:
        return n / self.hidden_width_of(n) * linear_diffusion(v)

    def noise(self, factor: Array, n: int, draws: Draws) -> Array:
        return linear_noise(factor, n / self.hidden_width_of(n), draws)
