"""Attention branches as modules: shaped, and vanilla softmax as its baseline."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..checks import check_counts
from ..errors import InputError
from .functional import shaped_attention
from .fused import attend
from .masks import additive, both, check_mask, up_to
from .positions import rotate
from .shaping import Mode, Shaping


class Remembers(Protocol):
    """What an attention layer asks of a cache."""

    length: Any

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add new keys and values; return all of them, and the running means of the values if known."""
        ...


class MultiHead(nn.Module):
    """What both kinds share: projections, heads, positions, cache. The kinds differ in `scale` and `mix`.

    Weights are N(0, 1/fan-in): the theory's unit Gaussians with their scales absorbed (theory §2).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        key_width: int | None = None,
        value_width: int | None = None,
        kv_heads: int | None = None,
        output_projection: bool | None = None,
        causal: bool = False,
        mask: Tensor | None = None,
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        check_counts(width=width, heads=heads, kv_heads=kv_heads)
        if width % heads and (key_width is None or value_width is None):
            raise InputError(
                f"{heads} heads do not divide the width {width}: choose a divisor, or give key_width and value_width"
            )
        if heads % kv_heads:
            raise InputError(f"kv_heads must divide the {heads} heads (got {kv_heads})")
        self.width, self.heads, self.kv_heads, self.causal, self.rotary = width, heads, kv_heads, causal, rotary
        self.key_width, self.value_width = key_width or width // heads, value_width or width // heads
        if rotary and self.key_width % 2:
            raise InputError(f"rotary positions need an even key width per head (got {self.key_width})")
        projects = heads > 1 if output_projection is None else output_projection
        if not projects and heads * self.value_width != width:
            raise InputError(
                f"{heads} heads of value width {self.value_width} need output_projection=True at width {width}"
            )
        self.dropout = dropout
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor | None
        self.query = linear(width, heads * self.key_width)
        self.key = linear(width, kv_heads * self.key_width)
        self.value = linear(width, kv_heads * self.value_width)
        self.output = BranchOutput(heads * self.value_width, width) if projects else nn.Identity()

    @property
    def scale(self) -> float:
        """What products of queries and keys are multiplied with."""
        raise NotImplementedError

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Apply the attention matrix to the values, (batch, H, T, v)."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        attn_mask: Tensor | None = None,
        is_causal: bool | None = None,
        positions: Tensor | None = None,
        query_positions: Tensor | None = None,
        cache: Remembers | None = None,
    ) -> Tensor:
        """Return the branch's output.

        **Arguments:**

        - `x`: (batch, T, n).
        - `attn_mask`: boolean (true: may look) or additive, broadcastable to (batch, H, T, keys), where keys are all
          those seen so far; combined with causality and the module's own mask.
        - `is_causal`: overrides the module's own, for masks that hold causality already.
        - `positions`: of the tokens, for rotary positions, (T,) or (batch, T); by default they count from 0, or from
          the cache's length.
        - `query_positions`: which key is each token's own, where a cache holds more keys than tokens.
        - `cache`: earlier keys and values, to which these are added.

        **Raises:** `InputError` for masks that do not fit.
        """
        causal, length = self.causal if is_causal is None else is_causal, x.shape[-2]
        query, key = self._split(self.query(x), self.heads), self._split(self.key(x), self.kv_heads)
        value = self._split(self.value(x), self.kv_heads)
        here = torch.arange(length, device=x.device) + (0 if cache is None else cache.length)
        if self.rotary:
            at = here if positions is None else positions
            query, key = rotate(query, at), rotate(key, at)
        mean = None
        if cache is not None:
            key, value, mean = cache.update(key, value)
        keys = key.shape[-2]
        check_mask(attn_mask, (*query.shape[:-1], keys))
        attn_mask = both(attn_mask, self._own_mask(None if cache is None else here, query, keys))
        if query_positions is not None or attn_mask is not None or not causal:
            mean = None  # it is over all keys up to each token
        if attn_mask is not None and causal:
            attn_mask, causal = (
                both(attn_mask, up_to(here if query_positions is None else query_positions, keys)),
                False,
            )
        elif causal and length == 1 and query_positions is None:
            causal = False  # the last of all keys looks at all of them
        if query_positions is None and keys != length:
            query_positions = here
        mixed = self.mix(
            query,
            key,
            value,
            attn_mask=attn_mask,
            is_causal=causal,
            query_positions=query_positions,
            value_mean=mean,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(-2, -3).flatten(-2))

    def _own_mask(self, at: Tensor | None, query: Tensor, keys: int) -> Tensor | None:
        """The module's own mask, or with a cache its rows for the tokens at these places and its columns so far."""
        if self.mask is None or at is None:
            check_mask(self.mask, (*query.shape[:-1], keys), "mask")
            return self.mask
        if self.mask.shape[-1] < keys:
            raise InputError(f"mask is for {self.mask.shape[-1]} tokens (got {keys}): give a larger one")
        return self.mask.index_select(-2, at)[..., :keys]

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, -1).transpose(-2, -3)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kv_heads={self.kv_heads}, causal={self.causal}, rotary={self.rotary}"


class ShapedAttention(MultiHead):
    """Shaped attention: A = a·I + softmax(Q Kᵀ/τ) − b·U, τ = τ0·√(n·n_k) [ST; theory §2].

    **Arguments:**

    - `width`: n. `heads`: H, default 1.
    - `tau0`: temperature constant, default 1. The products of queries and keys are scaled by 1/(τ0√(n·n_k)).
    - `shaping`, `recover_steps`: how the gains change in training (`Shaping`); `identity_gain`, `uniform_gain`: their
      values at initialisation, default 1.
    - `logit_gain`: g, by which the logits are multiplied, default 1.
    - further, by name: `key_width`, `value_width` per head (default n // H), `kv_heads` (default H; fewer are shared),
      `output_projection` (default: exactly when H > 1), `causal` (default no) or a boolean `mask` (T, T), `rotary`
      positions (default no), `dropout` on the softmax.

    **Raises:** `InputError` for widths and heads that do not fit.
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        tau0: float = 1.0,
        shaping: Mode = "fixed",
        recover_steps: int | None = None,
        identity_gain: float | tuple[float, ...] = 1.0,
        uniform_gain: float | tuple[float, ...] = 1.0,
        logit_gain: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(width, heads, **options)
        if tau0 <= 0:
            raise InputError(f"tau0 must be positive (got {tau0:g})")
        self.tau0, self.logit_gain = tau0, logit_gain
        self.shaping = Shaping(heads, shaping, recover_steps, identity_gain, uniform_gain)

    @property
    def scale(self) -> float:
        return self.logit_gain / (self.tau0 * math.sqrt(self.width * self.key_width))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        a, b = self.shaping.gains()
        return shaped_attention(query, key, value, scale=self.scale, identity_gain=a, uniform_gain=b, **options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau0={self.tau0:g}"


class SoftmaxAttention(MultiHead):
    """Vanilla attention: A = softmax(g·Q Kᵀ/√n_k) (theory §2).

    **Arguments:** as in `ShapedAttention`, without its shaping.
    """

    def __init__(self, width: int, heads: int = 1, *, logit_gain: float = 1.0, **options: Any) -> None:
        super().__init__(width, heads, **options)
        self.logit_gain = logit_gain

    @property
    def scale(self) -> float:
        return self.logit_gain / math.sqrt(self.key_width)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        mask, causal = additive(options["attn_mask"], query.dtype), options["is_causal"]
        if causal and options["query_positions"] is not None:
            mask, causal = up_to(options["query_positions"], key.shape[-2]), False
        return attend(query, key, value, mask, scale=self.scale, is_causal=causal, dropout_p=options["dropout_p"])


class BranchOutput(nn.Linear):
    """The last map of a branch, without bias: N(0, 1/fan-in) here, but some initialisations scale it down."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        initialise(self)


def linear(fan_in: int, fan_out: int) -> nn.Linear:
    """Return a linear map without bias whose weights are N(0, 1/fan-in)."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    initialise(layer)
    return layer


def initialise(layer: nn.Linear) -> None:
    """Draw the weights of a linear map afresh, N(0, 1/fan-in)."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
