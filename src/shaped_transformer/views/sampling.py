"""The loop that the three views share: over batches of samples and over depth, with recording and stopping.

Samples are drawn in batches of a fixed size, each from its own stream of the seed. The size depends on the problem
only, and a batch is always drawn whole. So the samples depend neither on the workers nor on the recorded layers, and
the first ones stay the same when `samples` grows.
"""

import ctypes
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from numbers import Integral
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count, check_seed
from ..design.architecture import Architecture
from ..errors import InputError, counted
from ..inputs import from_covariance, resolved
from ..io.progress import progress
from ..numerics import compilation, linalg
from ..numerics.arrays import Array, Floats
from ..numerics.draws import Draws
from .parallel import in_order, run_in_threads, run_on_cluster
from .stopping import Window, check_window

VIEWS = ("network", "chain", "sde")
"""The views, in the order of their random streams."""

RECORDS = 11
"""Number of recorded layers by default."""

BATCH_NUMBERS = 2**17
"""Numbers in the largest array of a sample-first batch: a megabyte, which fits into the cache."""

SAMPLE_LAST_NUMBERS = 2**16
"""Numbers in an (m, m) array of a sample-last batch; a step uses about twelve such arrays."""

MAX_BATCH = 2048
"""Largest number of samples in a batch."""


class Walk(Protocol):
    """A Markov chain over layers (or steps), for a batch of samples at a time. It must be picklable."""

    @property
    def view(self) -> str:
        """Its view, one of `VIEWS`: each view has random streams of its own."""
        ...

    @property
    def architecture(self) -> Architecture:
        """The network whose covariance is drawn."""
        ...

    @property
    def factor(self) -> Floats:
        """A factor of the initial covariance, (m, k)."""
        ...

    @property
    def steps(self) -> int:
        """The number of steps to the last layer."""
        ...

    @property
    def size(self) -> int:
        """The number of samples in a batch."""
        ...

    @property
    def dtype(self) -> str:
        """The type of the random numbers."""
        ...

    @property
    def sample_last(self) -> bool:
        """Whether its batches have the sample-last layout (`linalg`)."""
        ...

    def start(self, draws: Draws) -> Array:
        """Return the state before the first step; its first axis is the sample."""
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

    def outside_window(self, state: Array, stop: Window, rank: int) -> NDArray[np.bool_]:
        """Return which samples are outside the window; only their `rank` largest eigenvalues count downwards."""
        ...


@dataclass(frozen=True)
class Paths:
    """Paths of a walk: V and its eigenvalues at the recorded steps, and the step at which each path stopped."""

    covariance: Floats
    eigenvalues: Floats
    stopped: NDArray[np.int64]


def check_architecture(architecture: Any) -> None:
    """Check that the argument is an `Architecture`.

    **Raises:** `InputError` otherwise.
    """
    if not isinstance(architecture, Architecture):
        raise InputError(
            f"an Architecture is expected (got {type(architecture).__name__}): build one, or read it with "
            "Architecture.from_dict"
        )


def check_covariance(architecture: Architecture, v: Any) -> Floats:
    """Return V, checked to be a covariance of a number of tokens that the architecture's masks fit.

    **Raises:** `InputError` otherwise.
    """
    check_architecture(architecture)
    checked = from_covariance(v)
    architecture.check_tokens(len(checked))
    return checked


def initial_factor(v0: Array, width: int) -> Array:
    """Return a factor L0 of V0 with at most min(m, width) columns; unresolved eigenvalues of V0 count as 0.

    **Raises:** `InputError` if the rank of V0 exceeds the width.
    """
    values, vectors = np.linalg.eigh(v0)
    values = np.where(resolved(values), values, 0.0)
    rank = int(np.count_nonzero(values))
    if rank > width:
        raise InputError(
            f"a covariance of rank {rank} cannot come from vectors of width {width}: give at most "
            f"{counted(width, 'token')}, a width of at least {rank}, or an input of lower rank: inputs.from_vectors, "
            f"or inputs.from_text with embedding_width={width}"
        )
    keep = min(len(v0), width)
    return linalg.lq((vectors * np.sqrt(values))[:, len(v0) - keep :])


def batch_size(elements: int, numbers: int = BATCH_NUMBERS) -> int:
    """Return the number of samples in a batch, if each needs `elements` numbers and the batch may have `numbers`."""
    return int(np.clip(numbers // max(elements, 1), 1, MAX_BATCH))


def recorded_layers(record: int | Sequence[int] | None, depth: int) -> NDArray[np.int64]:
    """Return the layers to record, increasing, between 0 and `depth`.

    **Arguments:**

    - `record`: `None` for at most 11 evenly spaced layers, a whole number for that many (1: only the last layer), or
      the layers themselves.
    - `depth`: of the network.

    **Raises:** `InputError` for a number below 1 or layers outside [0, depth].
    """
    if record is None or isinstance(record, Integral):
        count = RECORDS if record is None else check_count(cast(int, record), "record")
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


def draw_paths(
    walk: Walk,
    samples: int,
    seed: int,
    records: NDArray[np.int64],
    stop: Window,
    workers: int | None = None,
    client: Any = None,
) -> Paths:
    """Draw `samples` paths of a walk.

    **Arguments:**

    - `walk`: the Markov chain.
    - `samples`: number of paths.
    - `seed`: seed of the random streams.
    - `records`: the steps to keep, increasing.
    - `stop`: window (low, high) of eigenvalues; a path is frozen at the first step outside it.
    - `workers`: number of threads; `None` (the default) means all cores.
    - `client`: a Dask client, used instead of threads; default none.

    **Returns:** the paths.

    **Raises:** `InputError` for arguments out of range, or more paths than fit into memory. An interrupt stops all
    threads and is raised again.
    """
    m = len(walk.factor)
    check_memory(check_count(samples, "samples"), len(records), m)
    out = Paths(
        np.empty((samples, len(records), m, m)),
        np.empty((samples, len(records), m)),
        np.empty(samples, dtype=np.int64),
    )
    with closing(_draw_batches(walk, samples, seed, records, stop, workers, client)) as results:
        for batch, paths in results:
            place = slice(batch * walk.size, min((batch + 1) * walk.size, samples))
            count = place.stop - place.start
            out.covariance[place] = paths.covariance[:count]
            out.eigenvalues[place] = paths.eigenvalues[:count]
            out.stopped[place] = paths.stopped[:count]
    return out


def stream_paths(
    walk: Walk,
    samples: int,
    seed: int,
    records: NDArray[np.int64],
    stop: Window,
    workers: int | None = None,
    skip: int = 0,
) -> Generator[Paths, None, None]:
    """Yield the paths of `draw_paths` batch by batch, in their order; closing the generator ends the drawing.

    **Arguments:** as in `draw_paths`, with

    - `skip`: number of batches that come before, and are not drawn again; default none.
    """
    left = check_count(samples, "samples")
    check_count(skip, "skip", least=0)
    with closing(_draw_batches(walk, samples, seed, records, stop, workers, skip=skip)) as results:
        for paths in in_order(results):
            count = min(left, len(paths.stopped))
            yield Paths(paths.covariance[:count], paths.eigenvalues[:count], paths.stopped[:count])
            left -= count


def _draw_batches(
    walk: Walk,
    samples: int,
    seed: int,
    records: NDArray[np.int64],
    stop: Window,
    workers: int | None = None,
    client: Any = None,
    skip: int = 0,
) -> Generator[tuple[int, Paths], None, None]:
    """Yield batches with their numbers after the skipped ones, in any order, with a bar that counts their steps."""
    check_count(1 if workers is None else workers, "workers")
    compilation.load_all()
    task = partial(draw_batch, walk, check_seed(seed), tuple(int(r) for r in records), check_window(stop))
    batches = -(-samples // walk.size)
    steps = np.zeros(batches, dtype=np.int64)
    with progress(walk.view, batches * walk.steps) as advance:

        def count_step(batch: int) -> None:
            steps[batch] += 1
            advance(1)

        if client is not None:
            results = run_on_cluster(task, batches, client)
        else:
            results = run_in_threads(partial(_later_batch, task, skip), batches, workers, count_step)
        with closing(results):
            for batch, paths in results:
                advance(walk.steps - int(steps[batch]))
                yield batch, paths


def _later_batch(task: Callable[..., Paths], skip: int, batch: int, cancelled: Callable[[], bool]) -> Paths:
    """Draw the batch that comes `skip` batches later."""
    return task(skip + batch, cancelled=cancelled)


MAX_MEMORY_SHARE = 0.5
"""Fraction of the machine's memory that paths may take; computing observables from them may take as much again."""


def check_memory(samples: int, records: int, m: int) -> None:
    """Check that the paths of all views together fit into memory; otherwise the system might kill the process.

    **Raises:** `InputError` if they do not.
    """
    needed, memory = samples * records * m * (m + 1) * np.dtype(np.float64).itemsize, physical_memory()
    if needed > MAX_MEMORY_SHARE * memory:
        raise InputError(
            f"{counted(samples, 'draw')} of {counted(m, 'token')} at {counted(records, 'recorded layer')} take "
            f"{needed / 1e9:.1f} GB, more than half of this machine's {memory / 1e9:.1f} GB: ask for fewer "
            "samples or tokens, or from Python record fewer layers"
        )


def physical_memory() -> float:
    """Return the machine's memory in bytes, or infinity if the system does not report it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def draw_batch(
    walk: Walk,
    seed: int,
    records: tuple[int, ...],
    stop: Window,
    batch: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Paths:
    """Draw one whole batch of samples, which is the task of a thread or of a cluster's worker.

    **Raises:** `InterruptedError` once `cancelled` returns true.
    """
    keep_freed_memory()
    draws = Draws(seed, VIEWS.index(walk.view), batch, walk.size, walk.dtype, walk.sample_last)
    state = walk.start(draws)
    covariances, eigenvalues = [], []
    never = walk.steps + 1
    outside_window = partial(walk.outside_window, stop=stop, rank=linalg.rank(walk.factor))
    stopped = np.where(outside_window(state), 0, never)
    running = stopped == never
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(walk.steps + 1):
            if step and running.any():
                if cancelled():
                    raise InterruptedError
                state, moved = _advance(state, walk.step(state, draws), running)
                left = running & (~moved | outside_window(state))
                stopped[left] = step
                running &= ~left
            if step in records:
                covariances.append(walk.covariance(state))
                eigenvalues.append(walk.eigenvalues(state))
    return Paths(np.stack(covariances, axis=1), np.stack(eigenvalues, axis=1), stopped)


KEPT_BYTES = 2**28
"""Bytes of freed memory that the process keeps instead of returning them to the system."""


@cache
def keep_freed_memory() -> None:
    """Make the GNU C library, if it is the C library, keep the memory of freed arrays for new ones.

    Otherwise each step requests zeroed pages from the system again, which takes longer than the arithmetic. Dask's
    workers, which return memory at once, would be five times slower. The setting is of the whole process and permanent.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(trim_threshold, KEPT_BYTES)
    mallopt(mmap_threshold, KEPT_BYTES // 16)


def _advance(old: Array, new: Array, running: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the next state, and which paths moved: not those that stopped, nor those whose step is infinite."""
    if old.shape != new.shape:  # the factor may gain or lose columns of zeros
        width = max(linalg.column_count(old), linalg.column_count(new))
        old, new = linalg.pad(old, width), linalg.pad(new, width)
    moved = running & np.isfinite(linalg.squared_norm(new))
    if not moved.all():
        new = np.where(moved[:, None, None], new, old)
    return new, moved
