"""Convolutions as products with a matrix, which meets the patches of the input."""

from typing import Any

from torch.nn import functional

from ...errors import InputError
from .products import check_input, multiply_flat
from .registry import served
from .tensor import WeightlessTensor, refuse


@served(functional.conv1d, functional.conv2d)
def convolve(
    input: Any,  # noqa: A002 - PyTorch's name
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Serve a convolution of one group: its weight meets the patches of the input."""
    axes = weight.dim() - 2
    if groups != 1 or isinstance(padding, str) or isinstance(input, WeightlessTensor) or not weight.view_of.whole:
        refuse(functional.conv2d, weight)
    single = input.dim() == axes + 1
    x = input[None] if single else input
    stride, padding, dilation = (_tuple(one, axes) for one in (stride, padding, dilation))
    kernel = tuple(weight.shape[2:])
    check_input(input, weight)
    if x.dim() != axes + 2 or x.shape[1] != weight.shape[1]:
        raise InputError(
            f"{weight.source.name}: inputs with {weight.shape[1]} channels and {axes} more axes are expected (got "
            f"{tuple(input.shape)})"
        )
    sizes = [
        (size + 2 * pad - reach * (k - 1) - 1) // step + 1
        for size, pad, reach, k, step in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    if min(sizes) < 1:
        raise InputError(f"{weight.source.name}: the input {tuple(input.shape)} is smaller than the kernel")
    if axes == 1:
        x, kernel, stride = x[:, :, None], (1, *kernel), (1, *stride)
        padding, dilation = (0, *padding), (1, *dilation)
    patches = functional.unfold(x, kernel, dilation, padding, stride).mT
    images = multiply_flat(patches.reshape(-1, patches.shape[-1]), weight, 1, transposed=True)
    out = images.reshape(len(x), -1, weight.shape[0]).mT.reshape(len(x), weight.shape[0], *sizes)
    out = out if bias is None else out + bias.view(-1, *(1,) * axes)
    return out[0] if single else out


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    """Return a number for each axis."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count
