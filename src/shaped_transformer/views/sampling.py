"""The loop that the three views share: blocks of samples, depth, recording, stopping, threads and clusters.

Samples are drawn in blocks of a fixed size, each from its own stream of the seed. The size depends on the problem only,
and a block is always drawn whole: so the draws depend neither on workers nor on records, and the first samples stay
the same when more are asked for.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count, check_seed
from ..design.architecture import Architecture
from ..errors import InputError
from ..inputs import from_covariance, resolved
from ..io.progress import progress
from ..numerics import compilation, linalg
from ..numerics.arrays import Array, Floats
from ..numerics.draws import Draws
from .stopping import Window, check_window

VIEWS = ("network", "chain", "sde")
"""The views, in the order of their random streams."""
RECORDS = 11
BLOCK_NUMBERS = 2**17
"""Numbers in the largest array of a sample-first block: a megabyte, within the cache."""
SMALL_NUMBERS = 2**16
"""Numbers in an (m, m) array of a sample-last block, of which a step holds a dozen."""
LARGEST_BLOCK = 2048


class Walk(Protocol):
    """A Markov chain over layers (or steps), for a block of samples at a time. Must be picklable."""

    @property
    def view(self) -> str:
        """One of `VIEWS`: each has random streams of its own."""
        ...

    @property
    def architecture(self) -> Architecture:
        """What is drawn."""
        ...

    @property
    def factor(self) -> Floats:
        """A factor of the initial covariance, (m, k)."""
        ...

    @property
    def steps(self) -> int:
        """How many steps it takes to the last layer."""
        ...

    @property
    def size(self) -> int:
        """Samples per block."""
        ...

    @property
    def dtype(self) -> str:
        """Of the random numbers."""
        ...

    @property
    def sample_last(self) -> bool:
        """Whether its batches have their samples contiguous (`linalg`)."""
        ...

    def start(self, draws: Draws) -> Array:
        """Return the state before the first step, first axis the sample."""
        ...

    def step(self, state: Array, draws: Draws) -> Array:
        """Return the state after one more step."""
        ...

    def covariance(self, state: Array) -> Floats:
        """Return V, (samples, m, m)."""
        ...

    def eigenvalues(self, state: Array) -> Floats:
        """Return the eigenvalues of V, largest first, (samples, m)."""
        ...

    def leaves(self, state: Array, stop: Window, rank: int) -> NDArray[np.bool_]:
        """Return which samples have left the window: downwards, with their `rank` largest eigenvalues."""
        ...


@dataclass(frozen=True)
class Drawn:
    """What a run of a walk gives: covariances and eigenvalues at the recorded steps, and when each path stopped."""

    covariance: Floats
    eigenvalues: Floats
    stopped: NDArray[np.int64]


Blocks = Generator[tuple[int, Drawn], None, None]
"""Finished blocks with their numbers, in any order."""


def check_architecture(architecture: Any) -> None:
    """Raise `InputError` unless this is an `Architecture`."""
    if not isinstance(architecture, Architecture):
        raise InputError(
            f"an Architecture is expected (got {type(architecture).__name__}): build one, or read it with "
            "Architecture.from_dict"
        )


def check_start(architecture: Architecture, v0: Any) -> Floats:
    """Return V0, checked to be a covariance of as many tokens as the architecture's masks are for."""
    check_architecture(architecture)
    v = from_covariance(v0)
    architecture.check_tokens(len(v))
    return v


def initial_factor(v0: Array, width: int) -> Array:
    """Return a factor L0 of V0 with at most min(m, width) columns; what V0 does not resolve is 0 in it.

    **Raises:** `InputError` if the rank of V0 exceeds the width.
    """
    values, vectors = np.linalg.eigh(v0)
    values = np.where(resolved(values), values, 0.0)
    rank = int(np.count_nonzero(values))
    if rank > width:
        raise InputError(
            f"a covariance of rank {rank} cannot come from vectors of width {width}: give at most {width} tokens, a "
            f"width of at least {rank}, or an input of lower rank: inputs.from_vectors, or inputs.from_text with "
            f"embedding_width={width}"
        )
    keep = min(len(v0), width)
    return linalg.lq((vectors * np.sqrt(values))[:, len(v0) - keep :])


def block_size(elements: int, numbers: int = BLOCK_NUMBERS) -> int:
    """Return how many samples to draw at a time if each needs an array of `elements` of the block's `numbers`."""
    return int(np.clip(numbers // max(elements, 1), 1, LARGEST_BLOCK))


def record_steps(record: int | Sequence[int] | None, depth: int) -> NDArray[np.int64]:
    """Return the layers to record, increasing, between 0 and `depth`.

    **Arguments:** `record`: `None` for at most 11 evenly spaced layers, a whole number for that many (1: the last),
    or the layers themselves.

    **Raises:** `InputError` for layers outside [0, depth].
    """
    if isinstance(record, bool):
        raise InputError("record must be None, a whole number, or a sequence of layers")
    if record is None or isinstance(record, int | np.integer):
        count = RECORDS if record is None else int(record)
        if count < 1:
            raise InputError(f"record must be at least 1 (got {count}): the last layer is always of interest")
        layers = np.linspace(0, depth, count) if count > 1 else np.array([depth])
    else:
        try:
            layers = np.asarray(record)
        except ValueError:
            layers = np.empty(0)
        whole = layers.ndim == 1 and layers.size and layers.dtype.kind in "iu"
        if not whole or layers.min() < 0 or layers.max() > depth:
            raise InputError(f"record must hold whole layer numbers in [0, {depth}] (got {record!r})")
    return np.unique(np.rint(layers).astype(np.int64))


def draw(
    walk: Walk,
    samples: int,
    seed: int,
    records: NDArray[np.int64],
    stop: Window,
    workers: int | None = None,
    client: Any = None,
) -> Drawn:
    """Draw `samples` paths of a walk.

    **Arguments:**

    - `walk`: what to draw.
    - `samples`, `seed`: how many, and from which stream.
    - `records`: the steps to keep, increasing.
    - `stop`: window (low, high) of eigenvalues; a path is frozen at the first step outside it.
    - `workers`: threads, default all cores. `client`: a Dask client, which takes the place of threads.

    **Raises:** `InputError` for arguments out of range, or draws that would fill the memory. An interrupt stops all
    threads and is passed on.
    """
    check_count(samples, "samples")
    check_count(1 if workers is None else workers, "workers")
    m = len(walk.factor)
    check_memory(samples, len(records), m)
    compilation.load_all()
    task = partial(draw_block, walk, check_seed(seed), tuple(int(r) for r in records), check_window(stop))
    blocks = -(-samples // walk.size)
    results = _on_cluster(task, blocks, client) if client is not None else _in_threads(task, blocks, workers)
    out = Drawn(
        np.empty((samples, len(records), m, m)),
        np.empty((samples, len(records), m)),
        np.empty(samples, dtype=np.int64),
    )
    with closing(results), progress(walk.view, samples) as advance:
        for block, drawn in results:
            place = slice(block * walk.size, min((block + 1) * walk.size, samples))
            count = place.stop - place.start
            out.covariance[place] = drawn.covariance[:count]
            out.eigenvalues[place] = drawn.eigenvalues[:count]
            out.stopped[place] = drawn.stopped[:count]
            advance(count)
    return out


LARGEST_SHARE = 0.5
"""Of the machine's memory that draws may take: what is read off them needs up to as much again."""


def check_memory(samples: int, records: int, m: int) -> None:
    """Raise `InputError` for draws, of all views together, that would not fit: the system would end them silently."""
    needed, memory = samples * records * m * (m + 1) * np.dtype(np.float64).itemsize, physical_memory()
    if needed > LARGEST_SHARE * memory:
        raise InputError(
            f"{samples:,} draws of {m} tokens at {records} layers take {needed / 1e9:.1f} GB, more than half of this "
            f"machine's {memory / 1e9:.1f} GB: ask for fewer samples, tokens or layers (record=…)"
        )


def physical_memory() -> float:
    """Return the bytes of memory that the machine has, infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def draw_block(
    walk: Walk,
    seed: int,
    records: tuple[int, ...],
    stop: Window,
    block: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Drawn:
    """Draw one whole block of samples; the unit of work of threads and clusters alike."""
    _keep_freed_memory()
    draws = Draws(seed, VIEWS.index(walk.view), block, walk.size, walk.dtype, walk.sample_last)
    state = walk.start(draws)
    covariances, eigenvalues = [], []
    never = walk.steps + 1
    leaves = partial(walk.leaves, stop=stop, rank=linalg.rank(walk.factor))
    stopped = np.where(leaves(state), 0, never)
    running = stopped == never
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(walk.steps + 1):
            if step and running.any():
                if cancelled():
                    raise InterruptedError
                state, moves = _advance(state, walk.step(state, draws), running)
                left = running & (~moves | leaves(state))
                stopped[left] = step
                running &= ~left
            if step in records:
                covariances.append(walk.covariance(state))
                eigenvalues.append(walk.eigenvalues(state))
    return Drawn(np.stack(covariances, axis=1), np.stack(eigenvalues, axis=1), stopped)


KEPT = 2**28
"""Bytes that freed arrays may occupy before the system gets them back."""


@cache
def _keep_freed_memory() -> None:
    """Let the GNU C library keep the memory of freed arrays for the next ones, where it is the C library.

    Else each step asks the system for zeroed pages again, which takes longer than the arithmetic; Dask's workers, which
    give memory back at once, are five times slower by it.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(trim_threshold, KEPT)
    mallopt(mmap_threshold, KEPT // 16)


def _advance(old: Array, new: Array, running: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """The next state, in which stopped paths stay and a step to infinity is not taken; and who moves."""
    if old.shape != new.shape:  # the factor may gain or lose columns that are zero
        width = max(linalg.column_count(old), linalg.column_count(new))
        old, new = linalg.pad(old, width), linalg.pad(new, width)
    moves = running & np.isfinite(linalg.squared_norm(new))
    if not moves.all():
        new = np.where(moves[:, None, None], new, old)
    return new, moves


_given_up: ContextVar[Callable[[], bool]] = ContextVar("whether draws are given up", default=lambda: False)


@contextmanager
def given_up_when(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Within the context, end draws with `InterruptedError` as soon as this is true.

    An interrupt reaches the main thread only: who draws in threads of their own passes it on by this.
    """
    token = _given_up.set(cancelled)
    try:
        yield
    finally:
        _given_up.reset(token)


def _in_threads(task: Callable[..., Drawn], blocks: int, workers: int | None) -> Blocks:
    from threadpoolctl import threadpool_limits

    cancel, given_up = threading.Event(), _given_up.get()
    count = min(workers or cores(), blocks)

    def cancelled() -> bool:
        return cancel.is_set() or given_up()

    # One BLAS thread per block: the blocks are the parallel work, and sums keep their order whatever runs them.
    with threadpool_limits(limits=1), ThreadPoolExecutor(count) as pool:
        waiting = iter(range(blocks))
        running = {pool.submit(task, b, cancelled=cancelled): b for b in islice(waiting, 2 * count)}
        try:
            while running:
                done = next(as_completed(running))
                block = running.pop(done)
                yield block, done.result()
                for b in islice(waiting, 1):
                    running[pool.submit(task, b, cancelled=cancelled)] = b
        finally:
            cancel.set()


def cores() -> int:
    """Cores that this process may use; not every system knows of more than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_cluster(task: Callable[..., Drawn], blocks: int, client: Any) -> Blocks:
    try:
        from distributed import as_completed as completed
    except ImportError:
        raise InputError("client= needs Dask: pip install 'shaped-transformer[cluster]'") from None
    futures = client.map(task, range(blocks), pure=False)
    place = {future.key: block for block, future in enumerate(futures)}
    try:
        for future, drawn in completed(futures, loop=client.loop, with_results=True):
            yield place[future.key], drawn
            future.release()
    finally:
        client.cancel(futures)
