"""The zarr store of a sweep: results are written point by point, and xarray opens it as one dataset."""

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
from .points import Index, Sweep, value_as_specified

if TYPE_CHECKING:
    import xarray


STORE = "store.zarr"
"""Name of the store in a sweep's folder."""
MISSING, DONE, FAILED = 0, 1, 2
"""Values of the store's `status`."""
LONGEST_MESSAGE = 300
"""Stored characters of the error of a point that failed."""


class Store:
    """The store of a sweep, with one chunk for each point.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    sweep = sweeps.from_dict({"base": {"width": 16, "depth": 4}, "grid": {"gamma": [0.3, 0.6]}})
    store = sweeps.Store.open(Path("new"), sweep)
    print(store.status())  # [0 0]
    ```

    **Arguments:**

    - `folder`: the sweep's folder, which contains a store; `Store.open` makes one.

    **Raises:** `StorageError` if the store cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._group = _group(folder)

    @classmethod
    def open(cls, folder: Path, sweep: Sweep) -> "Store":
        """Open the store of a sweep; make it if there is none, and extend it if values were added to its axes.

        **Arguments:**

        - `folder`: the sweep's folder.
        - `sweep`: the sweep, as `align_with_store` returns it.

        **Raises:** `InputError` if the folder contains another sweep, or one of another version; `StorageError` if the
        store cannot be read or written.
        """
        if not (folder / STORE).exists():
            _write(folder, _empty_dataset(sweep))
        elif _as_json(sweep) != (stored := _stored_specification(folder)):
            _write(folder, _extended_dataset(folder, stored, align_with_store(folder, sweep)))
        return cls(folder)

    def status(self) -> NDArray[np.int8]:
        """Return the status of every point: `MISSING`, `DONE` or `FAILED`."""
        return np.asarray(self._array("status")[...])

    def write_result(self, index: Index, result: dict[str, Floats] | str) -> None:
        """Write the numbers of a point, or its error.

        The status is written last, so that a half-written point counts as missing.
        """
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
    """Return whether a folder's store contains all points of a sweep, as `align_with_store` returns it."""
    if not (folder / STORE).exists() or _as_json(sweep) != _stored_specification(folder):
        return False
    return bool((Store(folder).status() == DONE).all())


def load(folder: Path) -> "xarray.Dataset":
    """Return the store of a sweep as a dataset.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    base = {"width": 16, "depth": 2, "tokens": 2, "samples": 20}
    sweeps.run(sweeps.from_dict({"base": base, "grid": {"gamma": [0.3, 0.6]}}), Path("out"))
    print(sweeps.load(Path("out"))["effective_rank"].sel(quantile=0.5))
    ```

    **Arguments:**

    - `folder`: the sweep's folder.

    **Returns:** a dataset with a dimension for each axis, or `point` for a list: the quantiles of each stored
    observable, `stopped`, `status` and `error`.

    **Raises:** `StorageError` if the store cannot be read.
    """
    return read_store(folder / STORE)


def _group(folder: Path) -> Any:
    """Open a folder's store."""
    import zarr

    try:
        check_codecs(folder / STORE)
        return zarr.open_group(str(folder / STORE), mode="r+")
    except Exception as error:  # for a damaged store, zarr raises exceptions of almost any type
        raise StorageError(f"{folder / STORE} cannot be read as a zarr store: {error}") from None


def _stored_specification(folder: Path) -> dict[str, Any]:
    """Return the specification of the sweep in a folder's store.

    **Raises:** `InputError` if another version made the store, or if it is not that of a sweep.
    """
    attributes = _group(folder).attrs
    try:
        stored: dict[str, Any] = json.loads(str(attributes["specification"]))
        version = str(attributes["version"])
    except (KeyError, ValueError):
        raise InputError(f"{folder / STORE} is not the store of a sweep: choose another folder") from None
    if version != __version__:
        raise InputError(
            f"{folder} was drawn by version {version}, but this is {__version__}, which may draw other numbers: choose "
            "another folder"
        )
    return stored


def align_with_store(folder: Path, sweep: Sweep) -> Sweep:
    """Return the sweep with its axes and values in the order of a folder's store, which it must equal or extend.

    Where values were added to an axis, or points to the list, they keep the order of the sweep.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    first = sweeps.from_dict({"grid": {"gamma": [0.3, 0.6], "seed": [0, 1]}})
    sweeps.Store.open(Path("ordered"), first)
    turned = sweeps.from_dict({"grid": {"seed": [0, 1], "gamma": [0.6, 0.3]}})
    print(sweeps.align_with_store(Path("ordered"), turned) == first)  # True
    ```

    **Arguments:**

    - `folder`: the sweep's folder.
    - `sweep`: the sweep.

    **Returns:** the sweep; unchanged if there is no store yet.

    **Raises:** `InputError` if the folder contains another sweep, or one of another version; `StorageError` if the
    store cannot be read.
    """
    if not (folder / STORE).exists():
        return sweep
    stored = _stored_specification(folder)
    if changes := _changes(stored, _as_json(sweep)):
        raise InputError(
            f"{folder} holds another sweep ({'; '.join(changes)}): undo this change, or choose another folder"
        )
    axes = {
        name: sweep.axes[name] if len(sweep.axes[name]) > len(values) else tuple(values)
        for name, values in stored["grid"].items()
    }
    points = sweep.points if len(sweep.points) > len(stored["list"]) else tuple(stored["list"])
    return Sweep(sweep.base, axes, points, sweep.keep, sweep.folder)


def _changes(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return why a stored sweep cannot be extended to the wanted one; nothing if it can."""
    changes = [
        f"base.{key}: {_abbreviated(a)} in the store, {_abbreviated(b)} now"
        for key in sorted(stored["base"].keys() | wanted["base"].keys())
        if (a := stored["base"].get(key)) != (b := wanted["base"].get(key))
    ]
    if stored["grid"].keys() != wanted["grid"].keys():
        before, now = (", ".join(grid) or "none" for grid in (stored["grid"], wanted["grid"]))
        changes.append(f"grid: {before} in the store, {now} now")
    else:
        for name, values in stored["grid"].items():
            if missing := [value_as_specified(v) for v in values if v not in wanted["grid"][name]]:
                changes.append(f"grid.{name}: {_abbreviated(missing)} in the store, missing now")
    if lost := [point for point in stored["list"] if point not in wanted["list"]]:
        changes.append(f"list: {_abbreviated(lost)} in the store, missing now")
    if stored["keep"] != wanted["keep"]:
        changes.append(f"keep: {', '.join(stored['keep'])} in the store, {', '.join(wanted['keep'])} now")
    return changes


def _as_json(sweep: Sweep) -> dict[str, Any]:
    """Return the specification of a sweep as it is read from a store."""
    specification: dict[str, Any] = json.loads(json.dumps(sweep.to_dict()))
    return specification


def _abbreviated(value: Any) -> str:
    """Return a value as text of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _empty_dataset(sweep: Sweep) -> "xarray.Dataset":
    """Return the dataset of a sweep without any finished point."""
    import xarray as xr

    numbers = {name: ((*sweep.dims, "quantile"), np.full((*sweep.shape, 3), np.nan)) for name in sweep.keep}
    stopped = ((*sweep.dims, "bound"), np.full((*sweep.shape, 3), np.nan))
    status = (sweep.dims, np.full(sweep.shape, MISSING, dtype=np.int8))
    error = (sweep.dims, np.full(sweep.shape, "", dtype=f"U{LONGEST_MESSAGE}"))
    coords: dict[str, Any] = {"quantile": list(LEVELS), "bound": list(BOUNDS)}
    for name, values in sweep.axes.items():
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        coords[name] = list(values) if numeric else [str(value_as_specified(v)) for v in values]
    return xr.Dataset(
        {**numbers, "stopped": stopped, "status": status, "error": error},
        coords=coords,
        attrs={"specification": json.dumps(sweep.to_dict()), "version": __version__},
    )


def _extended_dataset(folder: Path, stored: dict[str, Any], sweep: Sweep) -> "xarray.Dataset":
    """Return the dataset of a sweep with the points of its smaller, stored form."""
    old, new = load(folder), _empty_dataset(sweep)
    if sweep.axes:
        places = [[sweep.axes[name].index(v) for v in values] for name, values in stored["grid"].items()]
    else:
        places = [[sweep.points.index(point) for point in stored["list"]]]
    for name, values in old.data_vars.items():
        new[name].values[np.ix_(*places)] = values.to_numpy()
    return new


def _write(folder: Path, data: "xarray.Dataset") -> None:
    """Write the store of a folder anew, with one chunk for each point."""
    dims = (*data["status"].dims,)
    chunks = {
        name: {"chunks": tuple(1 if dim in dims else size for dim, size in values.sizes.items())}
        for name, values in data.data_vars.items()
    }
    with replacing(folder / STORE) as temporary:
        data.to_zarr(temporary, zarr_format=2, encoding=chunks, consolidated=True)
