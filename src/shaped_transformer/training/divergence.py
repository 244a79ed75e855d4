"""Training that fails: said at once, with the step, the block and the way out."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import ShapedTransformerError
from .watch import blocks_of, gradient_norms

SEQUENCES = 16
"""Losses are compared as means over at least so many sequences: single ones differ too much."""


def compared_steps(batch: int) -> int:
    """Return over how many steps a loss is a mean where losses are compared."""
    return -(-SEQUENCES // batch)


class Spikes:
    """Tells a loss that has leapt up, from the losses of steps as they come.

    **Arguments:** `factor`: how many times the first mean is too much; `steps`: over which means are taken; `begin`,
    `recent`: losses of the first and of the last steps, of a run that goes on.
    """

    def __init__(self, factor: float, steps: int, begin: Iterable[float] = (), recent: Iterable[float] = ()) -> None:
        self.factor, self.steps = factor, steps
        self.begin, self.recent = list(begin), deque(recent, maxlen=steps)

    def told(self, loss: float) -> str:
        """Take the loss of the next step; return what is wrong with it, or nothing."""
        self.recent.append(loss)
        if len(self.begin) < self.steps:
            self.begin.append(loss)
        first, now = (sum(losses) / self.steps for losses in (self.begin, self.recent))
        if len(self.recent) < self.steps or len(self.begin) < self.steps or not now > self.factor * first:
            return ""
        return f"the loss is {now:.4g}, {self.factor:g} times its first value {first:.4g} or more"


class Diverged(ShapedTransformerError):  # noqa: N818 - the name says what happened
    """The loss or a gradient stopped being finite, or the loss leapt up; `step` says when."""

    def __init__(self, step: int, what: str, where: str, way_out: str) -> None:
        super().__init__(f"training diverged at step {step}: {what}; {where}. {way_out}")
        self.step = step


def where(model: nn.Module, inputs: dict[str, Any]) -> str:
    """Run a batch forward and backward once more, and name the block in which it goes wrong."""
    blocks, sizes = blocks_of(model), []

    def look(_: Any, given: Any, made: Any) -> None:
        sizes.append((float(given[0].detach().norm()), float(made.detach().norm())))

    handles = [block.mlp.register_forward_hook(look) for block in blocks]
    try:
        model.zero_grad()
        with torch.enable_grad():
            loss = model(**inputs).loss
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    gradients, count = gradient_norms(blocks), len(blocks)  # asked for by all processes, whatever each sees below
    for index, (_, size) in enumerate(sizes, 1):
        if not math.isfinite(size):
            return f"block {index} of {count} is the first whose output is not finite"
    for index in range(count, 0, -1):
        if not math.isfinite(gradients[index - 1]):
            return f"block {index} of {count} is the last whose gradient is not finite"
    first, last = sizes[0][0], max(size for _, size in sizes)
    largest = max(range(count), key=lambda i: gradients[i]) + 1
    return (
        f"the gradient is largest in block {largest} of {count} ({gradients[largest - 1]:.2g}), and the stream's norm "
        f"grows by a factor {last / max(first, 1e-30):.2g} through the blocks"
    )
