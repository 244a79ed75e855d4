"""Rows of a weightless table by their numbers."""

from typing import Any

import torch
from torch.nn import functional

from ...errors import InputError
from ..matrices.vectors import Units
from .autograd import LookUp
from .registry import served
from .tensor import refuse


@served(functional.embedding)
def embedding(
    input: Any,  # noqa: A002
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001 - PyTorch's signature
    scale_grad_by_freq: bool = False,
    sparse: bool = False,  # noqa: ARG001 - the gradient is in factors anyway
) -> Any:
    """Serve the look-up of rows."""
    if max_norm is not None or scale_grad_by_freq or not weight.view_of.whole:
        refuse(functional.embedding, weight)
    count = weight.shape[0]
    if input.dtype not in (torch.int32, torch.int64):
        raise InputError(f"{weight.source.name}: whole numbers are expected for a look-up (got {input.dtype})")
    if input.numel() and not 0 <= int(input.min()) <= int(input.max()) < count:
        raise InputError(
            f"{weight.source.name}: tokens or positions from 0 to {count - 1} are expected (got "
            f"{int(input.min())} to {int(input.max())}): give shorter sequences, or a larger table"
        )
    matrix = weight.weight
    if matrix.real is not None:
        values = matrix.real if weight.requires_grad else matrix.real.detach()
        return functional.embedding(input, values, padding_idx)
    rows, inverse = torch.unique(input, return_inverse=True)
    padding = None if padding_idx is None else padding_idx % count
    out: Any = LookUp.apply(weight, matrix, Units(rows, count), padding)
    return out[inverse]
