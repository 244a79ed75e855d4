"""Checks of the arguments that the modules share."""

from typing import Any

from torch import Tensor, nn

from ..errors import InputError


def check_module(model: Any, way_out: str = "") -> None:
    """Check that `model` is an `nn.Module`.

    **Arguments:**

    - `model`: the value to check.
    - `way_out`: what to give instead, added to the message; default nothing.

    **Raises:** `InputError` if it is not.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be an nn.Module (got {type(model).__name__})" + (way_out and f": {way_out}"))


def check_vectors(x: Any, width: int) -> None:
    """Check that token vectors are a tensor (batch, tokens, width).

    **Raises:** `InputError` if they are not.
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[-1] != width:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x must be a tensor (batch, tokens, {width}) (got {got})")
