"""Attention masks, boolean or additive: which keys a query may attend to, and how masks combine."""

import torch
from torch import Tensor

from ..errors import InputError
from .positions import align_positions


def allowed(mask: Tensor) -> Tensor:
    """Return the boolean form of a mask: an additive one forbids −inf and numbers near the dtype's least."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def combine_masks(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the mask that allows what both masks allow, with the sum of their finite terms; `None` is no mask.

    The result is boolean if both masks are. Otherwise it is additive, with −inf where attention is forbidden.
    """
    if one is None or other is None:
        return other if one is None else one
    where = allowed(one) & allowed(other)
    if one.dtype == other.dtype == torch.bool:
        return where
    terms = other if one.dtype == torch.bool else one if other.dtype == torch.bool else one + other
    return terms.masked_fill(~where, -torch.inf)


def kernel_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a mask as the fused kernels take it: boolean unchanged, additive in `dtype` with −inf for "forbidden"."""
    if mask is None or mask.dtype == torch.bool:
        return mask
    return mask.masked_fill(~allowed(mask), -torch.inf).to(dtype)


def causal_mask(positions: Tensor, key: Tensor) -> Tensor:
    """Return the boolean causal mask of queries at `positions` over the keys.

    **Arguments:**

    - `positions`: of the queries among the keys, (Tq,) or (batch, Tq).
    - `key`: (batch, …, H, Tk, k).

    **Returns:** (Tq, Tk), or (batch, …, 1, Tq, Tk) for positions of each row.
    """
    return torch.arange(key.shape[-2], device=key.device) <= align_positions(positions, key)[..., None]


def check_mask(mask: Tensor | None, wanted: tuple[int, ...], name: str = "attn_mask") -> None:
    """Check that a mask is boolean or of floats, and that it broadcasts to (…, H, Tq, Tk).

    **Arguments:**

    - `mask`: the mask; `None` passes.
    - `wanted`: the shape to which it must broadcast.
    - `name`: of the argument, for the message; default `"attn_mask"`.

    **Raises:** `InputError` if the mask is of integers, or does not broadcast.
    """
    if mask is None:
        return
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"{name} must be boolean, or hold floats to add (got {mask.dtype}): use {name}.bool()")
    fits = all(a in (1, b) for a, b in zip(reversed(mask.shape), reversed(wanted), strict=False))
    if mask.dim() > len(wanted) or not fits:
        raise InputError(f"{name} of shape {tuple(mask.shape)} does not broadcast to {wanted}")
