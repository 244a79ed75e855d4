"""What a sweep draws: a grid or a list of designs, read from a YAML file and checked before anything is drawn."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from ... import inputs
from ...checks import check_count, check_seed
from ...design.architecture import PRESETS, Architecture
from ...design.definition import problem_message
from ...errors import InputError, ShapedTransformerError, StorageError
from ...io.yaml import read_yaml
from ...numerics.arrays import Floats
from ...views import sampling, sde
from ...views.by_name import VIEWS

Index = tuple[int, ...]

KEPT = (
    "mean_absolute_correlation",
    "effective_rank",
    "mean_token_norm",
    "largest_eigenvalue",
    "smallest_eigenvalue",
    "stopping_time",
)
"""Observables that a sweep may keep of each point, at the last layer, or where a path left the window."""


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError(f"must be one value (got {type(value).__name__}); lists of values belong in grid")
    if isinstance(value, bool):
        raise ValueError(f"must be a number or a name (got {value})")
    return value


def _number(value: Any) -> Any:
    if not isinstance(_scalar(value), int | float):
        raise ValueError(f"must be a number (got {value!r})")
    return value


def _whole(value: Any) -> Any:
    """Accept whole numbers written as 1e3."""
    return int(value) if isinstance(_number(value), float) and value.is_integer() else value


def _file(kind: str) -> Any:
    def check(value: Any) -> Any:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"must name a {kind} (got {value!r})")
        return value

    return BeforeValidator(check)


Number = Annotated[Any, BeforeValidator(_number)]
Whole = Annotated[Any, BeforeValidator(_whole)]
Name = Annotated[Any, BeforeValidator(_scalar)]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Parameters(BaseModel):
    """The parameters of a point. `None` is the default of the preset; the others have the defaults given here."""

    model_config = _STRICT

    architecture: Annotated[Any, _file("JSON file")] = None
    preset: Name = "shaped_transformer"
    width: Whole = 128
    depth: Whole = 64
    gamma: Number = None
    tau0: Number = None
    c_plus: Number = None
    c_minus: Number = None
    heads: Whole = None
    mask: Any = None
    tokens: Whole = 8
    correlation: Number = 0.2
    text: Annotated[Any, _file("file")] = None
    view: Name = "chain"
    samples: Whole = 1024
    seed: Whole = 0


PARAMETERS = Parameters.model_fields
DESIGN = ("gamma", "tau0", "c_plus", "c_minus", "heads", "mask")
"""Parameters that a point passes on to its preset."""
DEFAULTS = {name: field.default for name, field in PARAMETERS.items() if name not in DESIGN}


def _axis(field: FieldInfo) -> Any:
    """Return the type of an axis: at least one value of a parameter."""
    value: Any = Annotated[Any, *field.metadata] if field.metadata else Any
    return Annotated[list[value], Field(min_length=1)]


_AXES: dict[str, Any] = {name: (_axis(field), ()) for name, field in PARAMETERS.items()}
Grid: Any = create_model("Grid", __config__=_STRICT, **_AXES)
"""A list of values for each parameter that is an axis."""


class Specification(BaseModel):
    """What the YAML file holds: `base` (optional), one of `grid` and `list`, and `keep` (default: all of `KEPT`)."""

    model_config = _STRICT

    base: Parameters = Field(default_factory=Parameters)
    grid: Grid = Field(default_factory=Grid)
    list: tuple[Parameters, ...] = ()
    keep: tuple[Any, ...] = KEPT


@dataclass(frozen=True, eq=False)
class Point:
    """One design, checked: what its draws need, wherever they are made."""

    view: str
    architecture: Architecture
    v0: Floats
    samples: int
    seed: int


@dataclass(frozen=True)
class Sweep:
    """What is to be drawn.

    **Arguments:** `base`: what all points share; `axes`: name and values of each axis of the grid, or `points`: the
    points of a list, without axes; `keep`: names of observables; `folder`: where the texts that are named lie.
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
        return ", ".join(f"{name}={as_written(value)}" for name, value in self.chosen(index).items())

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
        v0 = sampling.check_covariance(arch, v0)
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


def as_written(value: Any) -> Any:
    """Return the value of a parameter as it was written: files by their names."""
    return value["file"] if isinstance(value, dict) else value


@dataclass(frozen=True)
class _Source:
    """Where the files of a specification are, and whether functions that they name may be imported."""

    folder: Path
    trust: bool

    def resolved(self, name: str, value: Any) -> Any:
        """Return a value in its full form: files by name and content."""
        if value is None or name not in ("architecture", "text"):
            return value
        file = self.folder / value
        if name == "architecture":
            return {"file": value, "definition": Architecture.read(file, trust=self.trust).to_dict()}
        try:
            return {"file": value, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror or error}") from None


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
    """Check a specification: `base` (optional), one of `grid` and `list`, and `keep` (default: all of `KEPT`).

    **Arguments:**

    - `spec`: its values, as the YAML file holds them.
    - `folder`: where architectures and texts are. They are read now, so that the store records what was drawn, and a
      changed file is noticed.
    - `trust`: as in `read`.

    **Raises:** `InputError` naming the key that is wrong, what was expected and what came.
    """
    checked = _validated(spec)
    base, grid = _given(checked.base, spec.get("base")), _given(checked.grid, spec.get("grid"))
    points = [_given(point, raw) for point, raw in zip(checked.list, spec.get("list") or (), strict=True)]
    if bool(grid) == bool(points):
        raise InputError("give either grid (values of each parameter) or list (points), with at least one entry")
    if both := [name for name in grid if name in base]:
        raise InputError(f"{both[0]} stands in both base and grid: leave one out")
    _check_whole_definitions(base, grid, points)
    source = _Source(folder, trust)
    base, *points = ({name: source.resolved(name, v) for name, v in part.items()} for part in (base, *points))
    axes = {name: tuple(source.resolved(name, value) for value in values) for name, values in grid.items()}
    for name, axis in axes.items():
        if (at := _repeated(axis)) is not None:
            raise InputError(f"grid.{name} has {as_written(axis[at])!r} twice: leave one out")
    if (at := _repeated(points)) is not None:
        raise InputError(f"list[{at}] stands twice: leave one out")
    return Sweep(base, axes, tuple(points), tuple(dict.fromkeys(checked.keep)), folder)


def _validated(spec: Any) -> Specification:
    """Return a specification in its form.

    **Raises:** `InputError` with the first thing that is wrong.
    """
    if not isinstance(spec, dict):
        raise InputError(
            f"the specification must be a mapping with keys from {', '.join(Specification.model_fields)} "
            f"(got {type(spec).__name__})"
        )
    given = {key: value for key, value in spec.items() if value is not None or key not in Specification.model_fields}
    try:
        made = Specification(**given)
    except ValidationError as error:
        raise InputError(_message(error.errors()[0])) from None
    if not made.keep or any(name not in KEPT for name in made.keep):
        raise InputError(f"keep must be a list from {', '.join(KEPT)} (got {spec['keep']!r})")
    return made


def _message(problem: Any) -> str:
    """Say in one line what pydantic found wrong with a specification."""
    *outer, key = problem["loc"]
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    kind, got = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = PARAMETERS if outer else Specification.model_fields
        place = at.rpartition(".")[0] or "the specification"
        return f"{place} has an unknown key {key!r}: choose from {', '.join(known)}"
    if kind == "value_error":
        return f"{at.partition('[')[0] if at.startswith('grid') else at} {problem_message(problem)}"
    if problem["loc"] == ("keep",):
        return f"keep must be a list from {', '.join(KEPT)} (got {got!r})"
    if problem["loc"] == ("list",):
        return f"list must be a sequence of points (got {type(got).__name__})"
    if outer == ["grid"]:
        return f"{at} must be a list of at least one value (got {got!r})"
    return f"{at} must be a mapping with keys from {', '.join(PARAMETERS)} (got {type(got).__name__})"


def _given(part: BaseModel, raw: dict[str, Any] | None) -> dict[str, Any]:
    """Return the checked values of a part of the file in its order, without defaults."""
    return {name: getattr(part, name) for name in raw or ()}


def _repeated(values: Any) -> int | None:
    """Return the place of the first value that stands a second time."""
    return next((i for i, value in enumerate(values) if value in values[:i]), None)


def _check_whole_definitions(base: dict[str, Any], grid: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """Refuse parameters beside an architecture that already contains them."""
    groups = [("base and grid", [*base, *grid]), *((f"list[{i}]", [*base, *p]) for i, p in enumerate(points))]
    for where, given in groups:
        extra = [name for name in ("preset", "width", "depth", *DESIGN) if name in given]
        if "architecture" in given and extra:
            raise InputError(f"{where}: architecture is a whole definition: leave out {', '.join(extra)}")


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


def check_points(sweep: Sweep) -> tuple[dict[Index, Point], dict[Index, str]]:
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
