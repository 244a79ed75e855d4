"""Random numbers of one matrix: standard normals from the seed and the matrix's name, whatever was drawn before."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Side = Literal["left", "right"]
"""Side from which vectors meet a matrix W (a × b): left, x ↦ x·W, or right, g ↦ g·Wᵀ."""

PURPOSES = {"left": 0, "right": 1, "row": 2, "whole": 3}
"""Numbers of what is drawn from a stream: images of left and right directions, rows of a table, a whole tensor."""

WORDS, FIRST_WORD = 624, 3
"""Number of words of the Mersenne Twister, and the place of the first one in the state of PyTorch's generator."""

PANEL = 2**18
"""Number of normals in memory at a time where a product is made panel by panel; they fit into a core's cache."""

LEAST_WIDTH = 1024
"""Least number of columns of a panel, so that products stay efficient with many rows."""


@dataclass(frozen=True)
class Stream:
    """Standard normals of one matrix, addressed by purpose and number: the same address gives the same normals.

    **Arguments:**

    - `seed`: of the network.
    - `name`: of the matrix.
    - `dtype`: of the normals, float32 or float64.
    """

    seed: int
    name: str
    dtype: torch.dtype

    @functools.cached_property
    def _entropy(self) -> tuple[int, ...]:
        """The seed, and the name as numbers."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return (self.seed, *np.frombuffer(digest[:16], np.uint32).tolist())

    def normals(self, shape: tuple[int, ...], purpose: str, *address: int) -> Tensor:
        """Return independent N(0, 1) numbers.

        **Arguments:**

        - `shape`: of the result.
        - `purpose`: a key of `PURPOSES`.
        - `address`: numbers of the draw; other addresses give independent draws.
        """
        out = torch.empty(shape, dtype=self.dtype)
        self._fill(out, purpose, *address)
        return out

    def _fill(self, out: Tensor, purpose: str, *address: int) -> None:
        """Fill a tensor with the normals of an address."""
        fill_normals(out, np.random.SeedSequence(self._entropy, spawn_key=(PURPOSES[purpose], *address)))

    def panels(self, rows: int, columns: int, purpose: str, *address: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield a normal matrix (rows, columns) some columns at a time, each with the slice of its columns.

        All parts are in the same memory: use each before the next.

        Few numbers are in memory at once, so that a matrix of any width costs no memory. They are drawn in one thread:
        threads of Python would have to wait for those of PyTorch, which spin for a while after each product.
        """
        width = max(LEAST_WIDTH, PANEL // max(rows, 1))
        memory = torch.empty(min(width, columns), rows, dtype=self.dtype)
        for number, start in enumerate(range(0, columns, width)):
            part = memory[: min(width, columns - start)]
            self._fill(part, purpose, *address, number)
            yield slice(start, start + len(part)), part.T

    def matrix(self, rows: int, columns: int, purpose: str, *address: int) -> Tensor:
        """Return the matrix that `panels` yields in parts, (rows, columns)."""
        out = torch.empty(rows, columns, dtype=self.dtype)
        for part, normals in self.panels(rows, columns, purpose, *address):
            out[:, part] = normals
        return out

    def uniforms(self, shape: tuple[int, ...], *address: int) -> Tensor:
        """Return independent uniform numbers in [0, 1), of the shape `shape`, at an address of whole tensors."""
        words = np.random.SeedSequence(self._entropy, spawn_key=(PURPOSES["whole"], *address))
        dtype = np.float32 if self.dtype == torch.float32 else np.float64  # a conversion could round up to 1
        return torch.from_numpy(np.random.default_rng(words).random(shape, dtype))


def fill_normals(out: Tensor, seed: np.random.SeedSequence) -> None:
    """Fill a tensor with independent N(0, 1) numbers.

    PyTorch's generator is the fastest at hand, but takes seeds of 32 bits only, so that among 10⁵ streams some would be
    equal. Its state of 624 words is set instead. Where a version of PyTorch keeps it otherwise, NumPy draws.
    """
    bits = np.random.SFC64(seed)
    if not _state_is_known():
        numbers = np.random.Generator(bits).standard_normal(out.shape)
        out.copy_(torch.from_numpy(numbers))
        return
    generator = torch.Generator()
    state = generator.get_state()
    words = bits.random_raw(WORDS // 2).view(np.uint32).astype(np.int64)
    state.view(torch.int64)[FIRST_WORD : FIRST_WORD + WORDS] = torch.from_numpy(words)
    generator.set_state(state)
    out.normal_(generator=generator)


@functools.cache
def _state_is_known() -> bool:
    """Whether the state of PyTorch's generator has the words of the Mersenne Twister where we expect them."""
    ours = torch.Generator().manual_seed(5489).get_state()
    theirs = np.random.RandomState(5489).get_state(legacy=False)
    if ours.dtype != torch.uint8 or ours.numel() % 8 or ours.numel() < 8 * (FIRST_WORD + WORDS):
        return False
    words = ours.view(torch.int64)[FIRST_WORD : FIRST_WORD + WORDS].numpy()
    return bool((words == np.asarray(theirs["state"]["key"])).all())
