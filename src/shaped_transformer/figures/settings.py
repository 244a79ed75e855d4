"""What the settings of figures may be, where a number alone would say too little."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from ..design.definition import Number, PositiveFloat, PositiveInt

Values = TypeVar("Values", bound=Sequence[Any])


def _different(values: Values) -> Values:
    if len(set(values)) < len(values):
        raise ValueError(f"different values are expected (got {list(values)})")
    return values


Axis = Annotated[Values, Field(min_length=1), AfterValidator(_different)]
"""The values of an axis: at least one, none twice."""
PositiveInts = Axis[Sequence[PositiveInt]]
PositiveFloats = Axis[Sequence[PositiveFloat]]
AtLeastTwo = Annotated[PositiveInt, Field(ge=2)]
"""Tokens that have a correlation, records that have a difference."""
Samples = Annotated[PositiveInt, Field(ge=10)]
"""So many that an interval can be told."""
Correlation = Annotated[Number, Field(gt=-1, lt=1)]
"""Of tokens that differ: what is alike stays alike, and there is nothing to see."""
