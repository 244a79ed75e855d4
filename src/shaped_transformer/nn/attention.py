"""Attention branches as modules: shaped attention, and softmax attention as its baseline."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..checks import check_count, check_counts
from ..design.heads import heads_problem
from ..errors import InputError
from .functional import shaped_attention
from .fused import fused_attention
from .masks import causal_mask, check_mask, combine_masks, kernel_mask
from .positions import rotate
from .shaping import Mode, Shaping


class KeyValueCache(Protocol):
    """Interface of the cache of one attention layer."""

    length: Any
    """Number of tokens in the cache."""

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add new keys and values; return all keys, all values and, if known, the running means of the values."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options that both kinds of attention share; `ShapedAttention` documents them."""

    key_width: int | None = None
    value_width: int | None = None
    kv_heads: int | None = None
    output_projection: bool | None = None
    causal: bool = False
    mask: Tensor | None = None
    rotary: bool = False
    dropout: float = 0.0


class MultiHeadAttention(nn.Module):
    """Base class of attention: projections, heads, positions and cache. Subclasses give `scale` and `mix`.

    Weights are N(0, 1/fan-in): the theory's unit Gaussians with their scales absorbed (theory §2).
    """

    def __init__(self, width: int, heads: int, **options: Any) -> None:
        super().__init__()
        given = HeadOptions(**options)
        kv_heads = heads if given.kv_heads is None else given.kv_heads
        check_counts(width=width, heads=heads, kv_heads=kv_heads)
        for name in ("key_width", "value_width"):
            if (chosen := getattr(given, name)) is not None:
                check_count(chosen, name)
        if problem := heads_problem(heads, width, given.key_width, given.value_width):
            raise InputError(problem)
        if heads % kv_heads:
            raise InputError(f"kv_heads must divide the {heads} heads (got {kv_heads})")
        self.width, self.heads, self.kv_heads = width, heads, kv_heads
        self.causal, self.rotary, self.dropout = given.causal, given.rotary, given.dropout
        self.key_width, self.value_width = given.key_width or width // heads, given.value_width or width // heads
        if self.rotary and self.key_width % 2:
            raise InputError(
                f"rotary positions need an even key width per head (got {self.key_width}): give an even key_width, or "
                "use other positions"
            )
        projects = heads > 1 if given.output_projection is None else given.output_projection
        if not projects and heads * self.value_width != width:
            ways_out = "leave value_width out, or use several heads" if heads == 1 else "or leave value_width out"
            raise InputError(
                f"the value widths do not add up to the width ({heads} of {self.value_width} at width {width}): give "
                f"output_projection=True, {ways_out}"
            )
        self.register_buffer("mask", given.mask, persistent=False)
        self.mask: Tensor | None
        self.query = linear(width, heads * self.key_width)
        self.key = linear(width, kv_heads * self.key_width)
        self.value = linear(width, kv_heads * self.value_width)
        self.output = BranchOutput(heads * self.value_width, width) if projects else nn.Identity()

    @property
    def scale(self) -> float:
        """Factor of the products of queries and keys."""
        raise NotImplementedError

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Return the attention matrix times the values, (batch, H, T, v)."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        attn_mask: Tensor | None = None,
        is_causal: bool | None = None,
        positions: Tensor | None = None,
        query_positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the branch's output.

        **Arguments:**

        - `x`: token vectors, (batch, T, n).
        - `attn_mask`: boolean (true: may attend) or additive, broadcastable to (batch, H, T, keys), where the keys are
          those of all tokens so far. It is combined with causality and the module's own mask. Default no mask.
        - `is_causal`: overrides the module's `causal`, for masks that include causality; default `None`, as built.
        - `positions`: of the tokens, for rotary positions, (T,) or (batch, T). By default they count from 0, or from
          the cache's length.
        - `query_positions`: index of each token's own key, (T,) or (batch, T), where a cache holds more keys than
          tokens; by default the tokens have the last keys.
        - `cache`: earlier keys and values; the new ones are added to it. Default no cache.

        **Returns:** (batch, T, n).

        **Raises:** `InputError` for masks that do not fit.
        """
        causal, length = self.causal if is_causal is None else is_causal, x.shape[-2]
        own_keys = torch.arange(length, device=x.device) + (0 if cache is None else cache.length)
        query, key, value = self._project(x, own_keys if positions is None else positions)
        value_mean = None
        if cache is not None:
            key, value, value_mean = cache.update(key, value)
        keys = key.shape[-2]
        check_mask(attn_mask, (*query.shape[:-1], keys))
        attn_mask = combine_masks(attn_mask, self._own_mask(None if cache is None else own_keys, query, keys))
        if query_positions is not None or attn_mask is not None or not causal:
            value_mean = None  # the cache's mean is over all keys up to each token
        if attn_mask is not None and causal:
            causality = causal_mask(own_keys if query_positions is None else query_positions, key)
            attn_mask, causal = combine_masks(attn_mask, causality), False
        elif causal and length == 1 and query_positions is None:
            causal = False  # the last token attends to all keys
        if query_positions is None and keys != length:
            query_positions = own_keys
        mixed = self.mix(
            query,
            key,
            value,
            attn_mask=attn_mask,
            is_causal=causal,
            query_positions=query_positions,
            value_mean=value_mean,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(-2, -3).flatten(-2))

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by head, with rotary positions if the module has them."""
        query, key = _split_heads(self.query(x), self.heads), _split_heads(self.key(x), self.kv_heads)
        value = _split_heads(self.value(x), self.kv_heads)
        return (rotate(query, positions), rotate(key, positions), value) if self.rotary else (query, key, value)

    def _own_mask(self, rows: Tensor | None, query: Tensor, keys: int) -> Tensor | None:
        """Return the module's own mask; with a cache, its `rows` of the new tokens and the columns of the `keys`."""
        if self.mask is None or rows is None:
            check_mask(self.mask, (*query.shape[:-1], keys), "mask")
            return self.mask
        if self.mask.shape[-1] < keys:
            raise InputError(f"mask is for {self.mask.shape[-1]} tokens (got {keys}): give a larger one")
        return self.mask.index_select(-2, rows)[..., :keys]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kv_heads={self.kv_heads}, causal={self.causal}, rotary={self.rotary}"


class ShapedAttention(MultiHeadAttention):
    """Shaped attention: A = a·I + softmax(Q Kᵀ/τ) − b·U, τ = τ0·√(n·n_k) [ST; theory §2].

    ```python
    attention = st.nn.ShapedAttention(width=32, heads=4, causal=True, rotary=True)
    attention(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `heads`: H, default 1.
    - `tau0`: temperature constant τ0, default 1. The products of queries and keys are scaled by 1/(τ0√(n·n_k)).
    - `shaping`, `recover_steps`: how the gains change in training, as in `Shaping`; default `"fixed"`.
    - `identity_gain`, `uniform_gain`: a and b at initialisation, numbers or one per head; default 1.
    - `logit_gain`: g, a factor of the logits, default 1.
    - `key_width`, `value_width`: n_k and n_v of one head, default n // H.
    - `kv_heads`: number of heads of keys and values, a divisor of H; default H.
    - `output_projection`: whether the heads' outputs are multiplied by W^O; default exactly when H > 1.
    - `causal`: whether a token attends only to itself and earlier tokens, default no.
    - `mask`: boolean (T, T), true where a token may attend; default none.
    - `rotary`: whether queries and keys have rotary positions, default no.
    - `dropout`: dropout on the softmax in training, default 0.

    **Raises:** `InputError` for widths and heads that do not fit, or a temperature that is not positive.
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


class SoftmaxAttention(MultiHeadAttention):
    """Softmax attention, a baseline: A = softmax(g·Q Kᵀ/√n_k) (theory §2).

    ```python
    attention = st.nn.SoftmaxAttention(width=32, heads=4, causal=True)
    attention(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:** as in `ShapedAttention`, without `tau0`, `shaping`, `recover_steps` and the two gains.

    **Raises:** `InputError` for widths and heads that do not fit.
    """

    def __init__(self, width: int, heads: int = 1, *, logit_gain: float = 1.0, **options: Any) -> None:
        super().__init__(width, heads, **options)
        self.logit_gain = logit_gain

    @property
    def scale(self) -> float:
        return self.logit_gain / math.sqrt(self.key_width)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        mask, causal = kernel_mask(options["attn_mask"], query.dtype), options["is_causal"]
        if causal and options["query_positions"] is not None:
            mask, causal = causal_mask(options["query_positions"], key), False
        dropout = options["dropout_p"]
        return fused_attention(query, key, value, mask, scale=self.scale, is_causal=causal, dropout_p=dropout)


class BranchOutput(nn.Linear):
    """The last map of a branch, without bias, N(0, 1/fan-in); a class of its own, as some initialisations scale it."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        initialise(self)


def linear(fan_in: int, fan_out: int) -> nn.Linear:
    """Return a linear map without bias whose weights are N(0, 1/fan-in)."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    initialise(layer)
    return layer


def initialise(layer: nn.Linear) -> None:
    """Sample the weights of a linear map anew, N(0, 1/fan-in)."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (…, T, H·k) as (…, H, T, k)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-2, -3)
