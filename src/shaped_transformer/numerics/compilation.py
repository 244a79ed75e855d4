"""Compilation of the kernels: once per machine, without Python's global lock, cached on disk, with a notice to wait."""

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

NOTICE_DELAY = 2.0
"""Seconds of waiting for the kernels after which `COMPILING_NOTICE` is printed; loading from disk takes less."""

COMPILING_NOTICE = (
    "shaped-transformer: preparing its kernels; the first run after installation compiles them, later runs load them"
)
NO_CACHE_NOTICE = (
    "shaped-transformer: no folder to keep compiled kernels in; set NUMBA_CACHE_DIR to one that can be written, so "
    "that later runs start faster"
)


def compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function for these signatures when its module is imported.

    A product may be fused with a sum (`contract`). Otherwise the arithmetic follows IEEE 754, infinities and NaN
    included.
    """
    from numba import njit

    compile_ = njit(list(signatures), nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

    def compile_cached(function: Callable[..., Any]) -> Any:
        try:
            return compile_(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):  # Numba's message where it finds no folder that can be written
                raise
        _use_temporary_cache()
        return compile_(function)

    return compile_cached


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function by inserting its code into the compiled functions that call it, before they are optimised."""
    from numba import njit

    return njit(function, inline="always")


@functools.cache
def _use_temporary_cache() -> None:
    """Cache the kernels of this process and its children in a fresh folder, which is removed when the process ends.

    Only this user can access the folder, and its name cannot be predicted, because compiled code is loaded from it.

    **Raises:** `StorageError` if the folder cannot be made.
    """
    import numba

    try:
        folder = tempfile.mkdtemp(prefix="shaped-transformer-")
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"no folder to keep compiled kernels in ({reason}): set NUMBA_CACHE_DIR to one") from None
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
    atexit.register(_remove_own_folder, folder, os.getpid())
    print(NO_CACHE_NOTICE, file=sys.stderr, flush=True)  # noqa: T201


def _remove_own_folder(folder: str, owner: int) -> None:
    """Remove a folder if this process made it: a forked child also runs the exit handlers of its parent."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def load(name: str) -> ModuleType:
    """Import a module of kernels of this package, which compiles it or loads it from disk.

    **Arguments:**

    - `name`: `"kernels"`, `"generator"` or `"adam"`.
    """
    return importlib.import_module(f".{name}", __package__)


@functools.cache
def load_all(*names: str) -> None:
    """Load kernels now, so that no thread waits for them and no time measurement includes them.

    After `NOTICE_DELAY` seconds, a notice on standard error explains the wait.

    **Arguments:**

    - `names`: of modules, as in `load`; default those of the chain.
    """
    notice = threading.Timer(NOTICE_DELAY, _print_compiling_notice)
    notice.daemon = True
    notice.start()
    try:
        for name in names or ("generator", "kernels"):
            load(name)
    finally:
        notice.cancel()
        notice.join()


def _print_compiling_notice() -> None:
    """Print `COMPILING_NOTICE`, unless `NO_CACHE_NOTICE` was printed: then later runs find nothing on disk."""
    if not _use_temporary_cache.cache_info().currsize:
        print(COMPILING_NOTICE, file=sys.stderr, flush=True)  # noqa: T201
