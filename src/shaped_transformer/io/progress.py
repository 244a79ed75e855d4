"""A progress bar on standard error, shown only if standard error is a terminal."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REFRESH = 0.05
"""Seconds between two updates of a bar: work that reports each small step costs no more than one that does not."""

_report_part: ContextVar[Callable[[float], None] | None] = ContextVar("reports part of a unit of the bar", default=None)


class _Count:
    """Finished units of a bar, and how much of the next one is done; its methods may be called from any thread."""

    def __init__(self, show: Callable[[float], None]) -> None:
        self.show = show
        self.units = 0.0
        self.part = 0.0
        self.shown = 0.0
        self.lock = threading.Lock()

    def advance(self, units: float) -> None:
        """Add finished units."""
        with self.lock:
            self.units, self.part = self.units + units, 0.0
            self._refresh()

    def add_part(self, share: float) -> None:
        """Add a share of the next unit."""
        with self.lock:
            self.part = min(self.part + share, 1.0)
            self._refresh()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self.shown >= REFRESH:
            self.shown = now
            self.show(self.units + self.part)


@contextmanager
def progress(description: str, total: float, unit: str | None = None) -> Iterator[Callable[[float], None]]:
    """Show a progress bar with the remaining time while the body runs, if it runs in the main thread.

    Inside the body of another bar no second one appears: the work counts as one unit of that bar.

    **Arguments:**

    - `description`: label of the bar.
    - `total`: number of units of work.
    - `unit`: name of a unit; if given, the bar also shows units per second. Default: no speed.

    **Returns:** a context; call its value with the number of units that were just finished, from any thread.
    """
    outer = _report_part.get()
    if total <= 0 or threading.current_thread() is not threading.main_thread():
        yield lambda _: None
        return
    if outer is not None:  # asked first: before version 15, what rich puts in place of stderr says it is no terminal
        yield lambda done: outer(done / total)
        return
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        *((Speed(),) if unit else ()),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        count = _Count(lambda done: bar.update(task, completed=done))
        token = _report_part.set(count.add_part)
        try:
            yield count.advance
        finally:
            _report_part.reset(token)
