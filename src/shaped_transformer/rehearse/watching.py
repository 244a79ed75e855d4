"""What is seen of a model in one pass of a rehearsal: the tokens of each layer in full, beside what a probe sees."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..numerics.arrays import Floats
from ..probe.attention import AttentionRow
from ..probe.observation import Observation, Seen
from ..probe.tokens import Tokens


class Watch(Observation):
    """Collects what the hooks see, and the tokens of each layer.

    **Arguments:**

    - `tokens`: chooses the tokens.
    """

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self.streams: dict[str, Tensor] = {}

    def _record(self, name: str, x: Tensor, before: Any) -> None:
        super()._record(name, x, before)
        self.streams[name] = torch.cat(self.tokens.sequences(x.detach(), name)).clone()


@dataclass(frozen=True)
class Pass:
    """What one pass showed.

    **Arguments:**

    - `loss`: of the batch.
    - `layers`: what a probe sees of each layer; gradients where the pass was a training step.
    - `streams`: the tokens of each layer, (tokens, width).
    - `attention`: numbers of attention layers, where they can be had.
    - `outputs`: the model's first output, (tokens, outputs), such as logits.
    """

    loss: float
    layers: dict[str, Seen]
    streams: dict[str, Tensor]
    attention: dict[str, AttentionRow]
    outputs: Tensor

    @property
    def broken(self) -> str | None:
        """Name of the first layer with infinite or undefined numbers, `"output"`, `"loss"`, or `None`."""
        for name, seen in self.layers.items():
            if not seen.finite:
                return name
        if not bool(torch.isfinite(self.outputs).all()):
            return "output"
        return None if np.isfinite(self.loss) else "loss"


def changes(now: dict[str, Tensor], first: dict[str, Tensor]) -> Floats:
    """Return ‖X − X₀‖/‖X₀‖ of each layer, (layers,), 0 where X₀ is 0."""
    return np.array([relative(now[name] - first[name], first[name]) for name in first])


def branches(streams: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what each layer adds to the one before it, where both have one shape."""
    names = list(streams)
    return {
        name: streams[name] - streams[before]
        for before, name in pairwise(names)
        if streams[before].shape == streams[name].shape and not name.endswith(".input")
    }


def relative(change: Tensor, size: Tensor) -> float:
    """Return ‖change‖/‖size‖ in Frobenius norms, 0 where the size is 0."""
    total = float(torch.linalg.vector_norm(size, dtype=torch.float64))
    return float(torch.linalg.vector_norm(change, dtype=torch.float64)) / total if total > 0 else 0.0
