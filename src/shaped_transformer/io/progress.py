"""A progress bar on standard error, shown only if standard error is a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int, unit: str | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with the remaining time while the body runs, if it runs in the main thread.

    **Arguments:**

    - `description`: label of the bar.
    - `total`: number of units of work.
    - `unit`: name of a unit; if given, the bar also shows units per second. Default: no speed.

    **Returns:** a context; call its value with the number of units that were just finished.
    """
    if total <= 1 or not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
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
        yield lambda done: bar.advance(task, done)
