"""Masks of attention, boolean or additive: where they let a query look, and two of them in one."""

import torch
from torch import Tensor

from ..errors import InputError


def allowed(mask: Tensor) -> Tensor:
    """Return where a mask lets queries look: where a boolean one is true, an additive one not at its least."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the mask that lets queries look where both do, with the sum of their finite terms; `None` is no mask.

    It is boolean if both are. Else it is additive, and −inf where queries may not look.
    """
    if one is None or other is None:
        return other if one is None else one
    where = allowed(one) & allowed(other)
    if one.dtype == other.dtype == torch.bool:
        return where
    terms = other if one.dtype == torch.bool else one if other.dtype == torch.bool else one + other
    return terms.masked_fill(~where, -torch.inf)


def additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a mask as the fused kernels take it: boolean as it is, additive in their dtype with −inf for "never"."""
    if mask is None or mask.dtype == torch.bool:
        return mask
    return mask.masked_fill(~allowed(mask), -torch.inf).to(dtype)


def up_to(positions: Tensor, keys: int) -> Tensor:
    """Return the causal mask of queries at positions (Tq,) or (batch, Tq): (Tq, keys) or (batch, 1, Tq, keys)."""
    mask = torch.arange(keys, device=positions.device) <= positions[..., None]
    return mask[:, None] if mask.dim() == 3 else mask


def check_mask(mask: Tensor | None, wanted: tuple[int, ...], name: str = "attn_mask") -> None:
    """See that a mask broadcasts to (…, H, Tq, Tk), and is boolean or of floats.

    **Raises:** `InputError` if it does not, or is of integers.
    """
    if mask is None:
        return
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"{name} must be boolean, or of floats to add (got {mask.dtype}): use {name}.bool()")
    fits = all(a in (1, b) for a, b in zip(reversed(mask.shape), reversed(wanted), strict=False))
    if mask.dim() > len(wanted) or not fits:
        raise InputError(f"{name} of shape {tuple(mask.shape)} does not broadcast to {wanted}")
