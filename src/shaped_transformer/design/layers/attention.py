"""The attention branches: shaped attention (centred at the identity, at a high temperature) and softmax attention."""

import math
from abc import abstractmethod
from functools import lru_cache

import numpy as np
from pydantic import model_validator

from ...errors import DefinitionError
from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from .. import masks
from ..definition import Number, PositiveFloat, PositiveInt, definition
from ..heads import heads_problem
from .base import Branch, linear_diffusion, linear_noise

Gain = Number | tuple[Number, ...]


class Attention(Branch):
    """Base class of attention: heads, widths, projection and mask. Subclasses give `temperature` and `matrix`."""

    heads: PositiveInt
    key_width: PositiveInt | None
    value_width: PositiveInt | None
    output_projection: bool | None
    mask: masks.Mask
    logit_gain: float

    @abstractmethod
    def temperature(self, n: int) -> float:
        """Return τ, by which the logits are divided (theory §2)."""

    @abstractmethod
    def matrix(self, products: Array, scale: float, head: int) -> Array:
        """Return the attention matrix A of a head, (samples, m, m), with logits Y = scale·products."""

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def projects(self) -> bool:
        """Whether there is an output projection W^O."""
        return self.heads > 1 if self.output_projection is None else self.output_projection

    def key_width_of(self, n: int) -> int:
        """Return the key width n_k of one head."""
        return self.key_width or n // self.heads

    def value_width_of(self, n: int) -> int:
        """Return the value width n_v of one head."""
        return self.value_width or n // self.heads

    def check(self, n: int) -> None:
        if problem := heads_problem(self.heads, n, self.key_width, self.value_width):
            raise DefinitionError(problem)
        if not self.projects and self.value_width_of(n) != n:
            raise DefinitionError(
                f"without an output projection, value_width must be the width {n} (got {self.value_width_of(n)}): "
                "leave value_width out, use several heads, or give the attention output_projection=True"
            )
        if not abs(self.logit_gain) < 1e100 * self.temperature(n):
            raise DefinitionError(
                f"a temperature of {self.temperature(n):g} is so small that logits overflow: use tau0 and logit_gain "
                "of order 1"
            )

    def check_tokens(self, tokens: int) -> None:
        masks.allowed(self.mask, tokens)

    def largest_weight(self, n: int) -> int:
        return max(n, self.heads * self.key_width_of(n), self.heads * self.value_width_of(n))

    def smallest_inner_width(self, n: int) -> int:
        return self.value_width_of(n) if self.projects else n

    def network(self, x: Array, draws: Draws) -> Array:
        n = x.shape[-1]
        queries, keys = (self._split(draws.linear(x, self.heads * self.key_width_of(n))) for _ in range(2))
        values = self._split(draws.linear(x, self.heads * self.value_width_of(n)))
        scale = self.logit_gain / self.temperature(n)
        mixed = np.stack(
            [
                linalg.product(self.matrix(linalg.product_t(queries[h], keys[h]), scale, h), values[h])
                for h in range(self.heads)
            ],
            axis=2,
        )
        merged = mixed.reshape(*x.shape[:-1], -1)
        return draws.linear(merged, n) if self.projects else merged

    def _split(self, x: Array) -> Array:
        """Return (samples, m, heads·w) as (heads, samples, m, w)."""
        return np.moveaxis(x.reshape(*x.shape[:-1], self.heads, -1), 2, 0)

    def chain_factor(self, factor: Array, n: int, draws: Draws) -> Array:
        k, scale = linalg.column_count(factor), self.logit_gain / self.temperature(n)
        heads = []
        for head in range(self.heads):
            queries = linalg.product(factor, draws.bartlett(k, self.key_width_of(n)))
            keys = linalg.product(factor, draws.normal(k, min(k, self.key_width_of(n))))
            heads.append(linalg.product(self.matrix(linalg.product_t(queries, keys), scale, head), factor))
        return self._merged_heads(heads, self.value_width_of(n), draws)

    def _merged_heads(self, heads: list[Array], freedom: float, draws: Draws) -> Array:
        """Return a factor of K from the factors A_h·B of the heads (theory §3, step 2); `freedom` is n_v."""
        if not self.projects:
            return heads[0]
        parts = [linalg.product(head, draws.bartlett(linalg.column_count(head), freedom)) for head in heads]
        return linalg.shorten(linalg.hstack(*parts)) / math.sqrt(self.heads * freedom)

    def _projection_strength(self, n: int) -> float:
        """Return n/(H n_v), the fluctuation that value and output weights add if there is a projection, else 0."""
        return n / (self.heads * self.value_width_of(n)) if self.projects else 0.0


@definition
class ShapedAttention(Attention):
    """Shaped attention: A = a·I + softmax(Y) − b·U, Y = g·(X̃W^Q/√n)(X̃W^K/√n)ᵀ/(τ0√(n n_k)) [ST; theory §2].

    U = softmax(0) under the same mask, so that A is the identity at infinite temperature. Heads, masks and the output
    projection are extensions of this project; one head without projection is the paper's form.

    ```python
    attention = st.ShapedAttention(tau0=1.0, heads=4, mask="causal")
    st.Architecture(64, 16, (st.Residual(attention, scale=0.5),))
    ```

    **Arguments:**

    - `tau0`: temperature constant τ0 of order 1, default 1. A smaller τ0 gives larger logits: the attention terms of
      the limit are proportional to τ0⁻².
    - `heads`: H, default 1.
    - `key_width`, `value_width`: n_k and n_v of one head; `None` (the default) is n // heads.
    - `output_projection`: whether there is a W^O; `None` (the default) means if heads > 1, which need it.
    - `mask`: `"full"` (the default), `"causal"`, or an (m, m) array of 0 and 1, whose row α marks the tokens to which
      token α may attend.
    - `identity_gain`, `uniform_gain`: a and b, one number or one per head, default 1, their value at initialisation
      [ST, trainable form].
    - `logit_gain`: g, default 1.

    **Raises:** `DefinitionError` for values out of range, or several heads without an output projection.
    """

    tau0: PositiveFloat = 1.0
    heads: PositiveInt = 1
    key_width: PositiveInt | None = None
    value_width: PositiveInt | None = None
    output_projection: bool | None = None
    mask: masks.Mask = "full"
    identity_gain: Gain = 1.0
    uniform_gain: Gain = 1.0
    logit_gain: Number = 1.0

    @model_validator(mode="after")
    def _fits_together(self) -> "ShapedAttention":
        _heads_need_projection(self)
        for name, gain in (("identity_gain", self.identity_gain), ("uniform_gain", self.uniform_gain)):
            if isinstance(gain, tuple) and len(gain) != self.heads:
                raise DefinitionError(
                    f"{name} must be one number or one for each of {self.heads} heads (got {len(gain)})"
                )
        return self

    def temperature(self, n: int) -> float:
        return self.tau0 * math.sqrt(n * self.key_width_of(n))

    def matrix(self, products: Array, scale: float, head: int) -> Array:
        tokens = products.shape[-1]
        fixed = _fixed_matrix(self, tokens, head)
        return linalg.masked_softmax(products, scale, masks.allowed(self.mask, tokens), fixed)

    def limit_obstacle(self) -> str | None:
        for name, gain in (("identity_gain", self.identity_gain), ("uniform_gain", self.uniform_gain)):
            if any(_gain_of_head(gain, head) != 1 for head in range(self.heads)):
                return f"{name} = {gain} moves the attention matrix away from the identity by order 1; it must be 1"
        return None

    def _strength(self) -> float:
        """Return g/τ0, the inverse temperature."""
        return self.logit_gain / self.tau0

    def _first_order(self, factor: Array, draws: Draws) -> Array:
        """Return √n times the logits; with each row centred under the mask they are M of theory §4."""
        k = linalg.column_count(factor)
        return linalg.product_t(linalg.product(self._strength() * factor, draws.normal(k, k)), factor)

    def _second_order(self, v: Array) -> Array:
        """Return the matrix whose rows, centred, are R: n times the mean second-order part of softmax(Y) − U (§4)."""
        spread = linalg.diagonal(v)[..., None, :] - 2 * linalg.product(masks.uniform(self.mask, v.shape[-1]), v)
        return linalg.scale_rows(self._strength() ** 2 / 2 * linalg.diagonal(v), spread)

    def limit_factors(self, factor: Array, h: float, share: float, n: int, draws: Draws) -> tuple[Array, Array]:
        uniform = masks.uniform(self.mask, factor.shape[-2])
        mean = h * self._second_order(linalg.gram(factor))
        heads = []
        for _ in range(self.heads):
            attention = linalg.centre(math.sqrt(h) * self._first_order(factor, draws) + mean, uniform)
            heads.append(factor + linalg.product(attention, factor))
        return factor, self._merged_heads(heads, self.value_width_of(n) / n / h, draws)

    def drift(self, v: Array, n: int) -> Array:
        p = masks.uniform(self.mask, v.shape[-1])
        row_means = linalg.product(p, v)
        squares = linalg.plus_transpose(linalg.product_t(row_means**2, p))
        spread = linalg.product_t(linalg.product(p, v**2), p) - squares + linalg.product_t(row_means, p) ** 2
        mean_change = linalg.product(linalg.centre(self._second_order(v), p), v)
        return self._strength() ** 2 * v * spread + linalg.plus_transpose(mean_change)

    def diffusion(self, v: Array, n: int) -> Array:
        p = masks.uniform(self.mask, v.shape[-1])
        means = p @ v
        centred = v[None, None] - means[:, None, None, :] - means[None, :, :, None] + (means @ p.T)[:, :, None, None]
        first = np.einsum("ab,av,bk,abvk->abvk", v, p, p, centred)  # S1^{aν,bκ} as [a, b, ν, κ]
        half = np.einsum("adnk,nb,kw->abdw", first, v, v)
        half = half + half.swapaxes(0, 1)
        attention = self._strength() ** 2 / self.heads * (half + half.swapaxes(2, 3))
        return self._projection_strength(n) * linear_diffusion(v) + attention

    def noise(self, factor: Array, n: int, draws: Draws) -> Array:
        fluctuation = linalg.centre(self._first_order(factor, draws), masks.uniform(self.mask, factor.shape[-2]))
        mixed = linalg.product(fluctuation, linalg.gram(factor)) / math.sqrt(self.heads)
        total = linalg.plus_transpose(mixed)
        strength = self._projection_strength(n)
        return total + linear_noise(factor, strength, draws) if strength else total


@definition
class SoftmaxAttention(Attention):
    """Softmax attention: A = softmax(Y), Y = g·(X̃W^Q/√n)(X̃W^K/√n)ᵀ/√n_k [theory §2].

    ```python
    attention = st.SoftmaxAttention(heads=4, mask="causal")
    st.Architecture(64, 4, (st.Residual(attention, scale=1.0, skip=1.0, norm="pre"),))
    ```

    **Arguments:** `heads`, `key_width`, `value_width`, `output_projection`, `mask` and `logit_gain` as in
    `ShapedAttention`.

    **Raises:** `DefinitionError` for values out of range, or several heads without an output projection.
    """

    heads: PositiveInt = 1
    key_width: PositiveInt | None = None
    value_width: PositiveInt | None = None
    output_projection: bool | None = None
    mask: masks.Mask = "full"
    logit_gain: Number = 1.0

    @model_validator(mode="after")
    def _fits_together(self) -> "SoftmaxAttention":
        _heads_need_projection(self)
        return self

    def temperature(self, n: int) -> float:
        return math.sqrt(self.key_width_of(n))

    def matrix(self, products: Array, scale: float, head: int) -> Array:
        tokens = products.shape[-1]
        return linalg.masked_softmax(products, scale, masks.allowed(self.mask, tokens), np.zeros((tokens, tokens)))

    def limit_obstacle(self) -> str | None:
        return "SoftmaxAttention mixes the tokens by order 1 in every layer, however wide; use ShapedAttention"


def _heads_need_projection(attention: Attention) -> None:
    """Raise `DefinitionError` for several heads without an output projection."""
    if attention.heads > 1 and not attention.projects:
        raise DefinitionError(f"{attention.heads} heads need an output projection: leave out output_projection=False")


@lru_cache(maxsize=64)
def _fixed_matrix(attention: ShapedAttention, tokens: int, head: int) -> Array:
    """Return a·I − b·U, the part of the attention matrix that does not depend on the input."""
    a, b = _gain_of_head(attention.identity_gain, head), _gain_of_head(attention.uniform_gain, head)
    return a * np.eye(tokens) - b * masks.uniform(attention.mask, tokens)


def _gain_of_head(gain: Gain, head: int) -> float:
    """Return a head's gain, of one for each head or one for all."""
    return gain[head] if isinstance(gain, tuple) else gain
