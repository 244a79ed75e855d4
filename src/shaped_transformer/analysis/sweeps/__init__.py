"""Sweeps: many designs, as a grid or a list of points, whose results are collected in one store.

Each finished point is stored at once and is not computed again. A point that fails is recorded with its error. An
interruption loses only the points that are being computed. The numbers do not depend on who computes them: threads,
processes or a cluster.
"""

from .points import Sweep, value_as_specified
from .scheduling import Failure, Outcome, draw_point, run
from .schema import KEPT
from .specification import architecture_files, from_dict, read
from .store import DONE, FAILED, MISSING, STORE, Store, align_with_store, load

__all__ = [
    "DONE",
    "FAILED",
    "KEPT",
    "MISSING",
    "STORE",
    "Failure",
    "Outcome",
    "Store",
    "Sweep",
    "align_with_store",
    "architecture_files",
    "draw_point",
    "from_dict",
    "load",
    "read",
    "run",
    "value_as_specified",
]
