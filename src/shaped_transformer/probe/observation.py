"""Watches the blocks of a model during one pass; each layer's tokens are reduced to their Gram matrix at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..numerics.arrays import Floats
from .attention import AttentionRow, attention_row
from .tokens import Tokens, covariance, first_tensor


@dataclass
class Seen:
    """What was seen of one layer.

    **Arguments:**

    - `covariance`: V of each sequence, (m, m).
    - `branch`: ‖output − input‖²/‖output‖² of each sequence, if the input is a tensor of the same shape.
    - `gradient`: GGᵀ/n of the gradients of the tokens of each sequence; empty before the backward pass.
    """

    covariance: list[Floats]
    branch: list[float] | None = None
    gradient: list[Floats] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        """Whether all tokens were finite."""
        return all(np.isfinite(one).all() for one in self.covariance)


class Observation:
    """Collects what the hooks see.

    **Arguments:**

    - `tokens`: chooses the tokens.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.layers: dict[str, Seen] = {}
        self.attention: dict[str, AttentionRow] = {}
        self.active = True
        self._calls: Counter[str] = Counter()

    def block(self, name: str, first: str | None, inputs: Tensor | None, output: Any) -> None:
        """Record the output of a block, and its input where it is the first of its list.

        **Arguments:**

        - `name`: of the block.
        - `first`: name for the input, of the first block of a list.
        - `inputs`: what the block was given.
        - `output`: what it returned.
        """
        if not self.active:  # checkpointing runs blocks again
            return
        self._calls[name] += 1
        calls = self._calls[name]
        out = first_tensor(output)
        if out is None:
            raise InputError(f"{name} returns no floating tensor: choose other layers with layers=")
        if first is not None and calls == 1 and inputs is not None:
            self._record(first, inputs, None)
        self._record(name if calls == 1 else f"{name}#{calls}", out, inputs)

    def attend(self, name: str, output: Any) -> None:
        """Record the attention of a module that returns it."""
        if self.active and (row := attention_row(output, self.tokens.masks)) is not None:
            self._calls[f"{name} attention"] += 1
            calls = self._calls[f"{name} attention"]
            self.attention[name if calls == 1 else f"{name}#{calls}"] = row

    def _record(self, name: str, x: Tensor, before: Tensor | None) -> None:
        """Reduce a layer's tokens, and watch their gradient."""
        parts = self.tokens.sequences(x.detach(), name)
        seen = Seen([covariance(part) for part in parts])
        if before is not None and before.shape == x.shape and before.dtype == x.dtype:
            pairs = zip(parts, self.tokens.sequences(before.detach(), name), strict=True)
            seen.branch = [_share(after, earlier) for after, earlier in pairs]
        self.layers[name] = seen
        if x.requires_grad:

            def gradient(g: Tensor) -> None:
                seen.gradient = [covariance(part) for part in self.tokens.sequences(g.detach(), name)]

            x.register_hook(gradient)


def _share(after: Tensor, before: Tensor) -> float:
    """Return ‖after − before‖²/‖after‖², 0 where after is 0."""
    total = float(torch.linalg.vector_norm(after, dtype=torch.float64) ** 2)
    return float(torch.linalg.vector_norm(after - before, dtype=torch.float64) ** 2) / total if total > 0 else 0.0


@contextmanager
def observed(
    model: nn.Module, blocks: dict[str, nn.Module], tokens: Tokens, *, attention: bool
) -> Iterator[Observation]:
    """Observe the blocks of a model while the context lasts; afterwards the hooks are gone.

    **Arguments:**

    - `model`: any module.
    - `blocks`: the modules whose outputs are layers.
    - `tokens`: chooses the tokens.
    - `attention`: whether to record attention too.
    """
    observation = Observation(tokens)
    firsts: dict[str, str] = {}
    for name in blocks:
        stack, _, last = name.rpartition(".")
        if last.isdigit() and stack not in firsts.values():
            firsts.setdefault(name, stack)
    handles = []
    try:
        for name, block in blocks.items():
            first = f"{firsts[name]}.input" if name in firsts else None
            handles.append(block.register_forward_hook(_block_hook(observation, name, first), with_kwargs=True))
        if attention:
            for name, module in model.named_modules():
                handles.append(module.register_forward_hook(_attention_hook(observation, name)))
        yield observation
    finally:
        for handle in handles:
            handle.remove()


def _block_hook(observation: Observation, name: str, first: str | None) -> Any:
    """Return a forward hook for a block."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = first_tensor(args)
        observation.block(name, first, first_tensor(kwargs) if inputs is None else inputs, output)

    return hook


def _attention_hook(observation: Observation, name: str) -> Any:
    """Return a forward hook for a module that may return its attention."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        observation.attend(name, output)

    return hook
