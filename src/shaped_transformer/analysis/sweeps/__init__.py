"""Many designs at once: a grid or list of points, each drawn by itself, landing one by one in one store.

A point that has landed is not drawn again, a point that fails is recorded with its error, and whatever interrupts a
sweep loses only the points under way. Points are independent of what draws them: threads, processes, a cluster.
"""

from .scheduling import Failure, Outcome, draw_point, run
from .specification import KEPT, Sweep, as_written, definitions, from_dict, read
from .store import DONE, FAILED, MISSING, STORE, Store, in_store_order, load

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
    "as_written",
    "definitions",
    "draw_point",
    "from_dict",
    "in_store_order",
    "load",
    "read",
    "run",
]
