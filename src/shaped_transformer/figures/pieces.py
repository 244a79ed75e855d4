"""A figure's work in named pieces: each is kept on disk when done, so that an interrupted figure goes on."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from ..io.files import read_arrays, write_arrays
from ..io.progress import progress

Arrays = dict[str, NDArray[Any]]
Task = Callable[[], Arrays]


class Pieces:
    """Does pieces of work, or finds them done.

    **Arguments:** `folder`: where finished pieces are kept until `discard`; `None` keeps none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.kept = 0
        self.total = 0

    def __call__(self, tasks: Mapping[str, Task]) -> dict[str, Arrays]:
        """Return what each task gives, by its name, in the same order; a name stands for one piece of the figure."""
        done: dict[str, Arrays] = {}
        self.total += len(tasks)
        with progress("pieces of the figure", len(tasks)) as advance:
            for name, task in tasks.items():
                done[name] = self._piece(name, task)
                self.kept += 1
                advance(1)
        return done

    def discard(self) -> None:
        """Remove what was kept, once the figure is finished."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _piece(self, name: str, task: Task) -> Arrays:
        if self.folder is None:
            return task()
        place = self.folder / (quote(name, safe=" =,") + ".npz")
        if (found := read_arrays(place)) is not None:
            return found
        arrays = task()
        write_arrays(place, arrays)
        return arrays
