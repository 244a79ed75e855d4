"""The tangent kernel of a given model, real or weightless."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check_number
from ..errors import InputError, counted
from ..numerics.arrays import Floats
from ..weightless.network import ATTRIBUTE
from .grams import kernel_from_grams
from .jacobian import kernel_from_jacobian, taken

MOST_ROWS = 10_000
"""Most rows of a kernel: each takes a backward pass."""

Outputs = Callable[[Any], Tensor] | Sequence[int] | None


def of(
    model: nn.Module,
    inputs: Any,
    *,
    outputs: Outputs = None,
    parameters: str | Sequence[str] | None = None,
    memory: float = 1.0,
) -> Floats:
    """Return the empirical tangent kernel Θ = J Jᵀ of a model, J the derivatives of its outputs by its parameters.

    Of a real model J is computed by `torch.func` in parts that fit into `memory`. Of a weightless one Θ is made of
    inner products of the vectors that each weight has met, with one backward pass for each row (theory §8).

    ```python
    model = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Tanh(), torch.nn.Linear(50, 2))
    st.ntk.of(model, torch.randn(4, 3)).shape  # (8, 8)
    unseen = st.weightless.build(lambda: st.ntk.module(st.ntk.Perceptron(width=1024, depth=3)), seed=0)
    st.ntk.of(unseen, torch.randn(2, 1024)).shape  # (2, 2)
    ```

    **Arguments:**

    - `model`: any module, or one of `st.weightless.build` or `from_config`. It is evaluated in evaluation mode, without
      dropout, whatever its mode.
    - `inputs`: what the model is called with: a tensor, a tuple of positional arguments, or a mapping of arguments by
      name, such as a tokenizer's.
    - `outputs`: which outputs count. A function of the model's result that returns a tensor, (P,) or (P, …), P inputs,
      such as `lambda out: out.logits[:, -1, :4]`; or numbers of outputs, at the last token where the result has tokens.
      Default: all of a result of shape (P,) or (P, D).
    - `parameters`: a pattern of names, such as `"*.mlp.*"`, or several; default all parameters that require gradients.
    - `memory`: gigabytes (10⁹ bytes) that parts of J may take, default 1; a real model only. A row of J for the largest
      parameter is formed in any case.

    **Returns:** Θ, (P·D, P·D): output k of input i has the number i·D + k. Gradients of a real model are untouched,
    those of a weightless one are cleared. The kernel of a weightless model belongs to its network, and later passes
    are consistent with it.

    **Raises:** `InputError` for inputs, outputs or patterns that do not fit, an infinite kernel, or a weightless
    model that did not keep what it met (`history=True` keeps it).
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a torch.nn.Module is expected (got {type(model).__name__})")
    limit = check_number(memory, "memory")
    if not limit > 0:
        raise InputError(f"memory must be a positive number of gigabytes (got {memory!r})")
    names = _chosen(model, parameters)
    arguments, named = _arguments(inputs)
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        if hasattr(model, ATTRIBUTE):
            with torch.enable_grad():
                with taken():
                    rows = _flat(model(*arguments, **named), outputs)
                found = kernel_from_grams(model, rows, names)
        else:

            def call(values: dict[str, Tensor]) -> Tensor:
                return _flat(torch.func.functional_call(model, values, arguments, named), outputs)

            found = kernel_from_jacobian(model, call, names, limit * 1e9)
    finally:
        for part, training in modes:
            part.training = training
    if not np.isfinite(found).all():
        raise InputError(
            "the kernel is not finite: the inputs, the model's outputs or their derivatives hold NaN or overflow"
        )
    return found


def _chosen(model: nn.Module, patterns: str | Sequence[str] | None) -> list[str]:
    """Return the names of the parameters that require gradients and fit a pattern.

    **Raises:** `InputError` where there is none.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that requires gradients")
    if patterns is None:
        return trained
    if not isinstance(patterns, Iterable):
        raise InputError(f"parameters must be a pattern of names, such as '*.weight', or several (got {patterns!r})")
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in given:
        if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in trained):
            raise InputError(f"no parameter that requires gradients matches {pattern!r}: a name is {trained[0]!r}")
    return [name for name in trained if any(fnmatchcase(name, pattern) for pattern in given)]


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the model is called with, by position and by name."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _flat(result: Any, outputs: Outputs) -> Tensor:
    """Return the chosen outputs in a row, (P·D,).

    **Raises:** `InputError` where they are not clear, or too many.
    """
    if callable(outputs):
        chosen = outputs(result)
        if not isinstance(chosen, Tensor):
            raise InputError(f"outputs must return a tensor (got {type(chosen).__name__})")
    else:
        chosen = _tensor(result)
        if outputs is not None:
            chosen = _numbered(chosen, outputs)
        elif chosen.ndim > 2:
            raise InputError(
                f"the model's result has the shape {tuple(chosen.shape)}: say which outputs count, such as "
                "outputs=[0, 1], or a function, outputs=lambda out: …"
            )
    if not chosen.is_floating_point():
        raise InputError(f"outputs must be real numbers (got {chosen.dtype})")
    if not 0 < chosen.numel() <= MOST_ROWS:
        raise InputError(
            f"the inputs have {counted(chosen.numel(), 'output')} in all: choose from 1 to {MOST_ROWS:,} with outputs="
        )
    return chosen.reshape(-1)


def _tensor(result: Any) -> Tensor:
    """Return the tensor of a model's result: itself, or the logits or hidden states of Hugging Face.

    **Raises:** `InputError` where there is none.
    """
    if isinstance(result, Tensor):
        return result
    for name in ("logits", "last_hidden_state"):
        if isinstance(found := getattr(result, name, None), Tensor):
            return found
    raise InputError(
        f"the model's result is a {type(result).__name__}: say what counts with a function, outputs=lambda out: …"
    )


def _numbered(result: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return outputs by their numbers, (P, D), at the last token where there are tokens.

    **Raises:** `InputError` for numbers that the result does not have.
    """
    if result.ndim not in (2, 3):
        raise InputError(f"outputs by number need a result (P, D) or (P, tokens, D) (got {tuple(result.shape)})")
    width = result.shape[-1]
    try:
        chosen = [index(number) for number in numbers]
    except (TypeError, ValueError):
        raise InputError(
            f"outputs must be numbers of outputs, such as [0, 1], or a function (got {numbers!r})"
        ) from None
    if not chosen or not all(-width <= number < width for number in chosen):
        raise InputError(f"outputs must be whole numbers below {width} (got {numbers!r})")
    return (result[:, -1] if result.ndim == 3 else result)[:, chosen]
