"""Attention masks: which token may attend to which, by name or as a matrix."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

from ..errors import InputError, counted

NAMES = ("full", "causal")
"""The masks that have a name."""


def _checked_mask(mask: Any) -> Any:
    """Return a mask by its name, or a square array of 0 and 1 as nested tuples, which are hashable and plain JSON."""
    if isinstance(mask, str):
        if mask not in NAMES:
            raise ValueError(f"mask must be 'full', 'causal' or a square array of 0 and 1 (got {mask!r})")
        return mask
    try:
        array = np.asarray(mask)
    except ValueError:
        array = np.empty(0)
    square = array.ndim == 2 and array.shape[0] == array.shape[1]
    if not square or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise ValueError("mask must be 'full', 'causal' or a square array of 0 and 1, with a row for each query")
    blind = np.flatnonzero(~array.astype(bool).any(axis=1))
    if blind.size:
        raise ValueError(
            f"row {blind[0]} of the mask allows no token: let each token attend to at least one, such as itself"
        )
    return tuple(tuple(bool(x) for x in row) for row in array)


MaskLike = str | NDArray[Any] | Sequence[Sequence[float]]
"""`"full"`, `"causal"`, or an (m, m) array of 0 and 1 whose row α marks the tokens to which token α may attend."""

_SCHEMA = {
    "anyOf": [
        {"enum": list(NAMES)},
        {"type": "array", "items": {"type": "array", "items": {"enum": [0, 1]}}},
    ]
}
if TYPE_CHECKING:  # editors and type checkers show what a user may give
    Mask = MaskLike
else:
    Mask = Annotated[MaskLike, PlainValidator(_checked_mask), WithJsonSchema(_SCHEMA)]


def allowed(mask: MaskLike, tokens: int) -> NDArray[np.bool_]:
    """Return a definition's mask as an (m, m) boolean matrix: whether token α (row) may attend to token β (column).

    **Raises:** `InputError` if the mask is an array for another number of tokens.
    """
    return _allowed(cast(Hashable, mask), tokens)


def uniform(mask: MaskLike, tokens: int) -> NDArray[np.float64]:
    """Return U = softmax(0) under the mask, (m, m): each row is uniform over the tokens it may attend to."""
    return _uniform(cast(Hashable, mask), tokens)


@lru_cache(maxsize=64)
def _allowed(mask: Hashable, tokens: int) -> NDArray[np.bool_]:
    """Return the matrix of `allowed`."""
    if mask == "full":
        matrix = np.ones((tokens, tokens), dtype=bool)
    elif mask == "causal":
        matrix = np.tril(np.ones((tokens, tokens), dtype=bool))
    else:
        matrix = np.array(mask, dtype=bool)
    if len(matrix) != tokens:
        raise InputError(
            f"the mask is for {counted(len(matrix), 'token')}, but the input has {tokens}: give a mask for {tokens}"
        )
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def _uniform(mask: Hashable, tokens: int) -> NDArray[np.float64]:
    """Return the matrix of `uniform`."""
    matrix = _allowed(mask, tokens)
    weights = matrix / matrix.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights
