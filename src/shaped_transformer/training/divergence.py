"""Divergence of a run: detected at once, and reported with the step, the block and advice."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import ShapedTransformerError
from .watch import blocks_of, gradient_norms

AVERAGED_SEQUENCES = 16
"""Losses are compared as means over at least this many sequences, because single ones differ too much."""


def averaged_steps(batch: int) -> int:
    """Return the number of steps over which losses are averaged before they are compared."""
    return -(-AVERAGED_SEQUENCES // batch)


class Spikes:
    """Detects a spike of the loss: a mean over the last steps that exceeds a multiple of the first such mean.

    **Arguments:**

    - `factor`: the multiple that counts as a spike.
    - `steps`: number of steps in each mean.
    - `begin`, `recent`: losses of the first and of the last steps, in a resumed run; default none.
    """

    def __init__(self, factor: float, steps: int, begin: Iterable[float] = (), recent: Iterable[float] = ()) -> None:
        self.factor, self.steps = factor, steps
        self.begin, self.recent = list(begin), deque(recent, maxlen=steps)

    def message(self, loss: float) -> str:
        """Add the loss of the next step; return a message if it is a spike, else an empty string."""
        self.recent.append(loss)
        if len(self.begin) < self.steps:
            self.begin.append(loss)
        first, now = (sum(losses) / self.steps for losses in (self.begin, self.recent))
        if len(self.recent) < self.steps or len(self.begin) < self.steps or not now > self.factor * first:
            return ""
        return f"the loss is {now:.4g}, more than {self.factor:g} times its first value {first:.4g}"


class Diverged(ShapedTransformerError):  # noqa: N818 - the name says what happened
    """Training diverged: the loss or a gradient is not finite, or the loss has a spike.

    **Arguments:**

    - `step`: at which training diverged; it is also an attribute.
    - `reason`, `location`, `advice`: parts of the message.
    """

    def __init__(self, step: int, reason: str, location: str, advice: str) -> None:
        super().__init__(f"training diverged at step {step}: {reason}; {location}. {advice}")
        self.step = step


def locate_divergence(model: nn.Module, inputs: dict[str, Any]) -> str:
    """Run a batch forward and backward again, and describe the block in which it diverges."""
    blocks, norms = blocks_of(model), []

    def record(_: Any, arguments: Any, output: Any) -> None:
        norms.append((float(arguments[0].detach().norm()), float(output.detach().norm())))

    handles = [block.mlp.register_forward_hook(record) for block in blocks]
    try:
        model.zero_grad()
        with torch.enable_grad():
            loss = model(**inputs).loss
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    gradients, count = gradient_norms(blocks), len(blocks)  # gathered by all processes, before one may return
    for index, (_, norm) in enumerate(norms, 1):
        if not math.isfinite(norm):
            return f"block {index} of {count} is the first whose output is not finite"
    for index in range(count, 0, -1):
        if not math.isfinite(gradients[index - 1]):
            return f"block {index} of {count} is the last whose gradient is not finite"
    first, last = norms[0][0], max(norm for _, norm in norms)
    largest = max(range(count), key=lambda i: gradients[i]) + 1
    return (
        f"the gradient is largest in block {largest} of {count} ({gradients[largest - 1]:.2g}), and the norm of the "
        f"residual stream grows by a factor {last / max(first, 1e-30):.2g} through the blocks"
    )
