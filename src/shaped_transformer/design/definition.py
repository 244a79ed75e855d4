"""The base of all definitions: frozen, checked when built, hashable, and convertible to JSON and back.

A definition is a pydantic dataclass, made by the decorator `definition` from a subclass of `Definition`. In JSON it is
an object with the class name under `kind` and the fields beside it.
"""

import dataclasses
import functools
import inspect
import operator
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from ..errors import DefinitionError
from .functions import FUNCTION_MARKER, function_name, load_function


def _number(value: Any) -> Any:
    """Return a number of Python or NumPy; refuse text, and truth values, which Python counts as integers."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"a number is expected (got {value!r})")
    return value.item() if isinstance(value, np.generic) else value


if TYPE_CHECKING:  # editors and type checkers show plain types
    Number = float
    PositiveInt = int
    Count = int
    PositiveFloat = float
else:
    Number = Annotated[float, BeforeValidator(_number)]
    PositiveInt = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_number)]  # beyond, float64 skips whole numbers
    Count = Annotated[int, Field(ge=0), BeforeValidator(_number)]
    PositiveFloat = Annotated[float, Field(gt=0), BeforeValidator(_number)]

DefinitionClass = TypeVar("DefinitionClass", bound=type)


class Definition:
    """Base class of all definitions: conversion to and from dictionaries of JSON values.

    ```python
    relu = st.Activation("relu")
    relu.to_dict()  # {"kind": "Activation", "name": "relu"}
    ```
    """

    kinds: ClassVar[dict[str, type]] = {}
    """Every definition by its class name."""

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as a dictionary of JSON values.

        ```python
        import json

        arch = st.deep_linear(width=8, depth=2)
        json.dumps(arch.to_dict())  # {"kind": "Architecture", "width": 8, "depth": 2, "block": […]}
        ```

        **Returns:** `{"kind": class name, field: value, …}`, nested for nested definitions.

        **Raises:** `DefinitionError` for a function that cannot be imported by its name (a lambda, a local function),
        or a subclass without the decorator `definition`.
        """
        kind = type(self).__name__
        if not _same_class(Definition.kinds.get(kind), type(self)):
            raise DefinitionError(
                f"the class {kind} of {type(self).__module__} is not registered as a definition, so it could not be "
                "read back: decorate it with @definition, under a name that no other definition has"
            )
        fields = dataclasses.fields(cast(Any, self))
        return {"kind": kind} | {f.name: _encode(getattr(self, f.name)) for f in fields}

    @classmethod
    def from_dict(cls, data: Any, *, trust: bool = False) -> Self:
        """Return the definition that `to_dict` converted to a dictionary.

        ```python
        arch = st.deep_linear(width=8, depth=2)
        st.Architecture.from_dict(arch.to_dict()) == arch  # True
        ```

        **Arguments:**

        - `data`: the dictionary.
        - `trust`: whether a function `"module:name"` may come from any module, which is then imported. By default only
          functions of NumPy and `scipy.special` are accepted, and no other code runs.

        **Returns:** the definition, equal to the one that was converted.

        **Raises:** `DefinitionError` for an unknown kind or field, a function that needs trust, or a value that the
        definition refuses.
        """
        try:
            built = _decode(data, trust=trust)
        except RecursionError:
            raise DefinitionError("the definition is nested too deeply to be that of a network") from None
        if not isinstance(built, cls):
            raise DefinitionError(f"{cls.__name__} is expected (got {type(built).__name__}): {_shortened(data)}")
        return built


@dataclass_transform(frozen_default=True)
def definition(cls: DefinitionClass) -> DefinitionClass:
    """Make `cls` a frozen, validated dataclass, whose mistakes raise a `DefinitionError` of one line.

    **Raises:** `DefinitionError` if another class has this name, because definitions are saved by their names. To
    define the same class again, as in a notebook, is allowed.
    """
    old = Definition.kinds.get(cls.__name__)
    if old is not None and not _same_class(old, cls):
        raise DefinitionError(
            f"the name {cls.__name__} is taken by a definition in {old.__module__}, and definitions are saved by their "
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
    signature = _plain_signature(made)
    made.__signature__, cast(Any, checked).__signature__ = signature, _of_method(signature)
    Definition.kinds[cls.__name__] = made
    return cast(DefinitionClass, made)


def _plain_signature(made: Any) -> inspect.Signature:
    """Return the signature of a definition's class, with types as a user gives the values."""
    signature = inspect.signature(made)
    plain = [p.replace(annotation=_plain_type(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=plain)


def _of_method(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with a leading `self`."""
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    return signature.replace(parameters=[itself, *signature.parameters.values()])


def _plain_type(annotation: Any) -> Any:
    """Return a type without the validators that it, or a part of it, is annotated with."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_type(parts[0])
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, map(_plain_type, parts))
    return tuple[tuple(map(_plain_type, parts))] if origin is tuple else annotation  # type: ignore[misc]


def _same_class(one: Any, other: type) -> bool:
    """Whether two classes come from the same class statement, which may have run twice."""
    return one is not None and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _one_line(cls: Any, error: ValidationError) -> str:
    """Return all mistakes that pydantic found, in one line."""
    names = [field.name for field in dataclasses.fields(cls)]
    parts = []
    for problem in error.errors():
        place = problem["loc"][0] if problem["loc"] else "definition"
        field = names[place] if isinstance(place, int) and place < len(names) else place
        parts.append(describe_problem(problem, str(field)) if problem["loc"] else problem_message(problem))
    return f"{cls.__name__}: " + "; ".join(dict.fromkeys(parts))


def problem_message(problem: Any) -> str:
    """Return the message of one of our validators, without pydantic's prefix."""
    return str(problem["msg"]).removeprefix("Value error, ")


EXPECTED = {
    "AnyActivation": "an activation is expected, such as st.Activation('gelu')",
    "Branch": "a branch is expected, such as st.ShapedAttention()",
    "Layer": "a layer is expected, such as st.Residual(st.ShapedAttention(), scale=0.5)",
}
"""What is expected where a definition contains another one, by the base class of these."""


def describe_problem(problem: Any, field: str) -> str:
    """Return one line that says what pydantic found wrong with a field."""
    message = problem_message(problem)
    if problem["type"].startswith("missing"):
        return f"{field} is missing: give it"
    if problem["type"] == "value_error":
        return f"{field}: {message}"
    if problem["type"] == "is_instance_of" and (expected := EXPECTED.get(problem["ctx"]["class"])):
        return f"{field}: {expected} (got {_shortened(problem['input'])})"
    return f"{field}: {message[0].lower()}{message[1:]} (got {_shortened(problem['input'])})"


def _shortened(value: Any) -> str:
    """Return the value's representation on one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "…"


def _encode(value: Any) -> Any:
    """Return a field's value as JSON values."""
    if isinstance(value, Definition):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if callable(value):
        return function_name(value)
    return value


def _decode(value: Any, *, trust: bool, names: bool = False) -> Any:
    """Return the value that `_encode` converted; `names`: whether texts are names of functions."""
    if isinstance(value, list | tuple):
        return tuple(_decode(item, trust=trust, names=names) for item in value)
    if names and isinstance(value, str):
        return load_function(value, trust=trust)
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in Definition.kinds:
        raise DefinitionError(f"'kind' must be one of {', '.join(sorted(Definition.kinds))} (got {_shortened(kind)})")
    cls = cast(Any, Definition.kinds[kind])
    fields = cls.__pydantic_fields__
    given = {name: item for name, item in value.items() if name != "kind"}
    if unknown := [name for name in given if name not in fields]:
        raise DefinitionError(f"{kind} has no field {_shortened(unknown[0])}: choose from {', '.join(fields)}")
    return cls(
        **{
            name: _decode(item, trust=trust, names=_holds_function(fields[name].annotation, fields[name].metadata))
            for name, item in given.items()
        }
    )


def _holds_function(annotation: Any, metadata: Any) -> bool:
    """Whether the type of a field, or a part of it as in `NamedFunction | None`, is marked as a function."""
    parts = get_args(annotation)
    of_part = (_holds_function(part, getattr(part, "__metadata__", ())) for part in parts)
    return FUNCTION_MARKER in metadata or any(of_part)
