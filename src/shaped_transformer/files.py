"""Writing so that nothing half-done is ever seen: to a temporary name beside the place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name for a file or folder that takes the place of `path` when the body has succeeded.

    **Raises:** `StorageError` if the place cannot be written.
    """
    path = Path(path)
    with scratch(path.parent) as folder:
        temporary = folder / path.name
        try:
            yield temporary
            old = folder / f"{path.name}.old"
            if path.is_dir():  # a folder cannot be renamed over another one
                path.rename(old)
            os.replace(temporary, path)
        except OSError as error:
            raise _unwritable(path, error) from None


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a fresh hidden folder inside `parent` (made if missing), removed afterwards whatever happens.

    **Raises:** `StorageError` if it cannot be made.
    """
    missing = [p for p in (parent, *parent.parents) if not p.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    except OSError as error:
        raise _unwritable(parent, error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for made in missing:  # leave no empty folder behind after a failure
            try:
                made.rmdir()
            except OSError:
                break


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another place")
