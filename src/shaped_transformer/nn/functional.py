"""Shaped attention as pure functions: fused, at the cost of ordinary attention, and dense, which is the definition.

A = a·I + softmax(scale·Q Kᵀ) − b·U, U = softmax(0) under the same mask (theory §2). As A V = a·V + softmax(…)V − b·U V,
the fused form needs no (T, T) matrix. It adds ordinary fused attention, each query's own value and a mean of values.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from ..errors import InputError
from .fused import add_shaping_terms, fused_attention
from .masks import allowed, causal_mask, check_mask, kernel_mask
from .positions import align_positions

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
    upcast: bool = False,
) -> Tensor:
    """Return A V of shaped attention without forming A.

    ```python
    query, key, value = torch.randn(3, 2, 4, 9, 8).unbind(0)  # batch 2, 4 heads, 9 tokens, 8 coordinates
    scale = 1 / (32 * 8) ** 0.5  # width 32, tau0 = 1
    st.nn.functional.shaped_attention(query, key, value, scale=scale, is_causal=True)  # (2, 4, 9, 8)
    ```

    **Arguments:**

    - `query`: (…, H, Tq, k).
    - `key`, `value`: (…, H', Tk, k) and (…, H', Tk, v); H' divides H (grouped queries).
    - `scale`: factor of the products of queries and keys; 1/(τ0·√(n·k)) for weights of variance 1/n.
    - `attn_mask`: boolean, true where a query may attend; or additive, −inf (or the dtype's least number) where it may
      not; broadcastable to (…, H, Tq, Tk). Finite terms change the softmax, not the mean. Default no mask.
    - `is_causal`: whether a query attends only to keys up to its own position; default no. Not together with
      `attn_mask`.
    - `identity_gain`, `uniform_gain`: a and b, numbers, or tensors of one number or of one per head, (H,). Default 1.
    - `dropout_p`: dropout on the softmax, default 0; the identity and the mean have none. With dropout PyTorch takes
      its dense path on CPUs.
    - `query_positions`: index of each query's own key, (Tq,) or (batch, Tq). Required when Tq ≠ Tk, as with a cache;
      by default query i has key i.
    - `value_mean`: U V where it is known, (…, H', Tq, v), such as a running mean during decoding; default computed.
    - `upcast`: whether 16-bit inputs are computed in float32 throughout. By default the softmax of values without their
      mean is left to a 16-bit kernel where there is no mask, dropout or cache; all sums are in float32 (docs/nn.md).

    **Returns:** (…, H, Tq, v) in the dtype of `query`. A query that may attend to no key gets a times its own value.

    **Raises:** `InputError` for shapes that do not fit, or missing positions.
    """
    _check_arguments(query, key, value, attn_mask, is_causal, query_positions)
    heads, queries, dtype, device = _heads(query), query.shape[-2], query.dtype, query.device.type
    where = None if attn_mask is None else allowed(attn_mask)
    if is_causal and query_positions is not None:
        where, is_causal = causal_mask(query_positions, key), False
        attn_mask = where
    plain = where is None and query_positions is None and value_mean is None
    mixed = dtype.itemsize < 4 and plain and not upcast and not dropout_p
    autocast = device != "meta" and torch.is_autocast_enabled(device)  # the meta device has no autocast
    with torch.autocast(device_type=device, enabled=False) if autocast else nullcontext():
        if dtype.itemsize < 4 and not mixed:
            query, key, value = query.float(), key.float(), value.float()
        # Rows of the softmax sum to 1, so that any centre can be added back; it makes the kernel's rounding small.
        centre = value.detach().mean(-2, keepdim=True) if mixed else None
        mask = kernel_mask(attn_mask, query.dtype)
        centred = value if centre is None else value - centre
        softmax = fused_attention(query, key, centred, mask, scale=scale, is_causal=is_causal, dropout_p=dropout_p)
        sums = torch.promote_types(softmax.dtype, torch.float32)
        a, b = _broadcast_gain(identity_gain, heads, softmax, sums), _broadcast_gain(uniform_gain, heads, softmax, sums)
        if plain:
            back = None if centre is None else _repeat_heads(centre, heads)
            own = _repeat_heads(value, heads)
            return add_shaping_terms(softmax, own, a, b, is_causal=is_causal, centre=back).to(dtype)
        if value_mean is None:
            value_mean = _mean_value(value, heads, where, queries)
        mean = _cast(_repeat_heads(value_mean, heads), softmax.dtype)
        out = torch.addcmul(softmax, _repeat_heads(own_value(value, query_positions), heads), a)
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
    """Return the matrix A of shaped attention: the definition, to read and to test against.

    ```python
    query, key = torch.randn(2, 2, 4, 9, 8).unbind(0)
    weights = st.nn.functional.shaped_attention_weights(query, key, scale=1 / (32 * 8) ** 0.5)  # (2, 4, 9, 9)
    weights.sum(-1)  # 1 in every row: the identity gives 1, the softmax and the mean cancel
    ```

    **Arguments:** as in `shaped_attention`.

    **Returns:** A, (…, H, Tq, Tk).

    **Raises:** `InputError` for shapes that do not fit, or missing positions.
    """
    _check_arguments(query, key, key, attn_mask, is_causal, query_positions)
    heads = _heads(query)
    logits = scale * query @ _repeat_heads(key, heads).transpose(-1, -2)
    keys = torch.arange(key.shape[-2], device=key.device)
    positions = keys if query_positions is None else align_positions(query_positions, query)
    own = positions[..., None] == keys
    where = torch.ones_like(logits, dtype=torch.bool)
    if is_causal:
        where = where & (keys <= positions[..., None])
    if attn_mask is not None:
        where = where & allowed(attn_mask)
        if attn_mask.dtype != torch.bool:
            logits = logits + attn_mask
    any_key = where.any(-1, keepdim=True)
    softmax = torch.softmax(logits.masked_fill(~where, -torch.inf).masked_fill(~any_key, 0.0), -1) * any_key
    uniform = where.to(logits.dtype)
    uniform = uniform / uniform.sum(-1, keepdim=True).clamp(min=1)
    a, b = _broadcast_gain(identity_gain, heads, logits), _broadcast_gain(uniform_gain, heads, logits)
    return a * own + softmax - b * uniform


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in a dtype."""
    return x if x.dtype == dtype else x.to(dtype)  # a call of `to` costs time even where it changes nothing


def _heads(query: Tensor) -> int:
    """Return the number of heads, 1 for tensors (T, k)."""
    return query.shape[-3] if query.dim() > 2 else 1


def _repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Repeat the heads of keys or values for the queries that share them."""
    if x.dim() == 2 or x.shape[-3] in (1, heads):
        return x
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _broadcast_gain(gain: Gain, heads: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a gain as a tensor that broadcasts over (…, H, T, ·), by default in the dtype of `like`."""
    dtype = dtype or like.dtype
    # A number is made on the device: a copy would wait for a GPU.
    given = gain.to(like.device, dtype) if isinstance(gain, Tensor) else like.new_full((), gain, dtype=dtype)
    if given.shape == (heads,):
        return given.view(heads, 1, 1)
    if given.numel() != 1:
        raise InputError(f"a gain must be one number or one for each of {heads} heads (got shape {tuple(given.shape)})")
    return given.reshape(())


def own_value(value: Tensor, positions: Tensor | None) -> Tensor:
    """Return the value at each query's own position.

    ```python
    value = torch.randn(2, 4, 9, 8)
    st.nn.functional.own_value(value, torch.tensor([7, 8]))  # the values of the last two tokens, (2, 4, 2, 8)
    ```

    **Arguments:**

    - `value`: (…, H', Tk, v).
    - `positions`: of the queries among the keys, (Tq,) or (batch, Tq); `None` if query i has key i.

    **Returns:** (…, H', Tq, v).
    """
    if positions is None:
        return value
    if positions.dim() == 1:
        return value.index_select(-2, positions)
    index = align_positions(positions, value)[..., None]
    return value.gather(-2, index.expand(*value.shape[:-2], -1, value.shape[-1]))


def _mean_value(value: Tensor, heads: int, where: Tensor | None, queries: int) -> Tensor:
    """Return U V: the mean of the values that each query may attend to, 0 where there are none."""
    if where is None:
        return value.mean(-2, keepdim=True)
    if where.dim() > 2 and where.shape[-3] > 1:
        value = _repeat_heads(value, heads)
    if where.dim() < 2 or where.shape[-2] == 1:  # the same mask for all queries, such as padding
        weights = where.to(value.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        return (weights if weights.dim() > 1 else weights[None]) @ value
    zeros = value.new_zeros(
        *value.shape[:-2], queries, value.shape[-1]
    )  # real ones: no fused kernel takes strides of 0
    return fused_attention(zeros, torch.zeros_like(value), value, where, scale=1.0)  # saves a mask of floats


def _check_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    query_positions: Tensor | None,
) -> None:
    """Check the arguments of `shaped_attention`."""
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
                f"{query.shape[-2]} queries and {key.shape[-2]} keys: give query_positions, the index of each query's "
                "own key; shaped attention is not defined for cross-attention, where queries have no key of their own"
            )
    elif query_positions.shape not in ((query.shape[-2],), (query.shape[0], query.shape[-2])):
        raise InputError(
            f"query_positions must be one for each of {query.shape[-2]} queries (got {tuple(query_positions.shape)})"
        )
