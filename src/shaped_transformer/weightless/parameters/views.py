"""Views of a weightless parameter: transposed, a part of rows or columns, one matrix of a stack."""

from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from .lookup import embedding
from .registry import served
from .tensor import WeightlessTensor, refuse


@served(torch.transpose, torch.Tensor.transpose, torch.swapaxes, torch.Tensor.swapaxes)
def transpose(input: Any, dim0: int = -2, dim1: int = -1) -> Any:  # noqa: A002
    """Serve the exchange of the last two axes."""
    axes = input.dim()
    if {dim0 % axes, dim1 % axes} != {axes - 2, axes - 1} or axes > 3:
        refuse(torch.transpose, input)
    shape = (*input.shape[:-2], input.shape[-1], input.shape[-2])
    return input.changed(shape, transposed=not input.view_of.transposed)


@served(
    torch.t,
    torch.Tensor.t,
    torch.Tensor.T.__get__,  # type: ignore[attr-defined]
    torch.Tensor.mT.__get__,  # type: ignore[attr-defined]
    torch.adjoint,
)
def transposed(input: Any) -> Any:  # noqa: A002
    """Serve the transposed matrix."""
    return transpose(input)


@served(torch.permute, torch.Tensor.permute)
def permute(input: Any, *dims: Any) -> Any:  # noqa: A002
    """Serve the identity and the exchange of the last two axes."""
    order = [axis % input.dim() for axis in (dims[0] if isinstance(dims[0], tuple | list) else dims)]
    if order == list(range(input.dim())):
        return input
    if order == [*range(input.dim() - 2), input.dim() - 1, input.dim() - 2]:
        return transpose(input)
    return refuse(torch.permute, input)


@served(torch.Tensor.__getitem__)
def getitem(self: Any, key: Any) -> Any:
    """Serve one matrix of a stack, rows by their numbers, and slices of rows and columns."""
    keys = key if isinstance(key, tuple) else (key,)
    first = keys[0]
    if self.dim() == 3 and len(keys) == 1 and self.view_of.index is None:
        if isinstance(first, Tensor) and first.dim() == 0 and not first.is_floating_point():
            first = int(first)
        if isinstance(first, int):
            return _one_of_stack(self, first)
    if self.dim() == 2 and len(keys) <= 2 and all(isinstance(one, slice) and one.step in (None, 1) for one in keys):
        out = self
        for axis, one in enumerate(keys):
            start, stop, _ = one.indices(self.shape[axis])
            out = _narrow(out, axis, start, max(stop - start, 0))
        return out
    if self.dim() == 2 and len(keys) == 1 and self.view_of.whole:
        if isinstance(first, int):
            first = torch.tensor(first)
        if isinstance(first, Tensor) and first.dtype in (torch.int32, torch.int64):
            return embedding(torch.where(first < 0, first + self.shape[0], first), self)
    return self.values()[key]


@served(torch.select, torch.Tensor.select)
def select(input: Any, dim: int, index: int) -> Any:  # noqa: A002
    """Serve one matrix of a stack."""
    if dim != 0:
        refuse(torch.select, input)
    return getitem(input, index)


@served(torch.narrow, torch.Tensor.narrow)
def narrow(input: Any, dim: int, start: int, length: int) -> Any:  # noqa: A002
    """Serve a part of the rows or columns."""
    return _narrow(input, dim % input.dim(), start, length) if input.dim() == 2 else refuse(torch.narrow, input)


@served(torch.unbind, torch.Tensor.unbind, torch.Tensor.__iter__)
def unbind(input: Any, dim: int = 0) -> Any:  # noqa: A002
    """Serve the matrices of a stack."""
    if dim != 0 or input.dim() != 3:
        refuse(torch.unbind, input)
    return tuple(_one_of_stack(input, index) for index in range(input.shape[0]))


@served(torch.split, torch.Tensor.split, torch.split_with_sizes, torch.Tensor.split_with_sizes)
def split(tensor: Any, split_size_or_sections: Any = None, dim: int = 0, **named: Any) -> Any:
    """Serve parts of a fused projection."""
    sizes, axis = named.get("split_size", split_size_or_sections), dim % tensor.dim()
    if tensor.dim() != 2:
        refuse(torch.split, tensor)
    if isinstance(sizes, int):
        sizes = [min(sizes, tensor.shape[axis] - start) for start in range(0, tensor.shape[axis], sizes)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(_narrow(tensor, axis, start, size) for start, size in zip(starts, sizes, strict=True))


@served(torch.chunk, torch.Tensor.chunk)
def chunk(input: Any, chunks: int, dim: int = 0) -> Any:  # noqa: A002
    """Serve equal parts of a fused projection."""
    return split(input, -(-input.shape[dim] // chunks), dim)


def _one_of_stack(stack: WeightlessTensor, index: int) -> WeightlessTensor:
    """Return one matrix of a stack."""
    if not -len(stack) <= index < len(stack):
        raise InputError(f"{stack.source.name}: a matrix from 0 to {len(stack) - 1} is expected (got {index})")
    return stack.changed(tuple(stack.shape[1:]), index=index % len(stack))


def _narrow(w: WeightlessTensor, axis: int, start: int, length: int) -> WeightlessTensor:
    """Return a part of the rows or columns."""
    if length == w.shape[axis]:
        return w
    name = "rows" if (axis == 0) != w.view_of.transposed else "columns"
    before = getattr(w.view_of, name) or (0, 0)
    shape = [length if one == axis else size for one, size in enumerate(w.shape)]
    return w.changed(tuple(shape), **{name: (before[0] + start, before[0] + start + length)})
