"""What a sweep draws: a grid or a list of designs, read from a YAML file and checked before anything is drawn."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import inputs
from ...checks import check_count, check_seed
from ...design.architecture import PRESETS, Architecture
from ...errors import InputError, ShapedTransformerError, StorageError
from ...io.yaml import read_yaml
from ...views import sampling, sde
from ...views.by_name import VIEWS
from .statistics import STATISTICS

Index = tuple[int, ...]

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
WHOLE = ("width", "depth", "tokens", "samples", "seed", "heads")
"""Parameters that are whole numbers, and may be written as 1e3."""


@dataclass(frozen=True, eq=False)
class Point:
    """One design, checked: what its draws need, wherever they are made."""

    view: str
    architecture: Architecture
    v0: NDArray[np.float64]
    samples: int
    seed: int


@dataclass(frozen=True)
class Sweep:
    """What is to be drawn.

    **Arguments:** `base`: what all points share; `axes`: name and values of each axis of the grid, or `points`: the
    points of a list, without axes; `keep`: names of `STATISTICS`; `folder`: where the texts that are named lie.
    """

    base: dict[str, Any]
    axes: dict[str, tuple[Any, ...]]
    points: tuple[dict[str, Any], ...]
    keep: tuple[str, ...]
    folder: Path = Path()

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the store's dimensions."""
        return tuple(self.axes) or ("point",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(len(values) for values in self.axes.values()) or (len(self.points),)

    @property
    def order(self) -> tuple[Any, ...]:
        """What decides which index of the store a point has."""
        return tuple(self.axes.items()), self.points

    def indices(self) -> Iterator[Index]:
        """Return all indices in order."""
        return itertools.product(*(range(n) for n in self.shape))

    def chosen(self, index: Index) -> dict[str, Any]:
        """Return what sets the point at an index of the store apart from the others."""
        if not self.axes:
            return self.points[index[0]]
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}

    def label(self, index: Index) -> str:
        """Return the same in words, such as `gamma=0.2, width=8`."""
        return ", ".join(f"{name}={plain(value)}" for name, value in self.chosen(index).items())

    def point(self, index: Index) -> Point:
        """Return the point at an index of the store.

        **Raises:** `ShapedTransformerError` for a point that cannot be.
        """
        values = DEFAULTS | self.base | self.chosen(index)
        if values["view"] not in VIEWS:
            raise InputError(f"no view {values['view']!r}: choose one of {', '.join(VIEWS)}")
        samples, seed = check_count(values["samples"], "samples"), check_seed(values["seed"])
        arch = _architecture(values)
        if values["text"] is None:
            v0 = inputs.equicorrelated(values["tokens"], values["correlation"])
        else:
            v0 = inputs.from_text(self.folder / values["text"]["file"], max_tokens=values["tokens"])
        v0 = sampling.check_start(arch, v0)
        sampling.initial_factor(v0, arch.width)  # its rank must fit the width
        sampling.check_memory(samples, 1, len(v0))
        if values["view"] == "sde":
            sde.check_limit(arch)
            sde.check_steps(arch, len(v0))
        return Point(values["view"], arch, v0, samples, seed)

    def to_dict(self) -> dict[str, Any]:
        """Return the specification in its one full form, as JSON values."""
        return {
            "base": dict(sorted(self.base.items())),
            "grid": {name: list(values) for name, values in self.axes.items()},
            "list": list(self.points),
            "keep": list(self.keep),
        }


def plain(value: Any) -> Any:
    """Return the value of a parameter as it was written: files by their names."""
    return value["file"] if isinstance(value, dict) else value


@dataclass(frozen=True)
class _Source:
    """Where the files of a specification lie, and whether functions that they name may be imported."""

    folder: Path
    trust: bool


def read(path: Path, *, trust: bool = False) -> Sweep:
    """Read a specification from a YAML file.

    **Arguments:** `path`: the file; architectures and texts that it names lie relative to it. `trust`: whether the
    functions that architectures name may be imported from any module, see `Definition.from_dict`; default no.

    **Returns:** the `Sweep`.

    **Raises:** `StorageError` if a file cannot be read; `InputError` naming the key that is wrong.
    """
    return from_dict(read_yaml(path), Path(path).parent, trust=trust)


def definitions(path: Path) -> list[Path]:
    """Return the files of architectures that a specification names, before anything of it is checked."""
    spec = read_yaml(path)
    given = [spec.get(key) for key in ("base", "grid", "list")] if isinstance(spec, dict) else []
    parts = [part for value in given for part in (value if isinstance(value, list) else [value])]
    named = [part.get("architecture") for part in parts if isinstance(part, dict)]
    files = [file for value in named for file in (value if isinstance(value, list) else [value])]
    return [Path(path).parent / file for file in files if isinstance(file, str)]


def from_dict(spec: Any, folder: Path = Path(), *, trust: bool = False) -> Sweep:
    """Check a specification: `base` (optional), one of `grid` and `list`, and `keep` (default: all statistics).

    **Arguments:** `spec`: its values; `folder`: where architectures and texts lie. They are read now, so that the store
    knows what was drawn, and notices a changed file. `trust`: as in `read`.

    **Raises:** `InputError` naming the key that is wrong, what was expected and what came.
    """
    _check_mapping(spec, "the specification", ("base", "grid", "list", "keep"))
    known = (*DEFAULTS, *DESIGN)
    base = _check_mapping(spec.get("base") or {}, "base", known)
    grid = _check_mapping(spec.get("grid") or {}, "grid", known)
    points = spec.get("list") or []
    if not isinstance(points, list):
        raise InputError(f"list must be a sequence of points (got {type(points).__name__})")
    for i, point in enumerate(points):
        _check_mapping(point, f"list[{i}]", known)
    if bool(grid) == bool(points):
        raise InputError("give either grid (values of each parameter) or list (points), with at least one entry")
    for name, value in base.items():
        _check_scalar(value, f"base.{name}")
    _check_whole_definitions(base, grid, points)
    source = _Source(folder, trust)
    base, *points = ({name: _resolved(name, v, source) for name, v in values.items()} for values in (base, *points))
    axes = {name: _axis(name, values, base, source) for name, values in grid.items()}
    for i, point in enumerate(points):
        if point in points[:i]:
            raise InputError(f"list[{i}] stands twice: leave one out")
    return Sweep(base, axes, tuple(points), _kept(spec.get("keep")), folder)


def _check_mapping(value: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping with keys from {', '.join(known)} (got {type(value).__name__})")
    for key in value:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}: choose from {', '.join(known)}")
    return value


def _check_scalar(value: Any, where: str) -> None:
    if isinstance(value, dict | list) and not where.endswith("mask"):
        raise InputError(f"{where} must be one value (got {type(value).__name__}); lists of values belong in grid")


def _check_whole_definitions(base: dict[str, Any], grid: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """See that nothing stands beside an architecture that it holds already."""
    groups = [("base and grid", [*base, *grid]), *((f"list[{i}]", [*base, *p]) for i, p in enumerate(points))]
    for where, given in groups:
        extra = [name for name in ("preset", "width", "depth", *DESIGN) if name in given]
        if "architecture" in given and extra:
            raise InputError(f"{where}: architecture is a whole definition: leave out {', '.join(extra)}")


def _axis(name: str, values: Any, base: dict[str, Any], source: _Source) -> tuple[Any, ...]:
    """The values of an axis, checked."""
    if not isinstance(values, list) or not values:
        raise InputError(f"grid.{name} must be a list of at least one value (got {values!r})")
    if name in base:
        raise InputError(f"{name} stands in both base and grid: leave one out")
    axis = tuple(_resolved(name, value, source) for value in values)
    for i, value in enumerate(axis):
        if value in axis[:i]:
            raise InputError(f"grid.{name} has {plain(value)!r} twice: leave one out")
    return axis


def _kept(keep: Any) -> tuple[str, ...]:
    """The names of the statistics to keep, checked."""
    names = keep or list(STATISTICS)
    if not isinstance(names, list) or any(name not in STATISTICS for name in names):
        raise InputError(f"keep must be a list from {', '.join(STATISTICS)} (got {keep!r})")
    return tuple(dict.fromkeys(names))


def _resolved(name: str, value: Any, source: _Source) -> Any:
    """A value in its one full form: whole numbers as such, files by name and content."""
    if isinstance(value, bool):
        raise InputError(f"{name} must be a number or a name (got {value})")
    if name in WHOLE and isinstance(value, float) and value.is_integer():
        return int(value)
    if name == "architecture" and value is not None:
        if not isinstance(value, str):
            raise InputError(f"architecture must name a JSON file (got {value!r})")
        return {"file": value, "definition": Architecture.read(source.folder / value, trust=source.trust).to_dict()}
    if name == "text" and value is not None:
        if not isinstance(value, str):
            raise InputError(f"text must name a file (got {value!r})")
        file = source.folder / value
        try:
            return {"file": value, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror or error}") from None
    return value


def _architecture(values: dict[str, Any]) -> Architecture:
    """The definition of a point, from its file or from its preset."""
    if values["architecture"] is not None:
        return Architecture.from_dict(values["architecture"]["definition"], trust=True)  # refused above if it was not
    preset, design = values["preset"], {name: values[name] for name in DESIGN if name in values}
    if preset not in PRESETS:
        raise InputError(f"no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    try:
        return PRESETS[preset](values["width"], values["depth"], **design)
    except TypeError:
        raise InputError(f"preset {preset} does not take all of {', '.join(design)}") from None


def prepare(sweep: Sweep) -> tuple[dict[Index, Point], dict[Index, str]]:
    """Return the points that can be drawn, and why the others cannot, before any is drawn.

    **Raises:** `InputError` if none can, as when `base` is wrong.
    """
    points, failures = {}, {}
    for index in sweep.indices():
        try:
            points[index] = sweep.point(index)
        except (ShapedTransformerError, TypeError, ValueError) as error:
            failures[index] = message_of(error)
    if not points:
        index, message = next(iter(failures.items()))
        raise InputError(f"no point of the sweep can be drawn; {sweep.label(index)}: {message}")
    return points, failures


def message_of(error: BaseException) -> str:
    """Return the kind and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
