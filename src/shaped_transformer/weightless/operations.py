"""What PyTorch's functions do with a weightless parameter: products and views; the rest of them is refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .parameter import FactoredGradient, WeightlessTensor, first_weightless, refuse
from .product import LookUp, Product
from .streams import Side
from .vectors import Units
from .weight import Weight

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


def multiply(x: Tensor, w: WeightlessTensor) -> Tensor:
    """Return x·W, (…, b), for vectors x (…, a) and a matrix, transposed or not, or a part of one, (a, b)."""
    if isinstance(x, WeightlessTensor):
        raise InputError(x.source.refusal(f"its product with {w.source.name}"))
    check_input(x, w)
    if x.shape[-1] != w.shape[0]:
        raise InputError(f"{w.source.name}: vectors of length {w.shape[0]} are expected (got {x.shape[-1]})")
    view, weight = w.view_of, w.weight
    flat = x.reshape(-1, x.shape[-1])
    weight.draw_if_cheaper(len(flat))
    if weight.real is not None:
        values = weight.real if w.requires_grad else weight.real.detach()
        rows, columns = view.rows or (0, weight.shape[0]), view.columns or (0, weight.shape[1])
        part = values[rows[0] : rows[1], columns[0] : columns[1]]
        return x @ (part.T if view.transposed else part)
    side: Side = "right" if view.transposed else "left"
    inward, outward = (view.columns, view.rows) if view.transposed else (view.rows, view.columns)
    if inward is not None:
        flat = functional.pad(flat, (inward[0], weight.shape[view.transposed] - inward[1]))
    if len(flat) == 0:
        return flat.new_zeros(*x.shape[:-1], w.shape[1])
    out = product(flat, w, weight, side)
    out = out if outward is None else out[:, outward[0] : outward[1]]
    return out.reshape(*x.shape[:-1], w.shape[1])


def check_input(x: Tensor, w: WeightlessTensor) -> None:
    """Check that a tensor can meet a parameter.

    **Raises:** `InputError` where its type, device or layout is another one, or where it has no axes.
    """
    if x.dtype != w.dtype:
        raise InputError(
            f"{w.source.name} is of {w.dtype}, and met vectors of {x.dtype}: give dtype= when building, and leave "
            "autocast off"
        )
    if x.device.type != "cpu" or x.layout != torch.strided or x.dim() == 0:
        raise InputError(
            f"{w.source.name}: dense vectors on the CPU are expected (got {tuple(x.shape)} on {x.device}, {x.layout})"
        )


def product(x: Tensor, w: WeightlessTensor, weight: Weight, side: Side) -> Tensor:
    """Return the product of vectors with a matrix, which remembers them.

    **Raises:** `InputError` for so many vectors that a single product would not fit into memory.
    """
    needed = len(x) * (sum(weight.shape) * x.itemsize + 3 * 8 * len(x))  # vectors, images, Gram matrix and factor
    if needed > weight.ledger.limit:
        raise InputError(
            f"{weight.name} meets {len(x):,} vectors in one pass, which needs {needed / 1e9:.3g} GB, more than the "
            f"limit of {weight.ledger.limit / 1e9:.3g} GB: give fewer tokens, or a larger memory="
        )
    if not torch.is_grad_enabled():
        x = x.clone()  # outside of autograd nothing forbids the model to change x in place afterwards
    out: Tensor = Product.apply(x, w, weight, side)
    return out


@served(functional.linear)
def linear(input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: A002 - PyTorch's name
    """Serve x·Wᵀ + b."""
    if not isinstance(weight, WeightlessTensor) or isinstance(bias, WeightlessTensor):
        refuse(functional.linear, (input, weight, bias))
    out = multiply(input, transpose(weight))
    return out if bias is None else out + bias


@served(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm, torch.bmm, torch.Tensor.bmm
)
def matmul(input: Any, other: Any) -> Any:  # noqa: A002
    """Serve x·W and W·x, and such products with stacks of matrices."""
    if isinstance(other, WeightlessTensor):
        if other.dim() == 2:
            return multiply(input, other)
        if input.dim() == 1:
            return matmul(input[None], other)[..., 0, :]
        batch = input.expand(*torch.broadcast_shapes(input.shape[:-2], (len(other),)), *input.shape[-2:])
        matrices = unbind(other) * (batch.shape[-3] // len(other))
        return torch.stack([multiply(x, w) for x, w in zip(batch.unbind(-3), matrices, strict=True)], -3)
    if input.dim() == 2:
        product = multiply(other if other.dim() == 1 else other.mT, transpose(input))
        return product if other.dim() == 1 else product.mT
    return matmul(other.mT, transpose(input)).mT


@served(torch.Tensor.__rmatmul__)
def rmatmul(self: Any, other: Any) -> Any:
    """Serve the operator x @ W where Python asks W."""
    return matmul(other, self)


@served(torch.mv, torch.Tensor.mv)
def mv(input: Any, vec: Any) -> Any:  # noqa: A002
    """Serve W·x."""
    return matmul(input, vec)


@served(torch.addmm, torch.Tensor.addmm)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: A002
    """Serve β·b + α·x·W."""
    product = matmul(mat1, mat2)
    return (
        beta * input + (product if alpha == 1 else alpha * product)
        if beta != 1
        else torch.add(input, product, alpha=alpha)
    )


@served(torch.baddbmm, torch.Tensor.baddbmm)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: A002
    """Serve β·b + α·x·W for stacks of matrices."""
    return beta * input + alpha * matmul(batch1, batch2)


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


@served(torch.autograd.grad)
def autograd_grad(outputs: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    """Refuse to return the gradient of a weightless parameter."""
    raise InputError(
        f"{first_weightless((inputs, outputs)).source.name}: torch.autograd.grad cannot return its gradient, which is "
        "never formed: call backward() and st.weightless.gradient_norms(model)"
    )


@served(torch.Tensor.__format__)
def formatted(self: Any, specification: str) -> str:
    """Serve the text in f-strings."""
    return format(repr(self), specification)


@served(torch.Tensor.contiguous, torch.Tensor.cpu, torch.Tensor.to)
def unchanged(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Serve conversions to what the parameter is already."""
    wanted = [*args, *kwargs.values()]
    types = [one.dtype if isinstance(one, Tensor) else one for one in wanted if isinstance(one, torch.dtype | Tensor)]
    devices = [torch.device(one).type for one in wanted if isinstance(one, str | torch.device)]
    if any(one != self.dtype for one in types) or any(one != "cpu" for one in devices):
        raise InputError(
            f"{self.source.name}: a weightless model is of {self.dtype} and computes on the CPU, and cannot be moved "
            f"or converted to {', '.join(map(str, (*types, *devices)))}: give dtype=torch.float32 or torch.float64 "
            "when building"
        )
    return self


SERVED[torch.Tensor.float] = lambda self: unchanged(self, torch.float32)
SERVED[torch.Tensor.double] = lambda self: unchanged(self, torch.float64)
SERVED[torch.Tensor.half] = lambda self: unchanged(self, torch.float16)
SERVED[torch.Tensor.bfloat16] = lambda self: unchanged(self, torch.bfloat16)
SERVED[torch.Tensor.cuda] = lambda self, *_, **__: unchanged(self, "cuda")
SERVED[torch.Tensor.type_as] = lambda self, other: unchanged(self, other)
SERVED[torch.Tensor.data.__set__] = lambda self, new: unchanged(self, new)  # type: ignore[attr-defined]
SERVED[torch._has_compatible_shallow_copy_type] = lambda *_: True

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
