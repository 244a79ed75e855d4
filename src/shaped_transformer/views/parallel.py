"""Runs numbered tasks in threads of this process or on a Dask cluster, and cancels them."""

import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from ..errors import InputError

Result = TypeVar("Result")
Finished = Generator[tuple[int, Result], None, None]
"""Finished tasks with their numbers, in any order."""

_cancel_requested: ContextVar[Callable[[], bool]] = ContextVar("whether to cancel the tasks", default=lambda: False)


@contextmanager
def cancel_when(requested: Callable[[], bool]) -> Iterator[None]:
    """Within the context, end tasks in threads with an `InterruptedError` as soon as `requested` returns true.

    Python raises an interrupt in the main thread only. A caller that draws in threads of its own passes it on this way.
    """
    token = _cancel_requested.set(requested)
    try:
        yield
    finally:
        _cancel_requested.reset(token)


def run_in_threads(
    task: Callable[..., Result], count: int, workers: int | None, on_step: Callable[[int], None] = lambda _: None
) -> Finished[Result]:
    """Yield the results of `task(0)` to `task(count - 1)`, run in threads; closing the generator cancels the rest.

    While it runs, BLAS is limited to one thread in the whole process: the tasks are the parallel work, and sums keep
    their order for any number of workers.

    **Arguments:**

    - `task`: takes a number, and as `cancelled` a function that it calls often and stops when it returns true.
    - `count`: number of tasks.
    - `workers`: number of threads; `None` means all cores.
    - `on_step`: called with a task's number, in its thread, whenever the task calls `cancelled`; default nothing.
    """
    from threadpoolctl import threadpool_limits

    cancel, requested = threading.Event(), _cancel_requested.get()
    threads = min(workers or cores(), count)

    def cancelled(number: int) -> bool:
        on_step(number)
        return cancel.is_set() or requested()

    with threadpool_limits(limits=1), ThreadPoolExecutor(threads) as pool:
        waiting = iter(range(count))
        running = {pool.submit(task, i, cancelled=partial(cancelled, i)): i for i in islice(waiting, 2 * threads)}
        try:
            while running:
                done = next(as_completed(running))
                number = running.pop(done)
                yield number, done.result()
                for i in islice(waiting, 1):
                    running[pool.submit(task, i, cancelled=partial(cancelled, i))] = i
        finally:
            cancel.set()


def in_order(finished: Finished[Result]) -> Iterator[Result]:
    """Yield the results of finished tasks by their numbers, from 0 on."""
    early: dict[int, Result] = {}
    following = 0
    for number, result in finished:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


def run_on_cluster(task: Callable[..., Result], count: int, client: Any) -> Finished[Result]:
    """Yield the results of `task(0)` to `task(count - 1)`, run by Dask; closing the generator cancels the rest.

    **Raises:** `InputError` if Dask is not installed.
    """
    try:
        from distributed import as_completed as completed
    except ImportError:
        raise InputError("client= needs Dask: pip install 'shaped-transformer[cluster]'") from None
    futures = client.map(task, range(count), pure=False)
    numbers = {future.key: number for number, future in enumerate(futures)}
    try:
        for future, result in completed(futures, loop=client.loop, with_results=True):
            yield numbers[future.key], result
            future.release()
    finally:
        client.cancel(futures)


def cores() -> int:
    """Return the number of cores that this process may use, or where the system does not know, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
