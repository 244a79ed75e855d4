"""How the benchmarks measure: one core, medians of repeats, time per sample and layer (or step)."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from shaped_transformer.numerics.arrays import Array
from shaped_transformer.numerics.draws import Draws
from shaped_transformer.views.sampling import Walk, draw_batch

REPEATS = 5
MICRO = 1e6


def one_core() -> None:
    """Keep this process, and every thread of the libraries it loads later, on one core, where the system can."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def seconds(job: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time of a job, after one run that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def walk_time(walk: Walk, repeats: int = REPEATS) -> float:
    """Microseconds per sample and step of a walk, drawn as the library draws it."""
    job = lambda: draw_batch(walk, 0, (walk.steps,), (0.0, 1e8), 0)  # noqa: E731
    return MICRO * seconds(job, repeats) / walk.size / walk.steps


class NumPyDraws(Draws):
    """The same random matrices by NumPy's own generator: the plain path, without a compiled line."""

    def __init__(self, seed: int, view: int, block: int, size: int, dtype: str = "float64") -> None:
        self.size, self.dtype, self.sample_last = size, np.dtype(dtype), False
        key = np.random.SeedSequence(seed, spawn_key=(view, block))
        self.rng = np.random.Generator(np.random.SFC64(key))

    def normal(self, rows: int, columns: int) -> Array:
        return self.rng.standard_normal((self.size, rows, columns))

    def wide_normal(self, rows: int, width: float, full: int) -> Array:
        columns = full + min(rows, int(np.ceil(width - full - 1e-9)))
        out = np.zeros((self.size, rows, columns))
        below = np.tril(np.ones((rows, columns), dtype=bool), full - 1)
        out[:, below] = self.rng.standard_normal((self.size, int(below.sum())))
        i = np.arange(columns - full)
        half = np.broadcast_to((width - full - i) / 2, (self.size, len(i)))
        out[:, i, full + i] = np.sqrt(2 * self.rng.standard_gamma(half))
        return out


def plain_time(walk: Walk, repeats: int = 3) -> float:
    """The same for the plain NumPy path: sample-first arrays and NumPy's own generator."""
    draws = NumPyDraws(0, 0, 0, walk.size)

    def job() -> None:
        state = walk.start(draws)
        for _ in range(walk.steps):
            state = walk.step(state, draws)

    return MICRO * seconds(job, repeats) / walk.size / walk.steps


def numpy_normal_time() -> float:
    """Microseconds that NumPy's generator needs for one normal."""
    rng = np.random.Generator(np.random.SFC64(0))
    return MICRO * seconds(lambda: rng.standard_normal(2**18), 15) / 2**18


class CountingDraws(Draws):
    """Counts the random numbers that a step uses."""

    count = 0

    def normal(self, rows: int, columns: int) -> Array:
        self.count += rows * columns
        return super().normal(rows, columns)

    def wide_normal(self, rows: int, width: float, full: int) -> Array:
        out = super().wide_normal(rows, width, full)
        self.count += int(np.count_nonzero(out[0]))
        return out


def numbers_per_step(walk: Walk) -> int:
    """How many normal and chi numbers one sample needs for one step."""
    small = replace(walk, size=2)  # type: ignore[type-var]
    draws = CountingDraws(0, 1, 0, 2, sample_last=walk.sample_last)
    state = small.start(draws)
    draws.count = 0
    small.step(state, draws)
    return draws.count


def machine() -> str:
    """The machine and the versions, in a line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    found = [f"Python {platform.python_version()}"]
    for name in ("numpy", "numba", "torch", "torchsde", "diffrax", "jax"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{model}, {', '.join(found)}"
