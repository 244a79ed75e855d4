"""How the kernels are compiled: once per machine, outside Python's lock, kept on disk, and with a word to who waits."""

import atexit
import functools
import importlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..errors import StorageError

PATIENCE = 2.0
"""Seconds after which whoever waits for the kernels is told why; from the disk they come in less."""

NOTICE = "shaped-transformer: compiling its kernels, once after installation; later runs find them on disk"
HOMELESS = (
    "shaped-transformer: no folder to keep compiled kernels in; set NUMBA_CACHE_DIR to one that can be written, so "
    "that later runs start faster"
)


def compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function for these signatures, when its module is imported.

    Products may be fused with sums (`contract`); apart from this the arithmetic is IEEE's, infinities and NaN included.
    """
    from numba import njit

    compile_ = njit(list(signatures), nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

    def kept(function: Callable[..., Any]) -> Any:
        try:
            return compile_(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):  # so says Numba where it finds no folder that can be written
                raise
        _temporary_cache()
        return compile_(function)

    return kept


@functools.cache
def _temporary_cache() -> None:
    """Keep the kernels of this process, and of those it starts, in a fresh folder that is removed at its end.

    The folder is this user's alone, with a name that nobody can know before: compiled code is loaded from it.

    **Raises:** `StorageError` if not even that can be made.
    """
    import numba

    try:
        folder = tempfile.mkdtemp(prefix="shaped-transformer-")
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"no folder to keep compiled kernels in ({reason}): set NUMBA_CACHE_DIR to one") from None
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
    atexit.register(_remove, folder, os.getpid())
    print(HOMELESS, file=sys.stderr, flush=True)  # noqa: T201


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked process leaves it to who made it
        shutil.rmtree(folder, ignore_errors=True)


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
    notice = threading.Timer(PATIENCE, _explain)
    notice.daemon = True
    notice.start()
    try:
        for name in ("generator", "kernels"):
            load(name)
    finally:
        notice.cancel()
        notice.join()


def _explain() -> None:
    if not _temporary_cache.cache_info().currsize:  # then it was told already, and nothing stays on disk
        print(NOTICE, file=sys.stderr, flush=True)  # noqa: T201
