"""Reading files, and atomic writing: into a temporary place beside the target, which a rename then puts in place."""

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

from ..errors import InputError, StorageError

if TYPE_CHECKING:
    import xarray

SAFE_CODECS = ("blosc", "bz2", "crc32", "delta", "gzip", "lz4", "lzma", "shuffle", "vlen-utf8", "zlib", "zstd")
"""Codecs that the chunks of a store may use. Others that zarr knows, such as pickle, run code when they are read."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of the system into `StorageError` while the body reads `path`.

    **Raises:** `StorageError` if the body raises an `OSError`.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


def read_text(path: Path, kind: str) -> str:
    """Return the content of a UTF-8 file.

    **Arguments:**

    - `path`: the file.
    - `kind`: what it should contain, such as `"JSON"`, for the message.

    **Raises:** `StorageError` if it cannot be read, `InputError` if it is not UTF-8.
    """
    try:
        with reading(path):
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not {kind} in UTF-8: convert it first") from None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays into one file, atomically: a reader sees the complete old file or the complete new one.

    **Raises:** `StorageError` if it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `write_arrays` wrote, or `None` if the file is missing or damaged.

    **Raises:** `StorageError` if the system refuses to read the file.
    """
    with reading(path):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, BadZipFile, RuntimeError, zlib.error):  # what zipfile raises for a damaged file
            return None


def read_store(path: Path) -> "xarray.Dataset":
    """Return the dataset in a zarr store of the library, loaded into memory.

    **Raises:** `StorageError` if there is none, or if it is damaged or uses a codec that could run code.
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
    except Exception as error:  # for a damaged store, zarr and its codecs raise exceptions of almost any type
        raise StorageError(f"{path} cannot be read as a zarr store: {error}") from None


def check_codecs(path: Path) -> None:
    """Check that every array of a zarr store uses only `SAFE_CODECS`.

    **Raises:** `ValueError` if one uses another codec; various errors of JSON and dictionaries if the store is damaged.
    """
    for file in path.glob("**/.zarray"):
        array = json.loads(file.read_bytes())
        for codec in (array["compressor"], *(array["filters"] or ())):
            if codec is not None and codec["id"] not in SAFE_CODECS:
                raise ValueError(f"it uses the codec {codec['id']!r}, but only {', '.join(SAFE_CODECS)} are allowed")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which replaces `path` if the body succeeds.

    **Raises:** `StorageError` if `path` cannot be written.
    """
    path = Path(path)
    with _temporary_folder_in(path.parent) as folder:
        temporary = folder / path.name
        try:
            yield temporary
            _move_into_place(temporary, path, folder / "old")
        except StorageError:
            raise
        except OSError as error:
            raise _write_error(path, error) from None


@contextmanager
def writing_into(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files and folders move into `folder` if the body succeeds.

    In `folder`, only files and folders of the same names are replaced.

    **Raises:** `StorageError`, before the body runs, if the folder cannot be written.
    """
    folder = Path(folder)
    with _temporary_folder_in(folder) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        old.mkdir()
        yield new
        try:
            for item in sorted(new.iterdir()):
                _move_into_place(item, folder / item.name, old / item.name)
        except OSError as error:
            raise _write_error(folder, error) from None


@contextmanager
def _temporary_folder_in(parent: Path) -> Iterator[Path]:
    """Yield a fresh hidden folder inside `parent`, made if missing, and remove it when the body ends.

    **Raises:** `StorageError` if it cannot be made.
    """
    try:
        missing = [p for p in (parent, *parent.parents) if not p.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    except OSError as error:
        raise _write_error(parent, error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for made in missing:  # leave no empty folder behind after a failure
            try:
                made.rmdir()
            except OSError:
                break


def _move_into_place(new: Path, target: Path, old: Path) -> None:
    """Rename `new` to `target`; a folder already at `target` moves to `old`, and back if that fails."""
    if not target.is_dir():
        new.replace(target)
        return
    if not new.is_dir():
        raise IsADirectoryError(21, f"there is a folder {target.name}")
    target.rename(old)  # a folder cannot be renamed over another one
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def _write_error(path: Path, error: OSError) -> StorageError:
    """Return the `StorageError` for a path that cannot be written."""
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another place")
