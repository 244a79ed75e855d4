"""The tangent kernel of a real model from its Jacobian, in parts that fit into memory."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, ShapedTransformerError
from ..numerics.arrays import Floats
from ..weightless.matrices.factor import gram

ROWS = 16
"""Number of rows of the Jacobian that one vectorised backward pass computes: it holds as many sets of activations."""

Values = dict[str, Tensor]
"""Values of parameters by name."""

Call = Callable[[Values], Tensor]
"""Values of parameters and buffers → the outputs in a row."""


MISTAKES = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)
"""Exceptions by which models say that they do not take their inputs."""


@contextmanager
def taken() -> Iterator[None]:
    """Turn the exceptions of a model, or of the function of its result, into one line.

    **Raises:** `InputError`, with the exception as its cause.
    """
    try:
        yield
    except ShapedTransformerError:
        raise
    except MISTAKES as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise InputError(
            f"the model does not take these inputs, or outputs= not its result: {type(error).__name__}: {line}. Inputs "
            "are a tensor, a tuple of arguments, or a mapping of arguments by name"
        ) from error


def kernel_from_jacobian(model: nn.Module, call: Call, names: list[str], limit: float) -> Floats:
    """Return Θ = J Jᵀ, summed over groups of parameters.

    **Arguments:**

    - `model`: the module.
    - `call`: computes its outputs, (rows,), with given values.
    - `names`: of the parameters that count.
    - `limit`: bytes that parts of J may take; one row of the largest parameter is formed in any case.

    **Raises:** `InputError` where the model does not take its inputs.
    """
    values = {name: one.detach() for name, one in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad(), taken():
        count = len(call({name: one.clone() for name, one in values.items()}))
    kernel = np.zeros((count, count))
    for group in _groups(values, names, limit / count):
        size = sum(values[name].nbytes for name in group)
        whole = count * size <= limit
        step = count if whole else max(1, int(limit // (2 * size)))
        parts = [range(start, min(start + step, count)) for start in range(0, count, step)]
        jacobian = _Jacobian(call, values, group, count)
        for number, some in enumerate(parts):
            first = jacobian.rows(some)
            for others in parts[number:]:
                second = first if others is some else jacobian.rows(others)
                block = np.sum([gram(first[name], second[name]).numpy() for name in group], axis=0)
                kernel[np.ix_(some, others)] += block
                if others is not some:
                    kernel[np.ix_(others, some)] += block.T
    return kernel


def _groups(values: Values, names: list[str], limit: float) -> Iterator[list[str]]:
    """Yield the parameters in groups of at most `limit` bytes, or of one parameter."""
    group: list[str] = []
    for name in names:
        if group and sum(values[one].nbytes for one in (*group, name)) > limit:
            yield group
            group = []
        group.append(name)
    yield group


class _Jacobian:
    """Rows of the Jacobian by some parameters."""

    def __init__(self, call: Call, values: Values, names: list[str], count: int) -> None:
        self.call, self.values, self.names, self.count = call, values, names, count
        self.vectorised = True

    def rows(self, numbers: range) -> Values:
        """Return rows by parameter, (rows, entries)."""
        if self.vectorised:
            try:
                return self._vectorised(numbers)
            except (RuntimeError, NotImplementedError):  # a function that PyTorch cannot transform, or no memory
                self.vectorised = False
        return self._one_by_one(numbers)

    def _with(self, chosen: Values) -> Values:
        """Return all values, those of the chosen parameters replaced; buffers are copies, as models may change them."""
        return {name: one.clone() for name, one in self.values.items() if name not in chosen} | chosen

    def _vectorised(self, numbers: range) -> Values:
        """Return the rows by vectorised backward passes."""
        chosen = {name: self.values[name] for name in self.names}
        found = torch.func.vjp(lambda values: self.call(self._with(values)), chosen)
        pull = found[1]
        sample = next(iter(chosen.values()))
        unit = torch.eye(self.count, dtype=sample.dtype, device=sample.device)[numbers.start : numbers.stop]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")  # of fused attention, under vmap
            (rows,) = torch.vmap(pull, chunk_size=ROWS)(unit)
        return {name: rows[name].flatten(1).cpu() for name in self.names}

    def _one_by_one(self, numbers: range) -> Values:
        """Return the rows by one backward pass each, for models with functions that PyTorch cannot transform."""
        chosen = {name: self.values[name].clone().requires_grad_() for name in self.names}
        with torch.enable_grad():
            outputs = self.call(self._with(chosen))
        found: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for number in numbers:
            gradients = torch.autograd.grad(
                outputs[number], list(chosen.values()), retain_graph=number < numbers[-1], allow_unused=True
            )
            for (name, value), gradient in zip(chosen.items(), gradients, strict=True):
                found[name].append((torch.zeros_like(value) if gradient is None else gradient).flatten().cpu())
        return {name: torch.stack(rows) for name, rows in found.items()}
