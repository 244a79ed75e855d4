"""Normals for a batch of networks: from streams of their own, combined from several streams, or given.

A network's normals are addressed by (seed, stage, number), so that they depend on no other network of the batch. They
can be drawn again at any time, in batches of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..numerics import compilation
from ..numerics.arrays import Floats

STREAMS = 1000
"""First number of the address of every stream, which keeps them apart from those of the views."""

PRIOR, FURTHER, CHOICES, MOVES = 0, 1, 2, 3
"""Stages: networks of the prior, what only test points need, resampling, and from `MOVES` on two stages a move."""


class Source(Protocol):
    """Normals of a batch of networks, used one matrix after another."""

    @property
    def size(self) -> int:
        """The number of networks."""
        ...

    def normal(self, rows: int, columns: int) -> Floats:
        """Return the next N(0, 1) entries, (size, rows, columns)."""
        ...


def _streams(seed: int, stage: int, numbers: Sequence[int] | NDArray[np.int64]) -> list[Any]:
    """Return the states of the streams with these numbers.

    Stream i starts from its own part of one SplitMix64 sequence per seed and stage, as the authors of the generator
    recommend (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, 2014); this takes a microsecond.
    """
    lanes = compilation.load("generator").LANES
    start = np.random.SeedSequence(seed, spawn_key=(STREAMS, stage)).generate_state(1, np.uint64)
    count = 4 * (lanes + 1)
    places = np.asarray(numbers, dtype=np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    words = start + (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words = (words ^ (words >> np.uint64(31))).reshape(-1, 4, lanes + 1)
    return list(zip(words[..., :lanes].copy(), words[..., lanes:].copy(), strict=True))


class Streams:
    """One stream a network.

    **Arguments:**

    - `seed`: the user's.
    - `stage`: `PRIOR`, `FURTHER` or from `MOVES` on.
    - `numbers`: of the networks.
    """

    def __init__(self, seed: int, stage: int, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        self._states = _streams(seed, stage, numbers)
        self._fill = compilation.load("generator").fill_normals
        self.size = len(self._states)

    def normal(self, rows: int, columns: int) -> Floats:
        """Return the next N(0, 1) entries, (size, rows, columns)."""
        out = np.empty((self.size, rows * columns))
        for state, entries in zip(self._states, out, strict=True):
            self._fill(*state, entries)
        return out.reshape(self.size, rows, columns)


NEGLIGIBLE = 1e-13
"""Coefficients below this change no digit that matters, and their streams are not drawn."""


class Combined:
    """Sums Σ_j c_j·(stream j), Σ_j c_j² = 1: what slice sampling makes of the normals of the prior.

    **Arguments:**

    - `seed`: the user's.
    - `numbers`: of the streams, (size, moves + 1). The first column is of the stage `PRIOR`, the others of the moves.
    - `coefficients`: c, of the same shape.
    """

    def __init__(self, seed: int, numbers: NDArray[np.int64], coefficients: Floats) -> None:
        self._terms: list[list[tuple[float, Any]]] = []
        for own, weights in zip(numbers, coefficients, strict=True):
            kept = [j for j, weight in enumerate(weights) if abs(weight) > NEGLIGIBLE]
            stages = [PRIOR if j == 0 else stage_of_move(j) for j in kept]
            states = [_streams(seed, stage, own[j : j + 1])[0] for stage, j in zip(stages, kept, strict=True)]
            self._terms.append([(float(weights[j]), state) for j, state in zip(kept, states, strict=True)])
        self._fill = compilation.load("generator").fill_normals
        self.size = len(self._terms)

    def normal(self, rows: int, columns: int) -> Floats:
        """Return the next entries, (size, rows, columns)."""
        out, entries = np.zeros((self.size, rows * columns)), np.empty(rows * columns)
        for total, terms in zip(out, self._terms, strict=True):
            for weight, state in terms:
                self._fill(*state, entries)
                total += weight * entries
        return out.reshape(self.size, rows, columns)


@dataclass(frozen=True, eq=False)
class Particles:
    """Addresses of the normals of networks, from which they can be drawn again.

    **Attributes:**

    - `seed`: the user's.
    - `numbers`, `coefficients`: as `Combined` takes them, (particles, moves + 1).
    """

    seed: int
    numbers: NDArray[np.int64]
    coefficients: Floats

    @classmethod
    def of_prior(cls, seed: int, count: int) -> Self:
        """Return the first draws of the prior."""
        return cls(seed, np.arange(count)[:, None], np.ones((count, 1)))

    def normals(self, which: NDArray[np.int64]) -> Source:
        """Return the normals of some particles."""
        if self.numbers.shape[1] == 1:
            return Streams(self.seed, PRIOR, self.numbers[which, 0])
        return Combined(self.seed, self.numbers[which], self.coefficients[which])

    def further(self, which: NDArray[np.int64]) -> Source:
        """Return what test points need besides."""
        return Streams(self.seed, FURTHER, which)


def stage_of_move(move: int) -> int:
    """Return the stage of the normals of a move, counted from 1; its uniform numbers are of the next stage."""
    return MOVES + 2 * (move - 1)


def uniforms(seed: int, stage: int, numbers: Sequence[int] | NDArray[np.int64], count: int) -> Floats:
    """Return uniform numbers in (0, 1) from the streams with these numbers, (streams, count)."""
    from scipy.special import ndtr

    return np.asarray(ndtr(Streams(seed, stage, numbers).normal(1, count)[:, 0]))


class Given:
    """Normals from an array, (size, all of a network's)."""

    def __init__(self, values: Floats) -> None:
        self._values = values
        self._used = 0
        self.size = len(values)

    def normal(self, rows: int, columns: int) -> Floats:
        """Return the next entries, (size, rows, columns)."""
        start, self._used = self._used, self._used + rows * columns
        return self._values[:, start : self._used].reshape(self.size, rows, columns)


class Counter:
    """Counts the normals that a network uses, and gives zeros."""

    size = 1

    def __init__(self) -> None:
        self.used = 0

    def normal(self, rows: int, columns: int) -> Floats:
        """Return zeros, (1, rows, columns)."""
        self.used += rows * columns
        return np.zeros((1, rows, columns))
