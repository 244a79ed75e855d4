"""The weightless parameter: a tensor that behaves as the weight in products, and refuses whatever reads its values."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from ...errors import InputError
from ..matrices.weight import Weight
from .source import Source

Span = tuple[int, int]
"""First row, or column, and the one after the last."""


@dataclass(frozen=True)
class View:
    """What part of its parameter a tensor stands for.

    **Arguments:**

    - `index`: the number of a matrix in a stack; `None` for the whole parameter.
    - `rows`, `columns`: parts of the matrix; `None` means all.
    - `transposed`: whether the last two axes are exchanged.
    """

    index: int | None = None
    rows: Span | None = None
    columns: Span | None = None
    transposed: bool = False

    @property
    def whole(self) -> bool:
        return self == View()


class WeightlessTensor(torch.Tensor):
    """A parameter without values, or a view of one.

    PyTorch asks `__torch_function__` what each function does with it; the table is `registry.SERVED`. Functions that
    only ask for the shape and the like work as usual, and all others raise.
    """

    source: Source
    view_of: View

    @staticmethod
    def __new__(cls, source: Source, view: View, shape: torch.Size, *, requires_grad: bool) -> "WeightlessTensor":
        """Return a tensor of this shape without memory."""
        out: WeightlessTensor = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=source.ledger.dtype, device=torch.device("cpu"), requires_grad=requires_grad
        )
        out.source, out.view_of = source, view
        return out

    def __init__(self, source: Source, view: View, shape: torch.Size, *, requires_grad: bool) -> None:
        """Nothing is left to be done."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Serve a function of PyTorch, or refuse it."""
        from .registry import serve

        return serve(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse whatever reaches the values."""
        refuse(func, (args, kwargs))

    @property
    def weight(self) -> Weight:
        """The matrix that a view with two axes belongs to."""
        index = self.view_of.index
        return self.source.matrix() if index is None else self.source.stacked(index)

    def changed(self, shape: tuple[int, ...], **changes: Any) -> "WeightlessTensor":
        """Return another view of the same parameter."""
        view = dataclasses.replace(self.view_of, **changes)
        return WeightlessTensor(self.source, view, torch.Size(shape), requires_grad=self.requires_grad)

    def values(self) -> Tensor:
        """Return the part of the parameter that the tensor stands for, drawn for real."""
        view, out = self.view_of, self.source.values()
        out = out if self.requires_grad else out.detach()
        out = out if view.index is None else out[view.index]
        out = out if view.rows is None else out[..., view.rows[0] : view.rows[1], :]
        out = out if view.columns is None else out[..., view.columns[0] : view.columns[1]]
        return out.mT if view.transposed else out

    @property
    def grad(self) -> Any:
        """The gradient, as a tensor without values, or `None`."""
        if self.source.data is not None:
            return self.source.data.grad
        if not any(weight.has_gradient for weight in self.source.parts()):
            return None
        return FactoredGradient(self.source, View(), self.shape, requires_grad=False)

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            raise InputError(f"{self.source.name}: the gradient of a weightless parameter can only be set to None")
        self.source.clear_gradient()

    @property
    def is_leaf(self) -> Any:  # type: ignore[override]
        """PyTorch's optimisers ask this when they are made; they would miss this parameter, so that it raises."""
        raise InputError(
            f"{self.source.name} is weightless, so PyTorch's optimisers cannot change it: use "
            "st.weightless.SGD(model, lr=...)"
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        kind = "gradient" if isinstance(self, FactoredGradient) else "weight"
        return f"<weightless {kind} {self.source.name} {tuple(self.shape)}: {self.source.law}>"

    def __deepcopy__(self, memo: Any) -> Any:
        raise InputError(self._cannot("copied"))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(self._cannot("saved"))

    def _cannot(self, what: str) -> str:
        """Return the message for what needs a state that a file or copy does not have."""
        return (
            f"{self.source.name}: a weightless model cannot be {what}: build another one of the same distribution from "
            "its configuration"
        )


class FactoredGradient(WeightlessTensor):
    """The gradient of a weightless parameter, xᵀ·g in factors, which is never formed."""


def refuse(func: Any, given: Any) -> NoReturn:
    """Raise the error for a function that is not served, with the parameter's name."""
    tensor = first_weightless(given)
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    if isinstance(tensor, FactoredGradient):
        raise InputError(
            f"{tensor.source.name}: its gradient is never formed, so {name!r} cannot be computed: use "
            "st.weightless.gradient_norms, st.weightless.clip_grad_norm_ and st.weightless.SGD"
        )
    if "detach" in name or name == "data":
        raise InputError(
            f"{tensor._cannot('saved, copied or converted')}, with dtype=torch.float64 for double precision"
        )
    if name.endswith("_") and not name.startswith("_"):
        raise InputError(
            f"{tensor.source.name}: {name!r} cannot set the values of a weightless parameter: initialise it inside the "
            "function that builds the model; trained weights cannot be weightless"
        )
    if name in ("embedding", "conv1d", "conv2d"):
        raise InputError(
            f"{tensor.source.name}: {name!r} works without weights only as an embedding without max_norm and "
            "scale_grad_by_freq, or a convolution of one group with padding in numbers; use real weights otherwise"
        )
    raise InputError(tensor.source.refusal(repr(name)))


def first_weightless(given: Any) -> WeightlessTensor:
    """Return the first weightless tensor in nested arguments."""
    return next(found for found in _tensors(given) if isinstance(found, WeightlessTensor))


def _tensors(given: Any) -> Any:
    """Yield all tensors in nested arguments."""
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, dict):
        yield from _tensors(tuple(given.values()))
    elif isinstance(given, tuple | list):
        for one in given:
            yield from _tensors(one)
