"""The computation of a figure in named pieces: each is stored when finished, so that an interrupted figure resumes."""

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
"""Computes a piece."""


class PieceRunner:
    """Computes pieces, or reads those that an earlier run has stored.

    **Arguments:**

    - `folder`: folder of the stored pieces; `None` (default) stores none.

    **Attributes:** `finished` and `total`, numbers of pieces so far.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.finished = 0
        self.total = 0

    def run(self, tasks: Mapping[str, Task]) -> dict[str, Arrays]:
        """Return the arrays of each task.

        **Arguments:**

        - `tasks`: the tasks by name; within a figure, a name always stands for the same piece.

        **Returns:** the arrays by name, in the same order.
        """
        done: dict[str, Arrays] = {}
        self.total += len(tasks)
        with progress("pieces of the figure", len(tasks)) as advance:
            for name, task in tasks.items():
                done[name] = self._read_or_compute(name, task)
                self.finished += 1
                advance(1)
        return done

    def discard(self) -> None:
        """Remove the stored pieces."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read_or_compute(self, name: str, task: Task) -> Arrays:
        """Return the arrays of one task, from its file if there is one."""
        if self.folder is None:
            return task()
        file = self.folder / (quote(name, safe=" =,") + ".npz")
        if (stored := read_arrays(file)) is not None:
            return stored
        arrays = task()
        write_arrays(file, arrays)
        return arrays
