"""What a rehearsal costs, told before it starts: memory, and the time in which AdamW's updates are made."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weightless.matrices.adam import KEPT_ENTRIES, AdamSum, Settings
from ..weightless.matrices.ledger import Ledger, machine_memory
from ..weightless.matrices.pair import Pair
from ..weightless.parameters.tensor import WeightlessTensor

HISTORY = 6
"""Numbers kept for each coordinate of a vector that meets a matrix in a step: directions and images of both sides, and
the vectors themselves, of which matrices with one input share a copy."""

USABLE = 0.8
"""Share of the machine's memory that a rehearsal may take."""


TRIAL = (1024, 8192)
"""Shape of the matrix whose updates are made to measure the speed of this machine."""

FURTHER = 0.6
"""Time that each further step adds, as a share of that of the first."""


@dataclass(frozen=True)
class Estimate:
    """What a rehearsal takes, within a third or so.

    **Arguments:**

    - `seconds`: in which updates of AdamW are made, most of the time of a large model.
    - `gigabytes`: of memory, in units of 10⁹ bytes, beside that of the libraries.
    """

    seconds: float
    gigabytes: float


def estimate(model: nn.Module, tokens: int, steps: int) -> Estimate:
    """Return what a rehearsal with AdamW takes, from a trial on this machine.

    **Arguments:**

    - `model`: weightless.
    - `tokens`: of a batch.
    - `steps`: of the optimiser.
    """
    entries = streamed_entries(model)
    passes = [3 if step < steps else 2 for step in range(1, steps + 1)]  # size of the update, forward, backward
    each = _seconds(tokens, steps) if entries else [0.0] * steps
    seconds = entries * sum(count * one for count, one in zip(passes, each, strict=True))
    return Estimate(seconds, bytes_per_token(model, steps) * tokens / 1e9)


def streamed_entries(model: nn.Module) -> int:
    """Return the number of entries of the matrices whose updates are made in each pass and dropped."""
    tables = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    heads = {id(getattr(one, "weight", None)) for one in model.modules() if not isinstance(one, nn.Embedding)}
    return sum(  # of a table that is no head, only rows that were looked up change
        p.numel()
        for p in model.parameters()
        if isinstance(p, WeightlessTensor) and p.numel() > KEPT_ENTRIES and (id(p) not in tables or id(p) in heads)
    )


def _seconds(tokens: int, steps: int) -> list[float]:
    """Return the seconds for an entry of a matrix after one step, two steps, and so on."""
    left, right = (torch.linspace(-1, 1, tokens * n).view(tokens, n) for n in TRIAL)
    some = AdamSum("trial", TRIAL, Ledger(0, torch.float32, 0.0), Settings((0.9, 0.999), 1e-8))
    some.step({Pair(left, right): 1.0}, 1.0)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        some.product("left", left)
        times.append(time.perf_counter() - start)
    once = min(times) / math.prod(TRIAL)
    return [once * (1 + FURTHER * step) for step in range(steps)]


def tokens_of(batch: Any, model: nn.Module) -> int:
    """Return the number of tokens of a batch; of images, those of their patches and one more for each image."""
    first = next(iter(batch.values()), None) if isinstance(batch, Mapping) else batch
    patch = getattr(getattr(model, "config", None), "patch_size", None)
    if isinstance(first, Tensor) and first.dim() == 4 and isinstance(patch, int):
        return int(first.shape[0] * ((first.shape[2] // patch) * (first.shape[3] // patch) + 1))
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
    each, tokens = bytes_per_token(model, steps), max(tokens_of(batch, model) for batch in batches)
    if each * tokens > limit:
        fitting = int(limit / each)
        way_out = f"at most {fitting:,} tokens fit, or take fewer steps" if fitting else "take fewer steps"
        raise InputError(
            f"{tokens:,} tokens and {steps} steps need about {each * tokens / 1e9:.3g} GB, more than the limit of "
            f"{limit / 1e9:.3g} GB: {way_out}"
        )
