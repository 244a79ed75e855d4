"""A progress bar on standard error for long work; nothing where standard error is not a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int, unit: str | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left while the body runs, if it runs in the main thread.

    **Arguments:** `description`: what is being done; `total`: how many units of work; `unit`: their name, if their
    number per second is to be shown.

    **Returns:** a context whose value is to be called with the number of units just finished.
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
