"""Executors: threads of this process, worker processes, or a Dask cluster, which compute the points of a sweep."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from ...errors import InputError, MissingExtra
from ...numerics import compilation
from ...numerics.arrays import Floats
from ...views import parallel
from .points import Index, Point

Result = dict[str, Floats] | str
"""The numbers of a point, or its error in one line."""
Task = Callable[[Point], Result]
"""Computes a point."""
Results = Iterator[tuple[Index, Result]]
"""Finished points, in any order."""
Execute = Callable[[Task, Mapping[Index, Point]], Results]
"""Computes points, given by index."""

DASHBOARD = "127.0.0.1:8787"
"""Address of the dashboard, which only this machine can reach."""
NO_HTTP_ROUTES: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
"""Settings of Dask: its processes always start an HTTP server, which serves nothing without routes."""


@contextmanager
def executor(
    scheduler: str | None, workers: int | None, announce: Callable[[str], None] | None = None
) -> Iterator[Execute]:
    """Yield a function that computes points; at the end of the context, cancel what it still computes.

    **Arguments:**

    - `scheduler`: address of a running Dask scheduler; or
    - `workers`: number of local processes. With neither, threads of this process compute.
    - `announce`: called with the address of Dask's dashboard; `None` (default) serves no dashboard.

    **Raises:** `MissingExtra` if Dask is needed and not installed; `InputError` if no scheduler answers.
    """
    from threadpoolctl import threadpool_limits

    with ExitStack() as stack:
        if scheduler is None and workers is None:
            yield stack.enter_context(_threads())
            return
        if find_spec("distributed") is None:
            raise MissingExtra("cluster", "a sweep on a scheduler or on worker processes")
        if scheduler is not None:
            client = stack.enter_context(_connect(scheduler))
        else:
            client = stack.enter_context(_start_workers(workers, announce))
        stack.enter_context(threadpool_limits(limits=1))
        yield lambda task, points: _execute_on_client(client, task, points)


@contextmanager
def _threads() -> Iterator[Execute]:
    """Yield a function that computes points in as many threads as there are cores."""
    from threadpoolctl import threadpool_limits

    cancelled = threading.Event()
    compilation.load_all()

    def run(task: Task, point: Point) -> Result:
        with parallel.cancel_when(cancelled.is_set):
            return task(point)

    # `sample` limits BLAS to one thread and then restores the limit, also for the other threads: it must be 1 already.
    with threadpool_limits(limits=1), ThreadPoolExecutor(parallel.cores()) as pool:

        def execute(task: Task, points: Mapping[Index, Point]) -> Results:
            indices = {pool.submit(run, task, point): index for index, point in points.items()}
            for future in as_completed(indices):
                yield indices[future], future.result()

        try:
            yield execute
        finally:
            cancelled.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """Yield a client of a running Dask scheduler."""
    from distributed import Client

    if "://" not in scheduler:
        raise InputError(f"scheduler must be an address such as tcp://host:8786 (got {scheduler!r})")
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)  # a client that fails would stay the default
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        yield client


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Let processes that the body starts ignore interrupts, which a terminal sends to all; this process ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _start_workers(workers: int | None, announce: Callable[[str], None] | None) -> Iterator[Any]:
    """Yield a client of new worker processes on this machine, which only this process can command."""
    import dask
    from distributed import Client, LocalCluster, Security

    if announce and find_spec("bokeh") is None:
        raise MissingExtra("cluster", "Dask's dashboard")
    try:
        security = Security.temporary()
    except ImportError:
        raise MissingExtra("cluster", "encryption between worker processes") from None
    pages = {"dashboard": announce is not None, "dashboard_address": DASHBOARD if announce else "127.0.0.1:0"}
    options: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    options |= {"n_workers": workers, "threads_per_worker": 1, "silence_logs": logging.ERROR}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({} if announce else NO_HTTP_ROUTES))
        with _ignore_interrupts():
            cluster = stack.enter_context(LocalCluster(scheduler_kwargs=pages, **options))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        if announce is not None:
            announce(f"Dashboard: {cluster.dashboard_link}")
        yield client


def _execute_on_client(client: Any, task: Task, points: Mapping[Index, Point]) -> Results:
    """Yield finished points from a Dask client, which computes a point again if its worker is lost."""
    from distributed import as_completed as completed

    indices = {client.submit(task, point, pure=False, retries=3): index for index, point in points.items()}
    for future, result in completed(indices, loop=client.loop, with_results=True):
        yield indices[future], result
        future.release()
