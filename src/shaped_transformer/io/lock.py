"""A folder that one process at a time may write."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError, StorageError

LOCK = ".lock"
"""The file that is locked; it stays in the folder."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP)
"""Answers of file systems that know no locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, made if missing, for this process while the body runs; the lock is gone when the process is.

    **Raises:** `InputError` if another process holds it; `StorageError` if it cannot be written.
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
