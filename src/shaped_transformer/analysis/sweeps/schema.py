"""The form of a sweep's specification: which keys it may have, and what their values may be."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from ...design.definition import problem_message
from ...errors import InputError

KEPT = (
    "mean_absolute_correlation",
    "effective_rank",
    "mean_token_norm",
    "largest_eigenvalue",
    "smallest_eigenvalue",
    "stopping_time",
)
"""Observables that a sweep may store for each point, at the last layer or where a path left the window."""


def _check_scalar(value: Any) -> Any:
    """Refuse lists, mappings and truth values."""
    if isinstance(value, dict | list):
        raise ValueError(f"must be one value (got {type(value).__name__}); lists of values belong in grid")
    if isinstance(value, bool):
        raise ValueError(f"must be a number or a name (got {value})")
    return value


def _check_number(value: Any) -> Any:
    """Refuse what is not a number."""
    if not isinstance(_check_scalar(value), int | float):
        raise ValueError(f"must be a number (got {value!r})")
    return value


def _check_whole_number(value: Any) -> Any:
    """Refuse what is not a number; return 1e3, which YAML reads as a float, as a whole number."""
    return int(value) if isinstance(_check_number(value), float) and value.is_integer() else value


def _file(kind: str) -> Any:
    """Return a check that a value is a file's name."""

    def check(value: Any) -> Any:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"must name a {kind} (got {value!r})")
        return value

    return BeforeValidator(check)


Number = Annotated[Any, BeforeValidator(_check_number)]
Whole = Annotated[Any, BeforeValidator(_check_whole_number)]
Name = Annotated[Any, BeforeValidator(_check_scalar)]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Parameters(BaseModel):
    """The parameters of a point. `None` means the default of the preset; the others have the defaults given here."""

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
    """Return the type of an axis: a list of at least one value of a parameter."""
    value: Any = Annotated[Any, *field.metadata] if field.metadata else Any
    return Annotated[list[value], Field(min_length=1)]


_AXES: dict[str, Any] = {name: (_axis(field), ()) for name, field in PARAMETERS.items()}
Grid: Any = create_model("Grid", __config__=_STRICT, **_AXES)
"""A list of values for each parameter that is an axis."""


class Specification(BaseModel):
    """The keys of the YAML file: `base` (optional), one of `grid` and `list`, and `keep` (default: all of `KEPT`)."""

    model_config = _STRICT

    base: Parameters = Field(default_factory=Parameters)
    grid: Grid = Field(default_factory=Grid)
    list: tuple[Parameters, ...] = ()
    keep: tuple[Any, ...] = KEPT


@dataclass(frozen=True)
class Given:
    """The values that a specification gives, in the order of the file and without defaults.

    **Attributes:** `base`, `grid`, `keep`: as in the file; `points`: its `list`.
    """

    base: dict[str, Any]
    grid: dict[str, list[Any]]
    points: list[dict[str, Any]]
    keep: tuple[str, ...]


def check(spec: Any) -> Given:
    """Check the form of a specification.

    **Arguments:**

    - `spec`: the values of the YAML file.

    **Returns:** the values that it gives.

    **Raises:** `InputError` with the first problem.
    """
    if not isinstance(spec, dict):
        raise InputError(
            f"the specification must be a mapping with keys from {', '.join(Specification.model_fields)} "
            f"(got {type(spec).__name__})"
        )
    values = {key: value for key, value in spec.items() if value is not None or key not in Specification.model_fields}
    try:
        checked = Specification(**values)
    except ValidationError as error:
        raise InputError(_message(error.errors()[0])) from None
    if not checked.keep or any(name not in KEPT for name in checked.keep):
        raise InputError(f"keep must be a list of names from {', '.join(KEPT)} (got {spec['keep']!r})")
    return Given(
        _given_values(checked.base, spec.get("base")),
        _given_values(checked.grid, spec.get("grid")),
        [_given_values(point, raw) for point, raw in zip(checked.list, spec.get("list") or (), strict=True)],
        tuple(dict.fromkeys(checked.keep)),
    )


def _given_values(checked: BaseModel, raw: dict[str, Any] | None) -> dict[str, Any]:
    """Return the checked values of the keys that the file gives."""
    return {name: getattr(checked, name) for name in raw or ()}


def _message(problem: Any) -> str:
    """Return one line for a problem that pydantic found."""
    *outer, key = problem["loc"]
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    kind, got = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = PARAMETERS if outer else Specification.model_fields
        parent = at.rpartition(".")[0] or "the specification"
        return f"{parent} has an unknown key {key!r}: choose from {', '.join(known)}"
    if kind == "value_error":
        return f"{at.partition('[')[0] if at.startswith('grid') else at} {problem_message(problem)}"
    if problem["loc"] == ("keep",):
        return f"keep must be a list of names from {', '.join(KEPT)} (got {got!r})"
    if problem["loc"] == ("list",):
        return f"list must be a sequence of points (got {type(got).__name__})"
    if outer == ["grid"]:
        return f"{at} must be a list of at least one value (got {got!r})"
    return f"{at} must be a mapping with keys from {', '.join(PARAMETERS)} (got {type(got).__name__})"
