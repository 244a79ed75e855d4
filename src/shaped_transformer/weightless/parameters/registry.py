"""What PyTorch's functions do with an unseen parameter: the table of what is served; the rest is refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ...errors import InputError
from .tensor import FactoredGradient, WeightlessTensor, first_weightless, refuse

Serve = Callable[..., Any]

SERVED: dict[Any, Serve] = {}
"""What is served: PyTorch's function → ours."""


def serve(func: Any, args: Any, kwargs: Any) -> Any:  # noqa: RET503 - refusing raises
    """Return what a function of PyTorch gives where one of its arguments is weightless.

    **Raises:** `InputError` for a function that is not served.
    """
    if torch._C._are_functorch_transforms_active():
        raise InputError("torch.func and vmap do not work with a weightless model: call it directly, and backward()")
    if isinstance(found := first_weightless((args, kwargs)), FactoredGradient) and func not in METADATA | UNCHANGED:
        refuse(func, found)
    if func in SERVED:
        return SERVED[func](*args, **kwargs)
    if func in METADATA:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if func in DATA:
        return func(*real(args), **real(kwargs))
    refuse(func, (args, kwargs))


def real(given: Any) -> Any:
    """Return arguments with weightless parameters drawn for real."""
    if isinstance(given, WeightlessTensor):
        return given.values()
    if isinstance(given, dict):
        return {name: real(one) for name, one in given.items()}
    return type(given)(real(one) for one in given) if isinstance(given, tuple | list) else given


def served(*functions: Any) -> Callable[[Serve], Serve]:
    """Register what PyTorch's functions do."""

    def register(function: Serve) -> Serve:
        SERVED.update(dict.fromkeys(functions, function))
        return function

    return register


UNCHANGED = {
    *(torch.Tensor.contiguous, torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.float, torch.Tensor.double),
    *(torch.Tensor.data.__set__, torch._has_compatible_shallow_copy_type),  # type: ignore[attr-defined]
    torch.Tensor.__format__,
}
"""Functions that are served for gradients too: what `model.cpu()` and the like call."""


def _methods(names: str) -> set[Any]:
    """Return methods of tensors, as far as this version of PyTorch has them."""
    return {getattr(torch.Tensor, name) for name in names.split() if hasattr(torch.Tensor, name)}


def _properties(names: str) -> set[Any]:
    """Return the readers of properties of tensors, as far as this version of PyTorch has them."""
    return {getattr(torch.Tensor, name).__get__ for name in names.split() if hasattr(torch.Tensor, name)}


METADATA = {
    *_methods(
        "size dim ndimension numel nelement element_size stride is_contiguous is_complex is_floating_point is_signed "
        "storage_offset get_device __len__ __hash__ requires_grad_ is_same_size is_inference is_conj is_neg"
    ),
    *_properties(
        "shape ndim dtype device layout is_cuda is_meta is_sparse is_quantized is_mkldnn is_xpu is_mps requires_grad "
        "grad_fn itemsize nbytes is_nested output_nr retains_grad is_sparse_csr _backward_hooks _version"
    ),
    torch.Tensor.requires_grad.__set__,  # type: ignore[attr-defined]
    torch.numel,
    torch.is_floating_point,
    torch.is_complex,
}
"""Functions that do not touch the values."""

DATA = {
    *_methods(
        "add __add__ __radd__ sub __sub__ __rsub__ mul __mul__ __rmul__ div __truediv__ expand expand_as repeat "
        "unsqueeze squeeze masked_fill"
    ),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.cat, torch.stack, torch.where, torch.rsub),
    functional.interpolate,
    functional.pad,
}
"""Functions with which a model uses a parameter as data, such as positions: a small one is drawn for real for them."""
