"""The zarr store of a sweep: points land in it one by one, and xarray opens it whole."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, StorageError
from ...estimates import BOUNDS, LEVELS
from ...io.files import check_codecs, read_store, replacing
from ...numerics.arrays import Floats
from ...version import __version__
from .specification import Index, Sweep, as_written

if TYPE_CHECKING:
    import xarray


STORE = "store.zarr"
"""Its name in a sweep's folder."""
MISSING, DONE, FAILED = 0, 1, 2
"""Values of the store's `status`."""
LONGEST_MESSAGE = 300
"""Characters that are kept of why a point failed."""


class Store:
    """The store of a sweep, one chunk a point, in the order of the sweep's axes and values."""

    def __init__(self, folder: Path) -> None:
        self._group = _group(folder)

    @classmethod
    def open(cls, folder: Path, sweep: Sweep) -> "Store":
        """Open the store of a sweep; make it if there is none, and extend it if values were added to its axes.

        **Arguments:** `folder`; `sweep`: as `in_store_order` returns it.

        **Raises:** `InputError` if the folder holds another sweep, or one of another version; `StorageError` for a
        store that cannot be read or written.
        """
        if not (folder / STORE).exists():
            _write(folder, _empty(sweep))
        elif _as_json(sweep) != (found := _specification(folder)):
            _write(folder, _extended(folder, found, in_store_order(folder, sweep)))
        return cls(folder)

    def status(self) -> NDArray[np.int8]:
        """Return which points are missing, done and failed."""
        return np.asarray(self._array("status")[...])

    def write_point(self, index: Index, result: dict[str, Floats] | str) -> None:
        """Put a point in its place; its status comes last, so that half a point counts as missing."""
        if isinstance(result, str):
            self._array("error")[index] = result[:LONGEST_MESSAGE]
            self._array("status")[index] = FAILED
            return
        for name, numbers in result.items():
            self._array(name)[index] = numbers
        self._array("error")[index] = ""
        self._array("status")[index] = DONE

    def _array(self, name: str) -> Any:
        return self._group[name]


def is_finished(folder: Path, sweep: Sweep) -> bool:
    """Return whether all points of a sweep, as `in_store_order` returns it, are in the folder's store."""
    if not (folder / STORE).exists() or _as_json(sweep) != _specification(folder):
        return False
    return bool((Store(folder).status() == DONE).all())


def load(folder: Path) -> "xarray.Dataset":
    """Return a sweep's store as a dataset.

    **Raises:** `StorageError` if it cannot be read.
    """
    return read_store(folder / STORE)


def _group(folder: Path) -> Any:
    import zarr

    try:
        check_codecs(folder / STORE)
        return zarr.open_group(str(folder / STORE), mode="r+")
    except Exception as error:  # a damaged store makes zarr raise almost anything
        raise StorageError(f"{folder / STORE} is not a zarr store that can be read: {error}") from None


def _specification(folder: Path) -> dict[str, Any]:
    """What the store was made for, by this version."""
    attributes = _group(folder).attrs
    try:
        found: dict[str, Any] = json.loads(str(attributes["specification"]))
        version = str(attributes["version"])
    except (KeyError, ValueError):
        raise InputError(f"{folder / STORE} is no sweep's store: choose another folder") from None
    if version != __version__:
        raise InputError(
            f"{folder} was drawn by version {version}, this is {__version__}, whose draws may differ: choose another "
            "folder"
        )
    return found


def in_store_order(folder: Path, sweep: Sweep) -> Sweep:
    """Return the sweep in the order of a folder's store, which it must equal or extend; as it is where there is none.

    Axes keep the store's order; their values too, unless some were added.

    **Raises:** `InputError` if the folder holds another sweep, or one of another version; `StorageError` for a store
    that cannot be read.
    """
    if not (folder / STORE).exists():
        return sweep
    found, wanted = _specification(folder), _as_json(sweep)
    changes = [
        f"base.{key}: {_short(a)} there, {_short(b)} now"
        for key in sorted(found["base"].keys() | wanted["base"].keys())
        if (a := found["base"].get(key)) != (b := wanted["base"].get(key))
    ]
    if found["grid"].keys() != wanted["grid"].keys():
        changes.append(f"grid: {_names(found['grid'])} there, {_names(wanted['grid'])} now")
    else:
        for name, values in found["grid"].items():
            if missing := [as_written(v) for v in values if v not in wanted["grid"][name]]:
                changes.append(f"grid.{name}: {_short(missing)} there, not now")
    if lost := [point for point in found["list"] if point not in wanted["list"]]:
        changes.append(f"list: {_short(lost)} there, not now")
    if found["keep"] != wanted["keep"]:
        changes.append(f"keep: {', '.join(found['keep'])} there, {', '.join(wanted['keep'])} now")
    if changes:
        raise InputError(
            f"{folder} holds another sweep ({'; '.join(changes)}): take that back, or choose another folder"
        )
    axes = {
        name: sweep.axes[name] if len(sweep.axes[name]) > len(values) else tuple(values)
        for name, values in found["grid"].items()
    }
    points = sweep.points if len(sweep.points) > len(found["list"]) else tuple(found["list"])
    return Sweep(sweep.base, axes, points, sweep.keep, sweep.folder)


def _as_json(sweep: Sweep) -> dict[str, Any]:
    """The specification as it is read back."""
    made: dict[str, Any] = json.loads(json.dumps(sweep.to_dict()))
    return made


def _names(grid: dict[str, Any]) -> str:
    return ", ".join(grid) or "none"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _empty(sweep: Sweep) -> "xarray.Dataset":
    """The dataset of a sweep of which no point is there."""
    import xarray as xr

    numbers = {name: ((*sweep.dims, "quantile"), np.full((*sweep.shape, 3), np.nan)) for name in sweep.keep}
    left = ((*sweep.dims, "bound"), np.full((*sweep.shape, 3), np.nan))
    status = (sweep.dims, np.full(sweep.shape, MISSING, dtype=np.int8))
    error = (sweep.dims, np.full(sweep.shape, "", dtype=f"U{LONGEST_MESSAGE}"))
    coords: dict[str, Any] = {"quantile": list(LEVELS), "bound": list(BOUNDS)}
    for name, values in sweep.axes.items():
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        coords[name] = list(values) if numeric else [str(as_written(v)) for v in values]
    return xr.Dataset(
        {**numbers, "left": left, "status": status, "error": error},
        coords=coords,
        attrs={"specification": json.dumps(sweep.to_dict()), "version": __version__},
    )


def _extended(folder: Path, found: dict[str, Any], sweep: Sweep) -> "xarray.Dataset":
    """The dataset of a sweep with the points that an earlier, smaller form of it has drawn."""
    old, new = load(folder), _empty(sweep)
    if sweep.axes:
        places = [[sweep.axes[name].index(v) for v in values] for name, values in found["grid"].items()]
    else:
        places = [[sweep.points.index(point) for point in found["list"]]]
    for name, values in old.data_vars.items():
        new[name].values[np.ix_(*places)] = values.to_numpy()
    return new


def _write(folder: Path, data: "xarray.Dataset") -> None:
    dims = (*data["status"].dims,)
    chunks = {
        name: {"chunks": tuple(1 if dim in dims else size for dim, size in values.sizes.items())}
        for name, values in data.data_vars.items()
    }
    with replacing(folder / STORE) as temporary:
        data.to_zarr(temporary, zarr_format=2, encoding=chunks, consolidated=True)
