"""What a rehearsal costs, told before it starts: memory, and the time of streamed updates."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..weightless.matrices.ledger import machine_memory
from ..weightless.parameters.tensor import WeightlessTensor

HISTORY = 6
"""Numbers kept for each coordinate of a vector that meets a matrix in a step: directions and images of both sides, and
the vectors themselves, of which matrices with one input share a copy."""

USABLE = 0.8
"""Share of the machine's memory that a rehearsal may take."""


def tokens_of(batch: Any) -> int:
    """Return the number of tokens of a batch."""
    first = next(iter(batch.values())) if isinstance(batch, Mapping) else batch
    return int(first.shape[0] * first.shape[1]) if isinstance(first, Tensor) and first.dim() > 1 else 1


def bytes_per_token(model: nn.Module, steps: int) -> float:
    """Return about how many bytes a token takes in a rehearsal of some steps."""
    sides = 0
    for parameter in model.parameters():
        if isinstance(parameter, WeightlessTensor):
            *stack, a, b = parameter.shape
            sides += (a + b) * (stack[0] if len(stack) == 1 else 1)
    itemsize = next((p.itemsize for p in model.parameters()), 4)
    return float(HISTORY * sides * itemsize * (steps + 0.5))


def check_memory(model: nn.Module, batches: Sequence[Any], steps: int, memory: float | None) -> None:
    """Check that a rehearsal fits into memory.

    **Arguments:**

    - `model`: weightless.
    - `batches`: what it is trained on.
    - `steps`: their number.
    - `memory`: gigabytes that may be used, default 80 % of the machine's.

    **Raises:** `InputError` with the number of tokens that fits otherwise.
    """
    limit = USABLE * machine_memory() if memory is None else memory * 1e9
    each, tokens = bytes_per_token(model, steps), max(map(tokens_of, batches))
    if each * tokens > limit:
        raise InputError(
            f"{tokens:,} tokens and {steps} steps need about {each * tokens / 1e9:.3g} GB, more than the limit of "
            f"{limit / 1e9:.3g} GB: at most {int(limit / each):,} tokens fit, or take fewer steps"
        )
