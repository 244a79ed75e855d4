"""Writing so that nothing half-done is ever seen: to a temporary name beside the place, then renamed; reading again."""

import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError

if TYPE_CHECKING:
    import xarray

CODECS = ("blosc", "bz2", "crc32", "delta", "gzip", "lz4", "lzma", "shuffle", "vlen-utf8", "zlib", "zstd")
"""How chunks of a store may be packed. Others that zarr knows, such as pickle, run code when they are read."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays into one file; who reads it meanwhile sees the old one or the new one, whole.

    **Raises:** `StorageError` if it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return what `write_arrays` wrote, or `None` where there is nothing, or nothing whole.

    **Raises:** `StorageError` if there is a file that the system does not let us read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, BadZipFile, RuntimeError, zlib.error):  # zipfile's words for what is damaged
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


def read_store(path: Path) -> "xarray.Dataset":
    """Return what a zarr store of the library holds, in memory.

    **Raises:** `StorageError` if there is none, or it is damaged or packed in a way that could run code.
    """
    import xarray as xr

    try:
        if not path.exists():
            raise StorageError(f"no such store: {path}")
        check_codecs(path)
        with xr.open_zarr(path, consolidated=False, chunks=None, zarr_format=2) as data:
            return data.load()
    except StorageError:
        raise
    except Exception as error:  # a damaged store makes zarr and its codecs raise almost anything
        raise StorageError(f"{path} is not a zarr store that can be read: {error}") from None


def check_codecs(path: Path) -> None:
    """See that no array of a zarr store is packed in a way that could run code.

    **Raises:** `ValueError` if one is; what JSON and dictionaries raise for a damaged store.
    """
    for file in path.glob("**/.zarray"):
        array = json.loads(file.read_bytes())
        for codec in (array["compressor"], *(array["filters"] or ())):
            if codec is not None and codec["id"] not in CODECS:
                raise ValueError(f"packed with {codec['id']!r}, but one of {', '.join(CODECS)} is expected")


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
            _put(temporary, path, folder / "old")
        except StorageError:
            raise
        except OSError as error:
            raise _unwritable(path, error) from None


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files and folders are moved into `folder` when the body has succeeded.

    Of what is there already, only things of the same name are replaced.

    **Raises:** `StorageError`, before the body runs, if the folder cannot be written.
    """
    folder = Path(folder)
    with scratch(folder) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        old.mkdir()
        yield new
        try:
            for item in sorted(new.iterdir()):
                _put(item, folder / item.name, old / item.name)
        except OSError as error:
            raise _unwritable(folder, error) from None


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a fresh hidden folder inside `parent` (made if missing), removed afterwards whatever happens.

    **Raises:** `StorageError` if it cannot be made.
    """
    try:
        missing = [p for p in (parent, *parent.parents) if not p.exists()]
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


def _put(new: Path, place: Path, old: Path) -> None:
    """Rename `new` to `place`; what was there goes to `old`, and comes back if that fails."""
    if not place.is_dir():
        new.replace(place)
        return
    if not new.is_dir():
        raise IsADirectoryError(21, f"there is a folder {place.name}")
    place.rename(old)  # a folder cannot be renamed over another one
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another place")
