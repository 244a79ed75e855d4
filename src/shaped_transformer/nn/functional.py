"""Shaped attention as pure functions: fused, at the price of ordinary attention, and dense, which is the definition.

A = a·I + softmax(scale·Q Kᵀ) − b·U, U = softmax(0) under the same mask (theory §2). As A V = a·V + softmax(…)V − b·U V,
the fused form needs no (T, T) matrix of its own: ordinary fused attention, each query's own value, a mean of values.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from ..errors import InputError
from .fused import attend, shape
from .masks import additive, allowed, check_mask

Gain = float | Tensor


def shaped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    identity_gain: Gain = 1.0,
    uniform_gain: Gain = 1.0,
    dropout_p: float = 0.0,
    query_positions: Tensor | None = None,
    value_mean: Tensor | None = None,
    upcast: bool = True,
) -> Tensor:
    """Return A V of shaped attention without forming A.

    **Arguments:**

    - `query`: (…, H, Tq, k). `key`, `value`: (…, H', Tk, k) and (…, H', Tk, v); H' divides H (grouped queries).
    - `scale`: what the products of queries and keys are multiplied with; 1/(τ0·√(n·k)) for weights of variance 1/n.
    - `attn_mask`: boolean, true where a query may look; or additive, −inf (or the dtype's least number) where it may
      not; broadcastable to (…, H, Tq, Tk). Finite terms move the softmax, not the mean.
    - `is_causal`: a query looks at keys up to its own position. Not together with `attn_mask`.
    - `identity_gain`, `uniform_gain`: a and b, numbers, or tensors of one number or of one per head, (H,). Default 1.
    - `dropout_p`: on the softmax only, never on the identity or the mean. On CPUs PyTorch takes its dense path for it.
    - `query_positions`: which key is each query's own, (Tq,) or (batch, Tq); needed when Tq ≠ Tk, as with a cache.
    - `value_mean`: U V if it is known, (…, H', Tq, v), as from a running mean when decoding.
    - `upcast`: compute in float32 what comes in 16 bits, autocast or not; default true. The informative part,
      softmax(…) − U, is about 1/√(nT) of A, and its relative error at 16 bits is some 10 % (docs/nn.md).

    **Returns:** (…, H, Tq, v) in the dtype of `query`. A query that may look nowhere gets a times its own value.

    **Raises:** `InputError` for shapes that do not fit, or positions that are missing.
    """
    _check(query, key, value, attn_mask, is_causal, query_positions)
    heads, queries, dtype, device = _heads(query), query.shape[-2], query.dtype, query.device.type
    where = None if attn_mask is None else allowed(attn_mask)
    if is_causal and query_positions is not None:
        where, is_causal = _up_to(query_positions, key), False
        attn_mask = where
    hindered = upcast and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with torch.autocast(device_type=device, enabled=False) if hindered else nullcontext():
        if upcast and dtype.itemsize < 4:
            query, key, value = query.float(), key.float(), value.float()
        mask = additive(attn_mask, query.dtype)
        softmax = attend(query, key, value, mask, scale=scale, is_causal=is_causal, dropout_p=dropout_p)
        a, b = _gain(identity_gain, heads, softmax), _gain(uniform_gain, heads, softmax)
        if where is None and query_positions is None and value_mean is None:
            return shape(softmax, _grouped(value, heads), a, b, is_causal=is_causal).to(dtype)
        if value_mean is None:
            value_mean = _mean(value, heads, where, queries)
        mean = _cast(_grouped(value_mean, heads), softmax.dtype)
        out = torch.addcmul(softmax, _grouped(own_value(value, query_positions), heads), a)
        return _cast(torch.addcmul(out, mean, b, value=-1), dtype)


def shaped_attention_weights(
    query: Tensor,
    key: Tensor,
    *,
    scale: float,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    identity_gain: Gain = 1.0,
    uniform_gain: Gain = 1.0,
    query_positions: Tensor | None = None,
) -> Tensor:
    """Return A of shaped attention, (…, H, Tq, Tk): the definition, to read and to test against.

    **Arguments:** as in `shaped_attention`.

    **Raises:** `InputError` for shapes that do not fit, or positions that are missing.
    """
    _check(query, key, key, attn_mask, is_causal, query_positions)
    heads = _heads(query)
    logits = scale * query @ _grouped(key, heads).transpose(-1, -2)
    keys = torch.arange(key.shape[-2], device=key.device)
    positions = keys if query_positions is None else _aligned(query_positions, query)
    own = positions[..., None] == keys
    where = torch.ones_like(logits, dtype=torch.bool)
    if is_causal:
        where = where & (keys <= positions[..., None])
    if attn_mask is not None:
        where = where & allowed(attn_mask)
        if attn_mask.dtype != torch.bool:
            logits = logits + attn_mask
    some = where.any(-1, keepdim=True)
    softmax = torch.softmax(logits.masked_fill(~where, -torch.inf).masked_fill(~some, 0.0), -1) * some
    uniform = where.to(logits.dtype)
    uniform = uniform / uniform.sum(-1, keepdim=True).clamp(min=1)
    a, b = _gain(identity_gain, heads, logits), _gain(uniform_gain, heads, logits)
    return a * own + softmax - b * uniform


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)  # which takes its time even where nothing is to be done


def _heads(query: Tensor) -> int:
    return query.shape[-3] if query.dim() > 2 else 1


def _grouped(x: Tensor, heads: int) -> Tensor:
    """Repeat the heads of keys or values for the queries that share them."""
    if x.dim() == 2 or x.shape[-3] in (1, heads):
        return x
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _gain(gain: Gain, heads: int, like: Tensor) -> Tensor:
    """The gain as a tensor that broadcasts over (…, H, T, width)."""
    given = gain if isinstance(gain, Tensor) else like.new_tensor(gain)
    if given.dtype != like.dtype or given.device != like.device:
        given = given.to(like)
    if given.shape == (heads,):
        return given.view(heads, 1, 1)
    if given.numel() != 1:
        raise InputError(f"a gain must be one number or one for each of {heads} heads (got shape {tuple(given.shape)})")
    return given.reshape(())


def _aligned(positions: Tensor, like: Tensor) -> Tensor:
    """Positions (Tq,) or (batch, Tq) as they broadcast over (batch, …, H, Tq)."""
    if positions.dim() == 1:
        return positions
    return positions.reshape(positions.shape[0], *(1 for _ in range(like.dim() - 3)), positions.shape[1])


def _up_to(positions: Tensor, key: Tensor) -> Tensor:
    """The causal mask of queries at these positions."""
    return torch.arange(key.shape[-2], device=key.device) <= _aligned(positions, key)[..., None]


def own_value(value: Tensor, positions: Tensor | None) -> Tensor:
    """Return the value at each query's own position, (…, H', Tq, v)."""
    if positions is None:
        return value
    if positions.dim() == 1:
        return value.index_select(-2, positions)
    index = _aligned(positions, value)[..., None]
    return value.gather(-2, index.expand(*value.shape[:-2], -1, value.shape[-1]))


def _mean(value: Tensor, heads: int, where: Tensor | None, queries: int) -> Tensor:
    """U V: the mean of the values that each query may look at, 0 where there is none."""
    if where is None:
        return value.mean(-2, keepdim=True)
    if where.dim() > 2 and where.shape[-3] > 1:
        value = _grouped(value, heads)
    if where.dim() < 2 or where.shape[-2] == 1:  # the same for all queries, as padding is
        weights = where.to(value.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        return (weights if weights.dim() > 1 else weights[None]) @ value
    none = value.new_zeros(()).expand(*value.shape[:-2], queries, value.shape[-1])
    return attend(none, torch.zeros_like(value), value, where, scale=1.0)  # fused, so that no mask of floats is made


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    query_positions: Tensor | None,
) -> None:
    kinds = [type(x).__name__ for x in (query, key, value) if not isinstance(x, Tensor)]
    if kinds:
        raise InputError(f"query, key and value must be tensors (got {', '.join(kinds)})")
    heads, groups = _heads(query), _heads(key)
    if query.dim() < 2 or key.dim() != query.dim() or value.dim() != query.dim():
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise InputError(f"query, key and value must have the same number of dimensions, at least 2 (got {shapes})")
    if query.shape[-1] != key.shape[-1] or key.shape[:-1] != value.shape[:-1]:
        raise InputError(
            f"key {tuple(key.shape)} must have the last dimension of query {tuple(query.shape)}, and the others of "
            f"value {tuple(value.shape)}"
        )
    if heads % groups:
        raise InputError(f"the {groups} heads of key and value must divide the {heads} of query")
    if attn_mask is not None and is_causal:
        raise InputError("give attn_mask or is_causal, not both: put causality into the mask")
    check_mask(attn_mask, (*query.shape[:-1], key.shape[-2]))
    if query_positions is None:
        if query.shape[-2] != key.shape[-2]:
            raise InputError(
                f"{query.shape[-2]} queries and {key.shape[-2]} keys: give query_positions, which key is each query's "
                "own; where there is none (cross-attention), shaped attention is not defined"
            )
    elif query_positions.shape not in ((query.shape[-2],), (query.shape[0], query.shape[-2])):
        raise InputError(
            f"query_positions must be one for each of {query.shape[-2]} queries (got {tuple(query_positions.shape)})"
        )
