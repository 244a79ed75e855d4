"""Running of a sweep: which points are missing, what each one computes, and how the run ended."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, ShapedTransformerError
from ...estimates import LEVELS, share
from ...io.lock import locked
from ...io.progress import progress
from ...numerics.arrays import Floats
from ...views.by_name import VIEWS
from ...views.stopping import WINDOW
from .executors import Result, executor
from .points import Point, Sweep, check_points, describe_error
from .store import DONE, Store, align_with_store, is_finished


@dataclass(frozen=True)
class Failure:
    """A point that failed.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    base = {"width": 16, "depth": 2, "tokens": 2, "samples": 20}
    outcome = sweeps.run(sweeps.from_dict({"base": base, "grid": {"gamma": [0.3, 1.7]}}), Path("failing"))
    print(outcome.failed[0].label, outcome.failed[0].error)
    ```

    **Attributes:**

    - `point`: the parameters that `base` does not give.
    - `label`: the same as text.
    - `error`: kind and message of the error.
    """

    point: dict[str, Any]
    label: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    base = {"width": 16, "depth": 2, "tokens": 2, "samples": 20}
    sweep = sweeps.from_dict({"base": base, "grid": {"gamma": [0.3, 0.6]}})
    print(sweeps.run(sweep, Path("out")))  # Outcome(computed=2, done=0, failed=())
    print(sweeps.run(sweep, Path("out")))  # Outcome(computed=0, done=2, failed=())
    ```

    **Attributes:**

    - `computed`: number of points that this run computed.
    - `done`: number of points that earlier runs had computed.
    - `failed`: a `Failure` for each point that failed.
    """

    computed: int
    done: int
    failed: tuple[Failure, ...]


def run(
    sweep: Sweep,
    folder: Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    dashboard: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Compute the points of a sweep that are missing in its store.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    base = {"width": 16, "depth": 2, "tokens": 2, "samples": 20}
    sweeps.run(sweeps.from_dict({"base": base, "grid": {"gamma": [0.3, 0.6]}}), Path("out"))
    ```

    **Arguments:**

    - `sweep`: the sweep.
    - `folder`: folder of its store, which is made if it does not exist. One process at a time may write it.
    - `scheduler`: address of a running Dask scheduler, such as `tcp://host:8786`; or
    - `workers`: number of local processes, which communicate over the loopback interface, encrypted. With neither,
      threads of this process compute as many points at a time as there are cores, and no port is opened.
    - `dashboard`: whether to serve Dask's dashboard of the `workers` to this machine; default no.
    - `say`: called with a line that contains the dashboard's address; default does nothing.

    **Returns:** an `Outcome`. A point that failed before is computed again.

    **Raises:** `InputError` if no point can be sampled, if the folder contains another sweep, or if it is in use;
    `StorageError` if the folder cannot be used; `MissingExtra` if Dask is needed and not installed.
    """
    if scheduler is not None and workers is not None:
        raise InputError("give a scheduler or workers, not both")
    if dashboard and workers is None:
        raise InputError("a dashboard needs worker processes: give workers, or leave the dashboard out")
    folder = Path(folder)
    sweep = align_with_store(folder, sweep)
    points, impossible = check_points(sweep)
    with locked(folder), ExitStack() as stack:
        if align_with_store(folder, sweep).layout != sweep.layout:
            raise InputError(f"{folder} was changed by another process: run the same command again")
        if is_finished(folder, sweep):
            return Outcome(0, len(points) + len(impossible), ())
        announce = say if dashboard else None
        execute = stack.enter_context(executor(scheduler, workers, announce))  # it may fail: before the store is made
        store = Store.open(folder, sweep)
        status = store.status()
        missing = {index: point for index, point in points.items() if status[index] != DONE}
        failed = {index: message for index, message in impossible.items() if status[index] != DONE}
        for index, message in failed.items():
            store.write_result(index, message)
        with progress("points", len(missing)) as advance:
            for index, result in execute(partial(_result, keep=sweep.keep), missing):
                store.write_result(index, result)
                if isinstance(result, str):
                    failed[index] = result
                advance(1)
    failures = tuple(Failure(sweep.parameters(i), sweep.label(i), failed[i]) for i in sorted(failed))
    done = int(np.sum(status == DONE))
    return Outcome(status.size - done - len(failures), done, failures)


def draw_point(point: Point, keep: Sequence[str], workers: int | None = None) -> dict[str, Floats]:
    """Sample a point and compute its numbers.

    ```python
    from shaped_transformer.analysis import sweeps

    sweep = sweeps.from_dict({"base": {"width": 16, "depth": 2, "samples": 20}, "grid": {"gamma": [0.3]}})
    print(sweeps.draw_point(sweep.point((0,)), ["effective_rank"]))
    ```

    **Arguments:**

    - `point`: the point.
    - `keep`: names of the observables.
    - `workers`: number of threads, default all cores.

    **Returns:** for each observable its quantiles `LEVELS` at the last layer, and `stopped`: the share of paths that
    left the window [1e-4, 1e4] of eigenvalues, with its Wilson interval (value, low, high).
    """
    e = VIEWS[point.view].sample(
        point.architecture, point.v0, point.samples, point.seed, record=1, stop=WINDOW, workers=workers
    )
    out = {name: np.quantile(e.observe(name)[:, -1], LEVELS) for name in keep}
    return out | {"stopped": share(e.stopped <= point.architecture.depth).to_array()}


def _result(point: Point, keep: Sequence[str]) -> Result:
    """Return the numbers of a point, computed in one thread, or its error in one line."""
    try:
        return draw_point(point, keep, 1)
    except (ShapedTransformerError, TypeError, ValueError, MemoryError) as error:
        return describe_error(error)
