"""Values of a recorded tensor: its operations repeated on real memory, with fresh random numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from .events import WRITTEN, Given, Reference, State, reachable, transform

Draw = Callable[[tuple[int, ...]], Tensor]

STANDARD = {"normal_": "normal", "randn": "normal", "randn_like": "normal", "normal": "normal"} | dict.fromkeys(
    ("uniform_", "rand", "rand_like"), "uniform"
)
"""The operations that draw from a normal or a uniform distribution of constant parameters."""

NO_CONTENT = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
"""The operations that leave memory as they find it."""


def moments(state: State) -> tuple[float, float]:
    """Return location and scale of a standard random operation: mean and std, or least value and length."""
    if state.name not in ("normal_", "normal", "uniform_"):
        return 0.0, 1.0
    numbers = [float(a) for a in state.arguments if isinstance(a, int | float)]
    named = ("from", "to") if state.name == "uniform_" else ("mean", "std")
    first, second = (
        float(numbers[n] if n < len(numbers) else state.options.get(named[n], (0.0, 1.0)[n])) for n in range(2)
    )
    return first, second - first if state.name == "uniform_" else second


def is_standard(state: State) -> bool:
    """Whether the operation draws iid real entries with numbers as parameters (`torch.normal` also takes tensors)."""
    constant = state.name != "normal" or not (
        state.references() or any(isinstance(argument, Given) for argument in state.arguments)
    )
    return state.name in STANDARD and constant and state.region.dtype.is_floating_point


@dataclass
class Replay:
    """The sources of random numbers, and the storages already drawn: what several tensors share is drawn once.

    **Arguments:**

    - `normals`, `uniforms`: shape → standard normals, and numbers uniform on [0, 1).
    - `generator`: for any other random operation; its device is that of the values.
    """

    normals: Draw
    uniforms: Draw
    generator: torch.Generator
    _drawn: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    _needed: set[int] = field(default_factory=set)

    def tensors(self, references: Sequence[Reference]) -> list[Tensor]:
        """Return the values of recorded tensors, jointly.

        **Raises:** `InputError` for an operation that cannot be repeated.
        """
        states = [state for reference in references for state in reachable(reference.state)]
        shared = len(references) > 1
        self._needed |= {id(r.state) for state in states for r in state.references()}
        self._needed |= {id(reference.state) for reference in references if shared}
        with torch.no_grad():
            views = [reference.region.view(self._storage(reference.state)) for reference in references]
            return [view.clone() if shared else view for view in views]

    def _storage(self, state: State) -> torch.UntypedStorage:
        """Return the content of a storage in a state; never written again."""
        if id(state) in self._drawn:
            return self._drawn[id(state)]
        chain = state.chain()
        memory = torch.empty(chain[0].nbytes, dtype=torch.uint8, device=self.generator.device)
        storage = memory.untyped_storage()
        for member in chain:
            if id(member) in self._drawn:
                storage = _copy(self._drawn[id(member)])
                continue
            storage = self._apply(member, storage)
            if id(member) in self._needed and member is not state:
                self._drawn[id(member)] = _copy(storage)
        if id(state) in self._needed:
            self._drawn[id(state)] = storage
        return storage

    def _apply(self, state: State, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        """Return the storage after one more operation."""
        view = state.region.view(storage)
        if is_standard(state):
            location, scale = moments(state)
            draw = self.normals if STANDARD[state.name] == "normal" else self.uniforms
            view.copy_(draw(tuple(view.shape)))
            view.mul_(scale).add_(location)
        elif state.name == "truncate":
            self._truncate(view, *state.arguments)
        elif state.name in NO_CONTENT:
            view.fill_(math.nan if state.region.dtype.is_floating_point else 0)
        elif state.name == "given":
            view.copy_(state.arguments[0].values)
        else:
            self._repeat(state, view)
        return storage

    def _truncate(self, view: Tensor, mean: float, std: float, least: float, most: float) -> None:
        """Draw the entries outside [least, most] again until none is left."""
        while bool((outside := (view < least) | (view > most)).any()):
            fresh = self.normals((int(outside.sum()),)).to(view)
            view[outside] = fresh.mul_(std).add_(mean)

    def _repeat(self, state: State, view: Tensor) -> None:
        """Run the recorded operation with its tensors on real memory."""
        if state.operation is None:
            raise InputError(_cannot_repeat(state))
        device = self.generator.device

        def real(leaf: Any) -> Any:
            if isinstance(leaf, Reference):
                return leaf.region.view(self._storage(leaf.state)).clone()
            if isinstance(leaf, Given):
                return leaf.values.to(device)
            if isinstance(leaf, torch.device):
                return device
            return view if leaf is WRITTEN else leaf

        arguments, options = transform((state.arguments, state.options), real)
        operation = state.operation
        if state.random:
            operation, options = _seeded(state, options, self.generator)
        result = operation(*arguments, **options)
        if not state.in_place:
            view.copy_(result if isinstance(result, Tensor) else result[state.output])


def _copy(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a copy of a storage."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).clone().untyped_storage()


def _seeded(state: State, options: dict[str, Any], generator: torch.Generator) -> tuple[Any, dict[str, Any]]:
    """Return a random operation in the form that takes a generator, and its options with it."""
    operation = state.operation
    packet = operation.overloadpacket
    overload = "generator" if operation._overloadname == "default" else f"{operation._overloadname}_generator"
    for candidate in (operation, getattr(packet, overload, None)):
        if candidate is not None and any(a.name == "generator" for a in candidate._schema.arguments):
            return candidate, options | {"generator": generator}
    raise InputError(_cannot_repeat(state))


def _cannot_repeat(state: State) -> str:
    """Return the message for an operation that has no source of random numbers of its own."""
    return (
        f"a parameter is initialised by torch's `{state.name}`, which cannot be repeated on other memory: "
        "initialise it with a function of torch.nn.init in the model's code"
    )
