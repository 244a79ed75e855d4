"""Types of the settings of figures, with the values that they may have."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from ..design.definition import Number, PositiveFloat, PositiveInt

Values = TypeVar("Values", bound=Sequence[Any])


def _check_different(values: Values) -> Values:
    """Refuse values of which two are equal."""
    if len(set(values)) < len(values):
        raise ValueError(f"different values are expected (got {list(values)})")
    return values


Axis = Annotated[Values, Field(min_length=1), AfterValidator(_check_different)]
"""The values of an axis: at least one, all different."""
PositiveInts = Axis[Sequence[PositiveInt]]
PositiveFloats = Axis[Sequence[PositiveFloat]]
AtLeastTwo = Annotated[PositiveInt, Field(ge=2)]
"""A number of tokens that have a correlation, or of records that have a difference."""
Samples = Annotated[PositiveInt, Field(ge=10)]
"""A number of samples from which an interval can be estimated."""
Correlation = Annotated[Number, Field(gt=-1, lt=1)]
"""A correlation of tokens that differ: equal tokens stay equal, and nothing would be seen."""
