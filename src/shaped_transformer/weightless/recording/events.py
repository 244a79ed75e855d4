"""What was done to the memory of a tensor while a model was built: a chain of states, each made by one operation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Region:
    """The entries of a storage that a strided tensor shows."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Region":
        """Return the region that `tensor` shows."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()), tensor.dtype)

    def view(self, storage: torch.UntypedStorage) -> Tensor:
        """Return the tensor that shows this region of `storage`."""
        empty = torch.empty(0, dtype=self.dtype, device=storage.device)
        return empty.set_(storage, self.offset, self.size, self.stride)

    @property
    def distinct(self) -> bool:
        """Whether the region shows no entry twice; false too for some rare strides that show none twice."""
        reach = 0
        for size, stride in sorted(zip(self.size, self.stride, strict=True), key=lambda axis: axis[1]):
            if size > 1 and stride <= reach:
                return False
            reach += (size - 1) * stride
        return True

    def fills(self, nbytes: int) -> bool:
        """Whether the region has every entry of a storage of `nbytes`, each once."""
        count = 1
        for size, stride in sorted(zip(self.size, self.stride, strict=True), key=lambda axis: axis[1]):
            if size == 1:
                continue
            if stride != count:
                return False
            count *= size
        return count * self.dtype.itemsize == nbytes


@dataclass(frozen=True, eq=False)
class State:
    """The content of a storage after one operation.

    **Arguments:**

    - `name`: the operation, such as `"normal_"`; `"given"` for known values, `"truncate"` for a rejection of entries.
    - `operation`: the operation itself, `None` for the two just named and for what cannot be repeated.
    - `arguments`, `options`: its arguments; tensors stand as `Reference`, `Given` or `WRITTEN`.
    - `region`: what it wrote.
    - `nbytes`: size of the storage.
    - `previous`: the state before, `None` if nothing of it is left.
    - `output`: which of the operation's results this is.
    - `random`: whether the operation draws random numbers.
    """

    name: str
    operation: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    region: Region
    nbytes: int
    previous: "State | None" = None
    output: int = 0
    random: bool = False

    @property
    def in_place(self) -> bool:
        """Whether the operation wrote into a tensor that was there."""
        return any(leaf is WRITTEN for leaf in leaves((self.arguments, self.options)))

    def chain(self) -> list["State"]:
        """Return the states of the storage from the first to this one."""
        states: list[State] = []
        state: State | None = self
        while state is not None:
            states.append(state)
            state = state.previous
        return states[::-1]

    def references(self) -> list["Reference"]:
        """Return the tensors on which the last operation depends, but for the one it wrote."""
        return [leaf for leaf in leaves((self.arguments, self.options)) if isinstance(leaf, Reference)]


@dataclass(frozen=True, eq=False)
class Reference:
    """A tensor: a region of a storage in one of its states."""

    state: State
    region: Region


@dataclass(frozen=True, eq=False)
class Given:
    """A tensor whose values are known."""

    values: Tensor


@dataclass(frozen=True)
class Written:
    """Stands among the arguments for the tensor that the operation wrote."""


WRITTEN = Written()


@dataclass
class Tracked:
    """A storage whose content is recorded.

    `pretends`: whether it stands on `meta` in place of the CPU. `readable`: whether its values are there to be read.
    """

    storage: torch.UntypedStorage
    state: State
    pretends: bool
    readable: bool = field(default=False)


def leaves(value: Any) -> Iterator[Any]:
    """Yield what stands in nested tuples, lists and dictionaries."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    else:
        yield value


def transform(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested tuples, lists and dictionaries with `function` applied to what stands in them."""
    if isinstance(value, tuple | list):
        return type(value)(transform(item, function) for item in value)
    if isinstance(value, dict):
        return {key: transform(item, function) for key, item in value.items()}
    return function(value)


def reachable(state: State) -> list[State]:
    """Return every state on which `state` depends, itself included."""
    found: dict[int, State] = {}
    waiting = [state]
    while waiting:
        for member in waiting.pop().chain():
            if id(member) not in found:
                found[id(member)] = member
                waiting.extend(reference.state for reference in member.references())
    return list(found.values())


def sources(state: State) -> frozenset[int]:
    """Return numbers of the random operations on which a state depends."""
    return frozenset(id(member) for member in reachable(state) if member.random)
