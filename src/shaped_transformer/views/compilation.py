"""How the kernels are compiled: once per machine, outside Python's lock, kept on disk, and with a word to who waits."""

import functools
import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

PATIENCE = 2.0
"""Seconds after which whoever waits for the kernels is told why; from the disk they come in less."""

NOTICE = "shaped-transformer: compiling its kernels, once after installation; later runs find them on disk"


def compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function for these signatures, when its module is imported.

    Products may be fused with sums (`contract`); apart from this the arithmetic is IEEE's, infinities and NaN included.
    """
    from numba import njit

    return njit(list(signatures), nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


def inlined(function: Callable[..., Any]) -> Any:
    """Return a function to be written into the compiled functions that call it, before they are optimised."""
    from numba import njit

    return njit(function, inline="always")


@functools.cache
def load(name: str) -> ModuleType:
    """Import a module of kernels of this package.

    **Arguments:** `name`: `"kernels"` or `"generator"`.
    """
    return importlib.import_module(f".{name}", __package__)


@functools.cache
def prepare() -> None:
    """Load all kernels now, so that no thread waits for them and no measurement counts them.

    If that takes long, whoever waits is told why on standard error.
    """
    notice = threading.Timer(PATIENCE, print, (NOTICE,), {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        for name in ("generator", "kernels"):
            load(name)
    finally:
        notice.cancel()
        notice.join()
