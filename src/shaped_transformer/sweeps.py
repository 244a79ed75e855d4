"""Many designs at once: a grid or list of points, each drawn by itself, landing one by one in one store.

A point that has landed is never drawn again, a point that fails is recorded with its error, and whatever interrupts a
sweep loses only the points under way. Points are independent of what runs them: a process, threads, a cluster.
"""

import importlib.util
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import inputs, statistics
from .analysis.stability import WINDOW
from .architecture import PRESETS, Architecture
from .errors import InputError, ShapedTransformerError
from .files import read_yaml, replacing
from .progress import progress
from .version import __version__
from .views import sampling
from .views.by_name import VIEWS
from .views.ensemble import Ensemble

Floats = NDArray[np.float64]

LEVELS = (0.05, 0.5, 0.95)
"""Quantiles that are kept of each statistic."""
MISSING, DONE, FAILED = 0, 1, 2
"""Values of the store's `status`."""
DEFAULTS: dict[str, Any] = {
    "architecture": None,
    "preset": "shaped_transformer",
    "width": 128,
    "depth": 64,
    "tokens": 8,
    "correlation": 0.2,
    "text": None,
    "view": "chain",
    "samples": 1024,
    "seed": 0,
}
"""What a point is where the specification is silent; the preset's own parameters have the preset's defaults."""
DESIGN = ("gamma", "tau0", "c_plus", "c_minus", "heads", "mask")
"""Parameters of presets that a point may set."""
STATISTICS: dict[str, Callable[[Ensemble], Floats]] = {
    "correlation": lambda e: statistics.mean_absolute_correlation(e.covariance[:, -1]),
    "effective_rank": lambda e: e.effective_rank()[:, -1],
    "mean_token_norm": lambda e: e.mean_token_norm()[:, -1],
    "largest_eigenvalue": lambda e: e.eigenvalues[:, -1, 0],
    "smallest_eigenvalue": lambda e: e.eigenvalues[:, -1, -1],
    "stopping_time": lambda e: np.minimum(e.stopped, e.architecture.depth) / e.architecture.width,
}
"""What a sweep may keep, at the last layer (or where a path left the window), one number per sample."""


@dataclass(frozen=True)
class Sweep:
    """What is to be drawn.

    **Arguments:** `base`: what all points share; `axes`: name and values of each axis of the grid, or `points`: the
    points of a list, without axes; `keep`: names of `STATISTICS`.
    """

    base: dict[str, Any]
    axes: dict[str, tuple[Any, ...]]
    points: tuple[dict[str, Any], ...]
    keep: tuple[str, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the store's dimensions."""
        return tuple(self.axes) or ("point",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(len(values) for values in self.axes.values()) or (len(self.points),)

    def __getitem__(self, index: tuple[int, ...]) -> dict[str, Any]:
        """Return the point at an index of the store."""
        if self.axes:
            chosen = {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}
        else:
            chosen = self.points[index[0]]
        return DEFAULTS | self.base | chosen

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Return all indices in order."""
        return itertools.product(*(range(n) for n in self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Return the specification in its one full form, as JSON values."""
        grid = {name: list(values) for name, values in self.axes.items()}
        return {
            "base": dict(sorted(self.base.items())),
            "grid": grid,
            "list": list(self.points),
            "keep": list(self.keep),
        }


def read(path: Path) -> Sweep:
    """Read a specification from a YAML file.

    **Returns:** the `Sweep`.

    **Raises:** `StorageError` if the file cannot be read; `InputError` naming the key that is wrong.
    """
    return from_dict(read_yaml(path), Path(path).parent)


def from_dict(spec: Any, folder: Path = Path()) -> Sweep:
    """Check a specification: `base` (optional), one of `grid` and `list`, and `keep` (default: all statistics).

    **Arguments:** `spec`: its values; `folder`: where files of architectures lie. They are read now, so that the store
    knows what was drawn, and notices a changed file.

    **Raises:** `InputError` naming the key that is wrong, what was expected and what came.
    """
    known = ("base", "grid", "list", "keep")
    _mapping(spec, "the specification", known)
    base, grid = (_mapping(spec.get(key) or {}, key, (*DEFAULTS, *DESIGN)) for key in ("base", "grid"))
    points = spec.get("list") or []
    if not isinstance(points, list):
        raise InputError(f"list must be a sequence of points (got {type(points).__name__})")
    points = [_mapping(point, f"list[{i}]", (*DEFAULTS, *DESIGN)) for i, point in enumerate(points)]
    if bool(grid) == bool(points):
        raise InputError("give either grid (values of each parameter) or list (points), with at least one entry")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid.{name} must be a list of at least one value (got {values!r})")
        if name in base:
            raise InputError(f"{name} stands in both base and grid: leave one out")
    keep = spec.get("keep") or list(STATISTICS)
    if not isinstance(keep, list) or (unknown := [name for name in keep if name not in STATISTICS]):
        raise InputError(f"keep must be a list from {', '.join(STATISTICS)} (got {keep!r})")
    del unknown
    for name, value in base.items():
        _scalar(value, f"base.{name}")
    for where, given in (
        ("base and grid", [*base, *grid]),
        *((f"list[{i}]", [*base, *p]) for i, p in enumerate(points)),
    ):
        whole = [name for name in ("preset", "width", "depth", *DESIGN) if name in given]
        if "architecture" in given and whole:
            raise InputError(f"{where}: architecture is a whole definition: leave out {', '.join(whole)}")
    base, *points = (_with_definition(values, folder) for values in (base, *points))
    axes = {name: tuple(_with_definition({name: v}, folder)[name] for v in values) for name, values in grid.items()}
    return Sweep(base, axes, tuple(points), tuple(keep))


def _with_definition(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values, with the name of a file of an architecture replaced by its name and content."""
    file = values.get("architecture")
    if file is None or isinstance(file, dict):
        return values
    definition = Architecture.read(folder / str(file))
    return values | {"architecture": {"file": str(file), "definition": definition.to_dict()}}


def _mapping(value: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping with keys from {', '.join(known)} (got {type(value).__name__})")
    for key in value:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}: choose from {', '.join(known)}")
    return value


def _scalar(value: Any, where: str) -> None:
    if isinstance(value, dict | list) and not where.endswith(("mask", "architecture")):
        raise InputError(f"{where} must be one value (got {type(value).__name__}); lists of values belong in grid")


def draw_point(point: dict[str, Any], keep: Sequence[str], workers: int | None = None) -> dict[str, Floats]:
    """Draw one point.

    **Returns:** for each kept statistic its quantiles `LEVELS`, and `left`: the probability that a path leaves the
    window [1e-4, 1e4] of eigenvalues, with its Wilson interval (value, low, high).

    **Raises:** `ShapedTransformerError` for a point that cannot be.
    """
    if (view := point["view"]) not in VIEWS:
        raise InputError(f"no view {view!r}: choose one of {', '.join(VIEWS)}")
    arch = _architecture(point)
    if point["text"] is None:
        v0 = inputs.equicorrelated(point["tokens"], point["correlation"])
    else:
        v0 = inputs.from_text(Path(point["text"]), max_tokens=point["tokens"])
    e = VIEWS[view].sample(arch, v0, point["samples"], point["seed"], record=1, stop=WINDOW, workers=workers)
    out = {name: np.quantile(STATISTICS[name](e), LEVELS) for name in keep}
    left = statistics.share(e.stopped <= arch.depth)
    return out | {"left": np.array([left.value, left.low, left.high])}


def _architecture(point: dict[str, Any]) -> Architecture:
    """The definition of a point, from its file or from its preset."""
    if point["architecture"] is not None:
        return Architecture.from_dict(point["architecture"]["definition"])
    preset, design = point["preset"], {name: point[name] for name in DESIGN if name in point}
    if preset not in PRESETS:
        raise InputError(f"no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    try:
        return PRESETS[preset](point["width"], point["depth"], **design)
    except TypeError:
        raise InputError(f"preset {preset} does not take all of {', '.join(design)}") from None


def _attempt(point: dict[str, Any], keep: Sequence[str], workers: int | None) -> dict[str, Floats] | str:
    """The point's numbers, or in one line why there are none."""
    try:
        return draw_point(point, keep, workers)
    except (ShapedTransformerError, TypeError, ValueError, MemoryError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())


class Store:
    """The zarr store of a sweep, one chunk a point, so that points land one by one; xarray opens it whole."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._group = zarr.open_group(str(folder / "store.zarr"), mode="r+")

    @staticmethod
    def create(folder: Path, sweep: Sweep) -> None:
        """Make an empty store, with its specification beside it."""
        import xarray as xr

        one = dict.fromkeys(sweep.dims, 1)
        numbers = {name: ((*sweep.dims, "quantile"), np.full((*sweep.shape, 3), np.nan)) for name in sweep.keep}
        left = ((*sweep.dims, "bound"), np.full((*sweep.shape, 3), np.nan))
        status = (sweep.dims, np.full(sweep.shape, MISSING, dtype=np.int8))
        error = (sweep.dims, np.full(sweep.shape, "", dtype="U300"))
        coords: dict[str, Any] = {"quantile": list(LEVELS), "bound": ["value", "low", "high"]}
        for name, values in sweep.axes.items():
            plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            coords[name] = list(values) if plain else [str(v["file"] if isinstance(v, dict) else v) for v in values]
        data = xr.Dataset(
            {**numbers, "left": left, "status": status, "error": error},
            coords=coords,
            attrs={"specification": json.dumps(sweep.to_dict()), "version": __version__},
        )
        chunks = {name: {"chunks": tuple(one.get(str(d), n) for d, n in v.sizes.items())} for name, v in data.items()}
        with replacing(folder / "store.zarr") as temporary:
            data.to_zarr(temporary, zarr_format=2, encoding=chunks, consolidated=True)

    def specification(self) -> dict[str, Any]:
        """Return what the store was made for."""
        found: dict[str, Any] = json.loads(str(self._group.attrs["specification"]))
        return found

    def status(self) -> NDArray[np.int8]:
        """Return which points are missing, done and failed."""
        return np.asarray(self._array("status")[...])

    def land(self, index: tuple[int, ...], result: dict[str, Floats] | str) -> None:
        """Put a point in its place; its status comes last, so that half a point counts as missing."""
        if isinstance(result, str):
            self._array("error")[index] = result[:300]
            self._array("status")[index] = FAILED
            return
        for name, numbers in result.items():
            self._array(name)[index] = numbers
        self._array("error")[index] = ""
        self._array("status")[index] = DONE

    def _array(self, name: str) -> Any:
        return self._group[name]


@dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended: points drawn now, kept from before, and failed (index and error)."""

    drawn: int
    kept: int
    failed: tuple[tuple[tuple[int, ...], str], ...]


def run(sweep: Sweep, folder: Path, *, scheduler: str | None = None, workers: int | None = None) -> Outcome:
    """Draw what is missing of a sweep.

    **Arguments:**

    - `sweep`: what to draw.
    - `folder`: where its store is, or is to be.
    - `scheduler`: address of a running Dask scheduler, such as `tcp://host:8786`; or
    - `workers`: that many local processes. With neither, a Dask cluster inside this process draws as many points at
      a time as there are cores; without Dask they are drawn one after another, each on all cores.

    **Returns:** an `Outcome`. A point that failed before is tried again.

    **Raises:** `InputError` if the folder holds another sweep, with the difference; `StorageError` if it cannot be
    used.
    """
    folder = Path(folder)
    if not (folder / "store.zarr").exists():
        Store.create(folder, sweep)
    store = Store(folder)
    _refuse_another(store.specification(), json.loads(json.dumps(sweep.to_dict())), folder)
    sweep = from_dict(store.specification())  # the same, with the axes in the store's order
    status = store.status()
    todo = [index for index in sweep.indices() if status[index] != DONE]
    failed: list[tuple[tuple[int, ...], str]] = []
    with _results(sweep, todo, scheduler, workers) as results, progress("points", len(todo)) as advance:
        for index, result in results:
            store.land(index, result)
            if isinstance(result, str):
                failed.append((index, result))
            advance(1)
    return Outcome(len(todo) - len(failed), int(np.sum(status == DONE)), tuple(sorted(failed)))


def _refuse_another(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    changed = [
        f"{part}.{key}: {_shown(a)} there, {_shown(b)} now"
        for part in ("base", "grid")
        for key in sorted(found[part].keys() | wanted[part].keys())
        if (a := found[part].get(key)) != (b := wanted[part].get(key))
    ]
    changed += [f"{part} differs" for part in ("list", "keep") if found[part] != wanted[part]]
    if changed:
        raise InputError(f"{folder} holds another sweep ({'; '.join(changed)}): choose another folder")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


Results = Iterator[tuple[tuple[int, ...], dict[str, Floats] | str]]


@contextmanager
def _results(
    sweep: Sweep, todo: list[tuple[int, ...]], scheduler: str | None, workers: int | None
) -> Iterator[Results]:
    """Finished points, in any order."""
    if scheduler is None and workers is None and importlib.util.find_spec("distributed") is None:
        yield ((index, _attempt(sweep[index], sweep.keep, None)) for index in todo)
        return
    from threadpoolctl import threadpool_limits

    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise InputError("--scheduler and --workers need Dask: pip install 'shaped-transformer[cluster]'") from None
    if scheduler is not None:
        cluster = None
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    else:
        here = {"processes": False, "n_workers": 1, "threads_per_worker": sampling.cores()}
        there = {"n_workers": workers, "threads_per_worker": 1}
        cluster = LocalCluster(
            dashboard_address=None, silence_logs=logging.ERROR, **(here if workers is None else there)
        )
        client = Client(cluster)
    try:
        place = {client.submit(_attempt, sweep[index], sweep.keep, 1, pure=False, retries=3): index for index in todo}
        with threadpool_limits(limits=1):  # each point sets it too, and would set it back under the others
            yield ((place[future], result) for future, result in as_completed(place, with_results=True))
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
