"""Watches the blocks of a model during one pass; each layer's tokens are reduced to their Gram matrix at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
    - `watched`: whether a hook waits for the gradient.
    - `overwritten`: whether the tensor was overwritten later in a way that hides its gradient.
    """

    covariance: list[Floats]
    branch: list[float] | None = None
    gradient: list[Floats] = field(default_factory=list)
    watched: bool = False
    overwritten: bool = False

    @property
    def finite(self) -> bool:
        """Whether all tokens were finite."""
        return all(np.isfinite(one).all() for one in self.covariance)


@dataclass(frozen=True)
class _Input:
    """The chosen tokens of a block's input, copied, and its shape and precision."""

    shape: torch.Size
    dtype: torch.dtype
    tokens: list[Tensor]


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
        self._inputs: dict[str, list[_Input | None]] = {}
        self._severed: set[str] = set()
        self._views: list[tuple[str, Tensor, int]] = []

    def enter(self, name: str, first: str | None, inputs: Tensor | None) -> Tensor | None:
        """Keep the chosen tokens of a block's input, since the block may overwrite it; record that of the first block.

        **Arguments:**

        - `name`: of the block.
        - `first`: name for the input, of the first block of a list.
        - `inputs`: what the block is given.

        **Returns:** a copy of the input that has a gradient, to be given to the block in its place, or `None`. The
        first block needs one where all before it is frozen.
        """
        new = None
        if first is not None and inputs is not None and inputs.dim() in (2, 3) and not inputs.requires_grad:
            start = self.active and not self._calls[name] and torch.is_grad_enabled()
            if start or (not self.active and name in self._severed):
                self._severed.add(name)
                inputs = new = inputs.detach().requires_grad_().clone()  # a copy: blocks may work in place
        if self.active:
            tokens = None
            if inputs is not None and inputs.dim() in (2, 3) and 0 not in inputs.shape:
                tokens = _Input(inputs.shape, inputs.dtype, self.tokens.sequences(inputs.detach(), name))
                if first is not None and not self._calls[name]:
                    self._record(first, inputs, None)
            self._inputs.setdefault(name, []).append(tokens)
        return new

    def leave(self, name: str, output: Any) -> None:
        """Record the output of a block.

        **Raises:** `InputError` where it has no tensor of tokens.
        """
        out = first_tensor(output)
        if not self.active:  # checkpointing runs blocks again
            self._late(name, out)
            return
        self._calls[name] += 1
        calls = self._calls[name]
        if out is None:
            raise InputError(f"{name} returns no floating-point tensor: choose other layers with layers=")
        self._record(name if calls == 1 else f"{name}#{calls}", out, self._inputs[name].pop())

    def attend(self, name: str, output: Any) -> None:
        """Record the attention of a module that returns it, unless a part of the module has returned it before."""
        if not self.active or any(other.startswith(f"{name}.") for other in self.attention):
            return
        if (row := attention_row(output, lambda shape: self.tokens.mask(shape, name))) is not None:
            self._calls[f"{name} attention"] += 1
            calls = self._calls[f"{name} attention"]
            self.attention[name if calls == 1 else f"{name}#{calls}"] = row

    def _record(self, name: str, x: Tensor, before: "_Input | None") -> None:
        """Reduce a layer's tokens, and watch their gradient."""
        parts = self.tokens.sequences(x.detach(), name)
        seen = Seen([covariance(part) for part in parts])
        if before is not None and before.shape == x.shape and before.dtype == x.dtype:
            seen.branch = [_share(after, earlier) for after, earlier in zip(parts, before.tokens, strict=True)]
        self.layers[name] = seen
        if x.requires_grad:
            self._watch(name, x)

    def _watch(self, name: str, x: Tensor) -> None:
        """Reduce the gradient of a layer's tokens once it is known."""
        seen = self.layers[name]

        def gradient(g: Tensor) -> None:
            seen.gradient = [covariance(part) for part in self.tokens.sequences(g.detach(), name)]

        x.register_hook(gradient)
        seen.watched = True
        if x._is_view():  # once a view is overwritten, its hook sees only part of the gradient
            self._views.append((name, x.detach(), x._version))

    def end_forward(self) -> None:
        """Note that the forward pass is over, and which layers have been overwritten so that gradients are lost."""
        self.active = False
        for name, view, version in self._views:
            self.layers[name].overwritten = view._version != version
        self._views.clear()

    def _late(self, name: str, x: Tensor | None) -> None:
        """Watch the gradient of a block that ran without gradients first, as in reentrant checkpointing."""
        seen = self.layers.get(name)
        if x is not None and x.requires_grad and seen is not None and not seen.watched and self._calls[name] == 1:
            self._watch(name, x)


def _share(after: Tensor, before: Tensor) -> float:
    """Return ‖after − before‖²/‖after‖², 0 where after is 0."""
    total = float(torch.linalg.vector_norm(after, dtype=torch.float64) ** 2)
    return float(torch.linalg.vector_norm(after - before, dtype=torch.float64) ** 2) / total if total > 0 else 0.0


Seeing = TypeVar("Seeing", bound=Observation)


@contextmanager
def observed(
    model: nn.Module, blocks: dict[str, nn.Module], observation: Seeing, *, attention: bool
) -> Iterator[Seeing]:
    """Observe the blocks of a model while the context lasts; afterwards the hooks are gone.

    **Arguments:**

    - `model`: any module.
    - `blocks`: the modules whose outputs are layers.
    - `observation`: collects what is seen.
    - `attention`: whether to record attention too.
    """
    firsts: dict[str, str] = {}
    for name in blocks:
        stack, _, last = name.rpartition(".")
        if last.isdigit() and stack not in firsts.values():
            firsts.setdefault(name, stack)
    handles = []
    try:
        for name, block in blocks.items():
            first = f"{firsts[name]}.input".lstrip(".") if name in firsts else None
            handles.append(block.register_forward_pre_hook(_entry_hook(observation, name, first), with_kwargs=True))
            handles.append(block.register_forward_hook(_exit_hook(observation, name)))
        if attention:
            for name, module in model.named_modules():
                handles.append(module.register_forward_hook(_attention_hook(observation, name)))
        yield observation
    finally:
        for handle in handles:
            handle.remove()


def _entry_hook(observation: Observation, name: str, first: str | None) -> Any:
    """Return a hook that runs before a block."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        inputs = first_tensor(args)
        inputs = first_tensor(kwargs) if inputs is None else inputs
        new = observation.enter(name, first, inputs)
        if new is None:
            return None
        swap = lambda one: new if one is inputs else one  # noqa: E731
        return tuple(map(swap, args)), {key: swap(one) for key, one in kwargs.items()}

    return hook


def _exit_hook(observation: Observation, name: str) -> Any:
    """Return a hook that runs after a block."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        observation.leave(name, output)

    return hook


def _attention_hook(observation: Observation, name: str) -> Any:
    """Return a forward hook for a module that may return its attention."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        observation.attend(name, output)

    return hook
