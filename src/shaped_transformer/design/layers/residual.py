"""The skip connection around a branch, with or without normalisation."""

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ...errors import DefinitionError
from ...numerics import linalg
from ...numerics.arrays import Array
from ...numerics.draws import Draws
from ..definition import Number, definition
from .base import Branch, Layer, linear_diffusion, linear_noise

Norm = Literal["none", "pre", "post"]
"""Where a residual layer normalises: nowhere, before its branch, or after the sum."""

Normaliser = Literal["rms", "layer"]
"""RMSNorm or LayerNorm."""


@definition
class Residual(Layer):
    """Layer X' = λX + γ Z(X̃) [ST; theory §2].

    ```python
    st.Residual(st.ShapedAttention(), scale=0.6).skip_scale  # 0.8
    ```

    **Arguments:**

    - `branch`: Z, such as `ShapedAttention` or `MLP`.
    - `scale`: γ > 0; at most 1 unless `skip` is given.
    - `skip`: λ; `None` (the default) means √(1 − γ²), which keeps the mean covariance of a linear network. With 0 there
      is no skip connection.
    - `norm`: `"none"` (the default, as in the paper), `"pre"` (X̃ is the normalised X) or `"post"` (X' is normalised).
    - `normaliser`: `"rms"` (RMSNorm, the default) or `"layer"` (LayerNorm without affine parameters).

    **Raises:** `DefinitionError` for values out of range.
    """

    branch: Branch
    scale: Number
    skip: Annotated[Number, Field(ge=0)] | None = None
    norm: Norm = "none"
    normaliser: Normaliser = "rms"

    @model_validator(mode="after")
    def _scale_in_range(self) -> "Residual":
        if self.scale <= 0 or (self.skip is None and self.scale > 1):
            raise DefinitionError(
                f"scale (gamma) must lie in (0, 1], got {self.scale:g}: the skip is sqrt(1 - scale²) unless skip= is "
                "given"
            )
        return self

    @property
    def skip_scale(self) -> float:
        """λ."""
        return math.sqrt(1 - self.scale**2) if self.skip is None else self.skip

    @property
    def needs_mean(self) -> bool:
        return self.norm != "none" and self.normaliser == "layer"

    @property
    def mixes_tokens(self) -> bool:
        return self.branch.mixes_tokens

    def check(self, n: int) -> None:
        if self.needs_mean and n < 2:
            raise DefinitionError("LayerNorm at width 1 returns only zeros: use a width of at least 2")
        self.branch.check(n)

    def check_tokens(self, tokens: int) -> None:
        self.branch.check_tokens(tokens)

    def largest_weight(self, n: int) -> int:
        return self.branch.largest_weight(n)

    def smallest_inner_width(self, n: int) -> int:
        return self.branch.smallest_inner_width(n)

    def hidden_width_of(self, n: int) -> int:
        return self.branch.hidden_width_of(n)

    def network_step(self, x: Array, draws: Draws) -> Array:
        inner = self._normalised(x) if self.norm == "pre" else x
        out = x.dtype.type(self.skip_scale) * x + x.dtype.type(self.scale) * self.branch.network(inner, draws)
        return self._normalised(out) if self.norm == "post" else out

    def _normalised(self, x: Array) -> Array:
        """Return X after RMSNorm or LayerNorm."""
        centred = x - np.mean(x, axis=-1, keepdims=True) if self.normaliser == "layer" else x
        return linalg.unit_rows(centred, math.sqrt(x.shape[-1]))

    def chain_step(self, factor: Array, n: int, draws: Draws, lead: int) -> Array:
        inner = self._normalised_rows(factor, lead) if self.norm == "pre" else linalg.rows(factor, lead)
        out = self._with_skip(linalg.rows(factor, lead), self.branch.chain_factor(inner, n, draws), n, draws)
        if lead:
            out = linalg.vstack(linalg.rows(factor, 0, lead), out)
        out = linalg.lq(out)
        if self.norm == "post":
            tokens = self._normalised_rows(out, lead)
            out = linalg.vstack(linalg.rows(out, 0, lead), tokens) if lead else tokens
        return out

    def _with_skip(self, factor: Array, branch: Array, n: float, draws: Draws) -> Array:
        """Return [F₁ F₂] of theory §3, step 4."""
        outputs = draws.wide_normal(linalg.column_count(branch), n, linalg.column_count(factor))
        return linalg.skip_and_product(self.skip_scale, factor, self.scale / math.sqrt(n), branch, outputs)

    def _normalised_rows(self, factor: Array, lead: int) -> Array:
        """Return the token rows after RMSNorm or LayerNorm; row 0 of a factor with a lead is the all-ones vector."""
        tokens = linalg.rows(factor, lead)
        if self.normaliser == "layer":
            ones = linalg.rows(factor, 0, 1)
            tokens = tokens - linalg.scale_rows(linalg.row_products(tokens, ones), ones)
        return linalg.unit_rows(tokens)

    def limit_rate(self) -> float:
        return self.scale**2 * self.branch.limit_rate()

    def limit_obstacle(self) -> str | None:
        if self.norm != "none":
            return f"{self.norm}-normalisation acts at order 1 in every layer; use norm='none'"
        total = self.skip_scale**2 + self.scale**2
        if not math.isclose(total, 1, rel_tol=1e-9):
            return (
                f"skip² + scale² = {total:g}, so the covariance grows by this factor in every layer; the sum must be 1"
            )
        return self.branch.limit_obstacle()

    def limit_step(self, factor: Array, h: float, n: int, draws: Draws) -> Array:
        factors = self.branch.limit_factors(factor, h, self.scale**2, n, draws)
        return linalg.lq(self._with_skip(*factors, 1 / h, draws))

    def drift(self, v: Array, n: int) -> Array:
        return self.scale**2 * self.branch.drift(v, n)

    @property
    def _linear_strength(self) -> float:
        """Coefficient of Σ_lin that comes from the output weights: 2λ²γ² + γ⁴ (theory §4)."""
        return 2 * self.skip_scale**2 * self.scale**2 + self.scale**4

    def diffusion(self, v: Array, n: int) -> Array:
        branch = self.scale**4 * self.branch.diffusion(v, n)
        return self._linear_strength * linear_diffusion(v) + branch

    def noise(self, factor: Array, n: int, draws: Draws) -> Array:
        branch = self.scale**2 * self.branch.noise(factor, n, draws)
        return linear_noise(factor, self._linear_strength, draws) + branch
