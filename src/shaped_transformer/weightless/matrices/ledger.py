"""What the matrices of one network share: its seed, its limits of memory, and the vectors that were met last."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .factor import Factor, factorise, tolerance
from .streams import Stream
from .vectors import same

BACKWARD_BYTES = 128 * 2**20
"""Memory for the vectors of the backward pass, beyond which they are not kept unless the user asks for it."""

RECENT = 3
"""Number of sets of vectors that are remembered: queries, keys and values meet the same ones, one after another."""

FACTOR_BYTES = 4 * 2**20
"""Size of a factor up to which it is kept for the backward pass; a larger one is computed again."""


MOMENT_BYTES = 256 * 2**20
"""Memory for the updates and moments of small matrices under Adam; beyond it they are made anew in each pass."""


class Forgetful(Protocol):
    """A weight that can let go of the vectors of its backward pass."""

    def forget(self) -> None:
        """Drop the vectors of the backward pass."""


@dataclass(eq=False)
class Met:
    """Vectors that matrices of a network have met, (m, a), and PyTorch's count of their changes in place."""

    vectors: Tensor
    version: int | None
    factor: Factor | None = None

    def forget_large_factor(self) -> None:
        """Drop the factor if it is large."""
        if self.factor is not None and self.factor.coordinates.nbytes > FACTOR_BYTES:
            self.factor = None

    def changed(self) -> bool:
        """Whether the vectors were changed in place since."""
        return self.version is not None and self.vectors._version != self.version


@dataclass(eq=False)
class Ledger:
    """Shared state of the matrices of a network.

    **Arguments:**

    - `seed`: of the network.
    - `dtype`: of all numbers.
    - `limit`: bytes that real parameters may take in all.
    - `history`: whether the vectors of backward passes are kept for later passes; `None` means while they take at most
      `BACKWARD_BYTES`.
    - `whole`: whether a matrix may be drawn whole where that is cheaper.
    - `report`: called with the number of entries times steps whenever updates of Adam were made; default nothing.
    - `real_bytes`: what real parameters take so far.
    - `generation`: how many networks there were before.
    """

    seed: int
    dtype: torch.dtype
    limit: float
    history: bool | None = None
    whole: bool = True
    report: Callable[[float], None] = lambda _: None
    real_bytes: int = 0
    generation: int = 0
    _moment_bytes: int = 0
    _kept: list[Forgetful] = field(default_factory=list)
    _kept_bytes: int = 0
    _recent: deque[Met] = field(default_factory=lambda: deque(maxlen=RECENT))

    def stream(self, name: str) -> Stream:
        """Return the stream of random numbers of a parameter."""
        return Stream(self.seed, name, self.dtype)

    def meet(self, x: Tensor) -> Met:
        """Return vectors as met; those that several matrices meet one after another are shared by them."""
        for met in self._recent:
            if not met.changed() and same(x, met.vectors):
                return met
        return self._remember(Met(x.detach(), None if x.is_inference() else x._version))

    def factor(self, met: Met) -> Factor:
        """Return the factor of vectors; that of many vectors is dropped after a while, and computed again.

        **Raises:** `InputError` where the vectors are not finite.
        """
        if met.factor is None:
            met.factor = factorise(met.vectors, tolerance(self.dtype))
            self._remember(met)
        return met.factor

    def _remember(self, met: Met) -> Met:
        """Put vectors among the recent ones."""
        if met not in self._recent:
            if len(self._recent) == RECENT:
                self._recent[0].forget_large_factor()
            self._recent.append(met)
        return met

    def keeps(self, matrix: Forgetful, size: int) -> bool:
        """Whether a matrix may keep `size` bytes of its backward pass; if not, the others forget theirs too."""
        if self.history is not None:
            return self.history
        self._kept_bytes += size
        if self._kept_bytes <= BACKWARD_BYTES:
            self._kept.append(matrix)
            return True
        for other in self._kept:
            other.forget()
        self._kept.clear()
        return False

    def reserve(self, size: int) -> bool:
        """Reserve bytes for a real parameter; return whether they are within the limit."""
        if self.real_bytes + size > self.limit:
            return False
        self.real_bytes += size
        return True

    def keeps_moments(self, size: int) -> bool:
        """Whether a matrix may keep `size` bytes of updates and moments."""
        if self._moment_bytes + size > MOMENT_BYTES:
            return False
        self._moment_bytes += size
        return True

    def clear(self, seed: int) -> None:
        """Forget everything, for another network."""
        self.seed, self.real_bytes, self._kept_bytes, self._moment_bytes = seed, 0, 0, 0
        self.generation += 1
        self._kept.clear()
        self._recent.clear()


def machine_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
