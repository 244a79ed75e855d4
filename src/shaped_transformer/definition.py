"""What every definition shares: frozen, checked when built, hashable, JSON round-trip.

A definition is a pydantic dataclass made by the decorator `definition` from a subclass of `Definition`. In JSON it is
an object with its class name under `kind` and its fields beside it.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from .errors import DefinitionError


def _number(value: Any) -> Any:
    """Refuse what only looks like a number: text, and the truth values that Python counts as integers."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"a number is expected (got {value!r})")
    return value.item() if isinstance(value, np.generic) else value


Number = Annotated[float, BeforeValidator(_number)]
PositiveInt = Annotated[int, Field(ge=1), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_number)]
PositiveFloat = Annotated[float, Field(gt=0), BeforeValidator(_number)]

Made = TypeVar("Made", bound=type)


class Definition:
    """Base of all definitions: conversion to and from plain dictionaries."""

    kinds: ClassVar[dict[str, type]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as a dictionary of JSON values.

        **Returns:** `{"kind": class name, field: value, …}`, nested for nested definitions.

        **Raises:** `DefinitionError` for a function that cannot be found again by its name (a lambda, a local one).
        """
        fields = dataclasses.fields(cast(Any, self))
        return {"kind": type(self).__name__} | {f.name: _encode(getattr(self, f.name)) for f in fields}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build a definition from what `to_dict` returned.

        **Arguments:** `data`: the dictionary. A function named `"module:name"` is imported from its module, so read
        only files that you would also run.

        **Returns:** the definition, equal to the one that was written.

        **Raises:** `DefinitionError` for an unknown kind or field, or a value that the definition refuses.
        """
        made = _decode(data)
        if not isinstance(made, cls):
            raise DefinitionError(f"{cls.__name__} is expected (got {type(made).__name__}): {_short(data)}")
        return made


@dataclass_transform(frozen_default=True)
def definition(cls: Made) -> Made:
    """Make `cls` a frozen, validated dataclass whose errors are one line in the library's family."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    made = cast(Any, dataclass(frozen=True, config=config)(cls))
    build = made.__init__

    @functools.wraps(build)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, *args, **kwargs)
        except ValidationError as error:
            raise DefinitionError(_one_line(made, error)) from None

    made.__init__ = checked
    Definition.kinds[cls.__name__] = made
    return cast(Made, made)


def _one_line(cls: Any, error: ValidationError) -> str:
    names = [field.name for field in dataclasses.fields(cls)]
    parts = []
    for problem in error.errors():
        place = problem["loc"][0] if problem["loc"] else "definition"
        where = names[place] if isinstance(place, int) and place < len(names) else place
        parts.append(describe(problem, str(where)) if problem["loc"] else str(problem["msg"]).removeprefix(PREFIX))
    return f"{cls.__name__}: " + "; ".join(dict.fromkeys(parts))


PREFIX = "Value error, "


def describe(problem: Any, where: str) -> str:
    """Say in one line what pydantic found wrong with the field `where`."""
    message = str(problem["msg"]).removeprefix(PREFIX)
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
        return _name_of(value)
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in Definition.kinds:
        known = ", ".join(sorted(Definition.kinds))
        raise DefinitionError(f"'kind' must be one of {known} (got {_short(kind)})")
    return Definition.kinds[kind](**{name: _decode(item) for name, item in fields.items()})


def _name_of(function: Callable[..., Any]) -> str:
    own = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None)
    for home in (module,) if module else ("numpy", "scipy.special"):  # a ufunc does not say where it lives
        try:
            if function_named(f"{home}:{own}") is function:
                return f"{home}:{own}"
        except DefinitionError:
            continue
    raise DefinitionError(
        f"the function {_short(function)} cannot be saved: define it at the top level of a module, so that it can be "
        "found again by name"
    )


def function_named(name: str) -> Callable[..., Any]:
    """Return the function called `"module:name"`.

    **Raises:** `DefinitionError` if there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError):
        raise DefinitionError(f"no function {name!r}: expected 'module:name' of an importable function") from None
    if not callable(found):
        raise DefinitionError(f"{name!r} is not a function")
    return cast(Callable[..., Any], found)
