"""Who draws the points of a sweep: threads of this process, worker processes, or a cluster."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MissingExtra, ShapedTransformerError
from ...estimates import LEVELS, share
from ...io.lock import locked
from ...io.progress import progress
from ...numerics import compilation
from ...numerics.arrays import Floats
from ...views import parallel
from ...views.by_name import VIEWS
from ...views.stopping import WINDOW
from .specification import Index, Point, Sweep, check_points, message_of
from .store import DONE, Store, in_store_order, is_finished

Result = dict[str, Floats] | str
"""The numbers of a point, or in one line why there are none."""
Results = Iterator[tuple[Index, Result]]
"""Finished points, in any order."""
Draw = Callable[[dict[Index, Point], Sequence[str]], Results]
"""Draws points, given by index, and keeps the statistics that are named."""

DASHBOARD = "127.0.0.1:8787"
"""Where the dashboard is served if asked for: to this machine only."""
NO_PAGES: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
"""Dask's processes serve HTTP in any case; without routes there is nothing to be had."""


@dataclass(frozen=True)
class Failure:
    """A point that failed: what sets it apart from the others, the same in words, and the error."""

    point: dict[str, Any]
    label: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended: how many points were computed now, and done before, and which failed."""

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
    """Draw what is missing of a sweep.

    **Arguments:**

    - `sweep`: what to draw.
    - `folder`: where its store is, or is to be. One process at a time may write it.
    - `scheduler`: address of a running Dask scheduler, such as `tcp://host:8786`; or
    - `workers`: that many local processes, which speak with this one on the loopback interface, encrypted. With
      neither, threads of this process draw as many points at a time as there are cores, and nothing listens anywhere.
    - `dashboard`: whether Dask's page about `workers` is served to this machine; default no.
    - `say`: is told where the dashboard is.

    **Returns:** an `Outcome`. A point that failed before is tried again.

    **Raises:** `InputError` if no point can be drawn, or the folder holds another sweep, with the difference, or is in
    use; `StorageError` if it cannot be used; `MissingExtra` without Dask, where it is needed.
    """
    if scheduler is not None and workers is not None:
        raise InputError("give a scheduler or workers, not both")
    if dashboard and workers is None:
        raise InputError("the dashboard is that of worker processes: give workers, or leave it out")
    folder = Path(folder)
    sweep = in_store_order(folder, sweep)
    points, impossible = check_points(sweep)
    with locked(folder), ExitStack() as stack:
        if in_store_order(folder, sweep).order != sweep.order:
            raise InputError(f"{folder} was changed by another process: give the same command again")
        if is_finished(folder, sweep):
            return Outcome(0, len(points) + len(impossible), ())
        told = say if dashboard else None
        draw = stack.enter_context(_drawing(scheduler, workers, told))  # first, as it may fail
        store = Store.open(folder, sweep)
        status = store.status()
        todo = {index: point for index, point in points.items() if status[index] != DONE}
        failed = {index: message for index, message in impossible.items() if status[index] != DONE}
        for index, message in failed.items():
            store.write_point(index, message)
        with progress("points", len(todo)) as advance:
            for index, result in draw(todo, sweep.keep):
                store.write_point(index, result)
                if isinstance(result, str):
                    failed[index] = result
                advance(1)
    failures = tuple(Failure(sweep.chosen(i), sweep.label(i), failed[i]) for i in sorted(failed))
    done = int(np.sum(status == DONE))
    return Outcome(status.size - done - len(failures), done, failures)


def draw_point(point: Point, keep: Sequence[str], workers: int | None = None) -> dict[str, Floats]:
    """Draw one point.

    **Returns:** for each kept statistic its quantiles `LEVELS`, and `left`: the probability that a path leaves the
    window [1e-4, 1e4] of eigenvalues, with its Wilson interval (value, low, high).
    """
    e = VIEWS[point.view].sample(
        point.architecture, point.v0, point.samples, point.seed, record=1, stop=WINDOW, workers=workers
    )
    out = {name: np.quantile(e.observe(name)[:, -1], LEVELS) for name in keep}
    return out | {"left": share(e.stopped <= point.architecture.depth).to_array()}


def _attempt(point: Point, keep: Sequence[str]) -> Result:
    """What lands of a point, drawn by one thread."""
    try:
        return draw_point(point, keep, 1)
    except (ShapedTransformerError, TypeError, ValueError, MemoryError) as error:
        return message_of(error)


@contextmanager
def _drawing(scheduler: str | None, workers: int | None, dashboard: Callable[[str], None] | None) -> Iterator[Draw]:
    """What draws the points; `dashboard` is told where the dashboard is, if there is to be one."""
    from threadpoolctl import threadpool_limits

    with ExitStack() as stack:
        if scheduler is None and workers is None:
            yield stack.enter_context(_threads())
            return
        if find_spec("distributed") is None:
            raise MissingExtra("cluster", "a sweep on a scheduler or on worker processes")
        if scheduler is not None:
            client = stack.enter_context(_connected(scheduler))
        else:
            client = stack.enter_context(_processes(workers, dashboard))
        stack.enter_context(threadpool_limits(limits=1))
        yield lambda points, keep: _on_client(client, points, keep)


@contextmanager
def _threads() -> Iterator[Draw]:
    """Threads of this process, as many as cores; who leaves early ends the draws under way."""
    from threadpoolctl import threadpool_limits

    given_up = threading.Event()
    compilation.load_all()

    def task(point: Point, keep: Sequence[str]) -> Result:
        with parallel.cancel_when(given_up.is_set):
            return _attempt(point, keep)

    # Each draw limits BLAS to one thread, and would set it back under the others.
    with threadpool_limits(limits=1), ThreadPoolExecutor(parallel.cores()) as pool:

        def draw(points: dict[Index, Point], keep: Sequence[str]) -> Results:
            place = {pool.submit(task, point, keep): index for index, point in points.items()}
            for future in as_completed(place):
                yield place[future], future.result()

        try:
            yield draw
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A client of a running Dask scheduler."""
    from distributed import Client

    if "://" not in scheduler:
        raise InputError(f"the address of a scheduler is expected, such as tcp://host:8786 (got {scheduler!r})")
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)  # one that fails would stay the default
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        yield client


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Have processes that are started within ignore interrupts, which a terminal sends to all; this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _processes(workers: int | None, dashboard: Callable[[str], None] | None) -> Iterator[Any]:
    """A client of worker processes on this machine, which none but this process can command."""
    import dask
    from distributed import Client, LocalCluster, Security

    if dashboard and find_spec("bokeh") is None:
        raise MissingExtra("cluster", "Dask's dashboard")
    try:
        security = Security.temporary()
    except ImportError:
        raise MissingExtra("cluster", "encryption between worker processes") from None
    pages = {"dashboard": dashboard is not None, "dashboard_address": DASHBOARD if dashboard else "127.0.0.1:0"}
    options: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    options |= {"n_workers": workers, "threads_per_worker": 1, "silence_logs": logging.ERROR}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({} if dashboard else NO_PAGES))
        with _deaf_to_interrupts():
            cluster = stack.enter_context(LocalCluster(scheduler_kwargs=pages, **options))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        if dashboard is not None:
            dashboard(f"Dashboard: {cluster.dashboard_link}")
        yield client


def _on_client(client: Any, points: dict[Index, Point], keep: Sequence[str]) -> Results:
    """Points from a Dask client; one whose worker is lost is drawn again."""
    from distributed import as_completed as completed

    place = {client.submit(_attempt, point, keep, pure=False, retries=3): index for index, point in points.items()}
    for future, result in completed(place, loop=client.loop, with_results=True):
        yield place[future], result
        future.release()
