"""What every definition shares: frozen, checked when built, hashable, JSON round-trip.

A definition is a pydantic dataclass made by the decorator `definition` from a subclass of `Definition`. In JSON it is
an object with its class name under `kind` and its fields beside it.
"""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform, get_args

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from ..errors import DefinitionError
from .functions import BY_NAME, from_file, name_of


def _number(value: Any) -> Any:
    """Refuse what only looks like a number: text, and the truth values that Python counts as integers."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"a number is expected (got {value!r})")
    return value.item() if isinstance(value, np.generic) else value


Number = Annotated[float, BeforeValidator(_number)]
PositiveInt = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_number)]  # what float64 counts one by one
Count = Annotated[int, Field(ge=0), BeforeValidator(_number)]
PositiveFloat = Annotated[float, Field(gt=0), BeforeValidator(_number)]

Made = TypeVar("Made", bound=type)


class Definition:
    """Base of all definitions: conversion to and from plain dictionaries."""

    kinds: ClassVar[dict[str, type]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as a dictionary of JSON values.

        **Returns:** `{"kind": class name, field: value, …}`, nested for nested definitions.

        **Raises:** `DefinitionError` for a function that cannot be found again by its name (a lambda, a local one), or
        a subclass that was not made a definition.
        """
        kind = type(self).__name__
        if not _same(Definition.kinds.get(kind), type(self)):
            raise DefinitionError(
                f"the class {kind} of {type(self).__module__} is no kind of definition, and would be read as another: "
                "decorate it with @definition, under a name of its own"
            )
        fields = dataclasses.fields(cast(Any, self))
        return {"kind": kind} | {f.name: _encode(getattr(self, f.name)) for f in fields}

    @classmethod
    def from_dict(cls, data: Any, *, trust: bool = False) -> Self:
        """Build a definition from what `to_dict` returned.

        **Arguments:** `data`: the dictionary; `trust`: whether a function `"module:name"` may be of any module, which
        is then imported. By default only functions of NumPy and of `scipy.special` are taken, and nothing is run.

        **Returns:** the definition, equal to the one that was written.

        **Raises:** `DefinitionError` for an unknown kind or field, a function that needs trust, or a value that the
        definition refuses.
        """
        try:
            made = _decode(data, trust=trust)
        except RecursionError:
            raise DefinitionError("the definition is nested too deeply: no network is") from None
        if not isinstance(made, cls):
            raise DefinitionError(f"{cls.__name__} is expected (got {type(made).__name__}): {_short(data)}")
        return made


@dataclass_transform(frozen_default=True)
def definition(cls: Made) -> Made:
    """Make `cls` a frozen, validated dataclass whose errors are one line in the library's family.

    **Raises:** `DefinitionError` if another class has this name, by which definitions are saved; to run the same
    definition again, as in a notebook, is fine.
    """
    old = Definition.kinds.get(cls.__name__)
    if old is not None and not _same(old, cls):
        raise DefinitionError(
            f"there is a definition {cls.__name__} already, in {old.__module__}, and definitions are saved by their "
            "names: choose another name"
        )
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    made = cast(Any, dataclass(frozen=True, config=config)(cls))
    build = made.__init__

    @functools.wraps(build)
    def checked(self: Any, /, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, *args, **kwargs)
        except ValidationError as error:
            raise DefinitionError(_one_line(made, error)) from None

    made.__init__ = checked
    Definition.kinds[cls.__name__] = made
    return cast(Made, made)


def _same(one: Any, other: type) -> bool:
    """Whether two classes are one definition, perhaps run twice."""
    return one is not None and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _one_line(cls: Any, error: ValidationError) -> str:
    names = [field.name for field in dataclasses.fields(cls)]
    parts = []
    for problem in error.errors():
        place = problem["loc"][0] if problem["loc"] else "definition"
        where = names[place] if isinstance(place, int) and place < len(names) else place
        parts.append(describe(problem, str(where)) if problem["loc"] else reason(problem))
    return f"{cls.__name__}: " + "; ".join(dict.fromkeys(parts))


def reason(problem: Any) -> str:
    """Return the message of a validator of ours, without what pydantic puts before it."""
    return str(problem["msg"]).removeprefix("Value error, ")


def describe(problem: Any, where: str) -> str:
    """Say in one line what pydantic found wrong with the field `where`."""
    message = reason(problem)
    if problem["type"].startswith("missing"):
        return f"{where} is missing: give it"
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {message[0].lower()}{message[1:]} (got {_short(problem['input'])})"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "…"


def _encode(value: Any) -> Any:
    if isinstance(value, Definition):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if callable(value):
        return name_of(value)
    return value


def _decode(value: Any, *, trust: bool, names: bool = False) -> Any:
    """Build what `_encode` wrote down; `names`: whether texts are names of functions here."""
    if isinstance(value, list | tuple):
        return tuple(_decode(item, trust=trust, names=names) for item in value)
    if names and isinstance(value, str):
        return from_file(value, trust=trust)
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in Definition.kinds:
        raise DefinitionError(f"'kind' must be one of {', '.join(sorted(Definition.kinds))} (got {_short(kind)})")
    made = cast(Any, Definition.kinds[kind])
    fields = made.__pydantic_fields__
    given = {name: item for name, item in value.items() if name != "kind"}
    if unknown := [name for name in given if name not in fields]:
        raise DefinitionError(f"{kind} has no field {_short(unknown[0])}: choose from {', '.join(fields)}")
    return made(
        **{
            name: _decode(item, trust=trust, names=_holds_function(fields[name].annotation, fields[name].metadata))
            for name, item in given.items()
        }
    )


def _holds_function(annotation: Any, metadata: Any) -> bool:
    """Whether a field, or a part of it as in `NamedFunction | None`, is marked as a function's."""
    parts = get_args(annotation)
    return BY_NAME in metadata or any(_holds_function(part, getattr(part, "__metadata__", ())) for part in parts)
