"""Random networks at given inputs, without most of their weights; test points are appended to the training inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checks import check_count
from ..design.architecture import Architecture
from ..design.layers import Dense
from ..errors import InputError, counted
from ..io.progress import progress
from ..numerics import compilation, linalg
from ..numerics.arrays import Floats
from ..views.parallel import cores, run_in_threads
from ..views.sampling import check_architecture, physical_memory
from .normals import Counter, Source
from .rows import RowDraws

BATCH_NUMBERS = 2**20
"""Numbers in the largest array of a batch of networks: 8 megabytes a thread."""

MAX_BATCH = 128
"""Largest number of networks in a batch."""

MAX_MEMORY_SHARE = 0.5
"""Fraction of the machine's memory that results may take."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one architecture at P training inputs with p features, V0 = X Xᵀ/p.

    **Attributes:**

    - `architecture`: its layers treat inputs one by one.
    - `inputs`: X, (P, p).
    """

    architecture: Architecture
    inputs: Floats

    def normals(self) -> int:
        """Return how many normals determine a network's outputs at the training inputs."""
        counter = Counter()
        self.features(counter)
        return counter.used

    def features(
        self, known: Source, tests: Floats | None = None, further: Source | None = None, joint: bool = False
    ) -> Floats:
        """Return Φ = X_d/√n at the training inputs, and after them at the test points, so that V_d = Φ Φᵀ.

        **Arguments:**

        - `known`: normals of the networks, used in the same order with and without test points.
        - `tests`: test points, (T, p); default none.
        - `further`: normals that only test points need, if there are test points.
        - `joint`: whether the test points have their joint distribution (`RowDraws`), default no.

        **Returns:** (networks, P + T, n).
        """
        n, points = self.architecture.width, self.inputs if tests is None else np.concatenate([self.inputs, tests])
        wide = points[None] if points.shape[1] > n else None  # a first Dense layer sees X0 through X0·W only
        draws: Any = RowDraws(known, len(self.inputs), further, joint, wide)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            x = np.zeros((1, len(points), n)) if wide is not None else self._start(points, known)
            for _ in range(self.architecture.depth):
                for layer in self.architecture.block:
                    x = layer.network_step(x, draws)
            return x / np.sqrt(n)

    def _start(self, points: Floats, known: Source) -> Floats:
        """Return X0, (networks or 1, P + T, n): the inputs in an orthonormal frame, a random one if a layer sees it."""
        n, p = self.architecture.width, points.shape[1]
        x = points * np.sqrt(n / p)
        if not self.architecture.needs_mean:
            return linalg.pad(x, n)[None]
        return x @ linalg.frame(known.normal(n, p))

    def batch_size(self, tests: int = 0) -> int:
        """Return the number of networks in a batch, so that its largest array stays small."""
        n, rows = self.architecture.width, len(self.inputs) + tests
        widest = max(layer.largest_weight(n) for layer in self.architecture.block)
        return int(np.clip(BATCH_NUMBERS // (max(n, rows) * max(widest, len(self.inputs))), 1, MAX_BATCH))

    def check_memory(self, workers: int | None) -> None:
        """Check that a batch of networks for each thread fits into memory.

        **Raises:** `InputError` otherwise.
        """
        n, points = self.architecture.width, len(self.inputs)
        widest = max(layer.largest_weight(n) for layer in self.architecture.block)
        numbers = 3 * points * max(n, widest) + n * widest + 3 * min(points, n) ** 2
        workers = None if workers is None else check_count(workers, "workers")
        what = f"networks of {counted(points, 'input')} and width {n:,} in all threads"
        check_memory((workers or cores()) * self.batch_size(), numbers, what, "use fewer inputs, units or workers")


def check_layers(architecture: Any) -> Architecture:
    """Return the architecture, checked to treat inputs one by one.

    **Raises:** `InputError` otherwise.
    """
    check_architecture(architecture)
    checked: Architecture = architecture
    if any(layer.mixes_tokens for layer in checked.block):
        raise InputError(
            "attention mixes the inputs, so a test point would change the outputs at the training inputs, and "
            "there is no prior over functions: use layers that treat inputs one by one (Dense, MLP, norms)"
        )
    return checked


def check_networks(architecture: Any, features: int) -> Architecture:
    """Return the architecture, checked to treat inputs one by one and to fit the number of features.

    **Raises:** `InputError` otherwise.
    """
    checked = check_layers(architecture)
    if features > checked.width and not isinstance(checked.block[0], Dense):
        raise InputError(
            f"{counted(features, 'feature')} do not fit a residual stream of width {checked.width}: use a width of at "
            f"least {features}, fewer features (such as principal components), or a first layer Dense"
        )
    return checked


def check_memory(count: int, numbers: int, what: str, advice: str) -> None:
    """Check that `count` times `numbers` numbers fit into memory.

    **Raises:** `InputError` otherwise.
    """
    needed, memory = count * numbers * 8, physical_memory()
    if needed > MAX_MEMORY_SHARE * memory:
        raise InputError(
            f"{what} take {needed / 1e9:.1f} GB, more than half of this machine's {memory / 1e9:.1f} GB: {advice}"
        )


def in_batches(
    task: Callable[..., Result],
    count: int,
    size: int,
    workers: int | None,
    label: str | None = None,
) -> Iterator[tuple[NDArray[np.int64], Result]]:
    """Yield the results of `task(numbers, cancelled=)` for batches of the numbers from 0 to `count` − 1, in any order.

    **Arguments:**

    - `task`: takes the numbers of a batch, and a function that says whether to stop.
    - `count`, `size`: of all numbers, and of those in a batch.
    - `workers`: number of threads; `None` means all cores.
    - `label`: of a progress bar; `None` (the default) shows none.
    """
    check_count(1 if workers is None else workers, "workers")
    compilation.load_all("generator")
    batches: Sequence[NDArray[np.int64]] = np.array_split(np.arange(count), -(-count // size))

    def run(number: int, cancelled: Callable[[], bool]) -> Result:
        return task(batches[number], cancelled=cancelled)

    with (
        progress(label or "", count if label else 0) as advance,
        closing(run_in_threads(run, len(batches), workers)) as results,
    ):
        for number, result in results:
            advance(len(batches[number]))
            yield batches[number], result
