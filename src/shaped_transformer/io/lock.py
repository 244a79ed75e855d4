"""Locks on folders, so that only one process at a time writes into them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError, StorageError

LOCK = ".lock"
"""Name of the file that is locked; it stays in the folder."""

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP)
"""Errors of file systems without locks; there the folder is used unlocked."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, made if missing, while the body runs; if the process is killed, the system releases the lock.

    **Raises:** `InputError` if another process holds the lock, `StorageError` if the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by another process: wait for it, or choose another folder") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
