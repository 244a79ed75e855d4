"""The verbs by which layers speak to arrays: batched small-matrix kernels.

A batch of matrices has the shape (samples, rows, columns). Layers use these verbs and elementwise arithmetic only, so
that the layout and the kernels can change under them. This is the plain NumPy path, through BLAS and LAPACK.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def product(a: Array, b: Array) -> Array:
    """Return a·b."""
    return a @ b


def product_t(a: Array, b: Array) -> Array:
    """Return a·bᵀ."""
    return a @ b.swapaxes(-1, -2)


def plus_transpose(a: Array) -> Array:
    """Return a + aᵀ."""
    return a + a.swapaxes(-1, -2)


def gram(a: Array) -> Array:
    """Return a·aᵀ."""
    return product_t(a, a)


def diagonal(a: Array) -> Array:
    """Return the diagonal, (…, rows)."""
    return np.diagonal(a, axis1=-2, axis2=-1)


def columns(a: Array) -> int:
    """Return the number of columns."""
    return int(a.shape[-1])


def rows(a: Array, start: int = 0, stop: int | None = None) -> Array:
    """Return the rows from `start` up to, not including, `stop`."""
    return a[..., start:stop, :]


def beside(*blocks: Array) -> Array:
    """Put blocks of equal height side by side."""
    return np.concatenate(blocks, axis=-1)


def above(*blocks: Array) -> Array:
    """Put blocks on top of each other; narrower ones are padded with zero columns on the right."""
    width = max(columns(block) for block in blocks)
    return np.concatenate([pad(block, width) for block in blocks], axis=-2)


def pad(a: Array, width: int) -> Array:
    """Add zero columns on the right up to `width`."""
    if columns(a) == width:
        return a
    return np.concatenate([a, np.zeros((*a.shape[:-1], width - columns(a)), a.dtype)], axis=-1)


def row_products(a: Array, b: Array) -> Array:
    """Return the inner product of each row of a with the same row of b (or with its only row), (…, rows)."""
    return np.sum(a * b, axis=-1)


def scale_rows(scales: Array, a: Array) -> Array:
    """Return diag(scales)·a."""
    return scales[..., :, None] * a


def unit_rows(a: Array, length: float = 1.0) -> Array:
    """Scale each row to the given Euclidean length; a row of zeros stays zero."""
    largest = np.max(np.abs(a), axis=-1)  # first, so that no square under- or overflows
    a = scale_rows(np.divide(1, largest, out=np.zeros_like(largest), where=largest > 0), a)
    norm = np.sqrt(row_products(a, a))
    return scale_rows(np.divide(length, norm, out=np.zeros_like(norm), where=norm > 0), a)


def lq(a: Array) -> Array:
    """Return L of the LQ decomposition: L·Lᵀ = a·aᵀ, with min(rows, columns) columns, zero above the diagonal.

    By Householder reflections on the factor itself, so that small eigenvalues of a·aᵀ keep their digits down to the
    square of the machine precision relative to the largest (theory §3, step 4).
    """
    return np.asarray(np.linalg.qr(a.swapaxes(-1, -2), mode="r")).swapaxes(-1, -2)


def shorten(a: Array) -> Array:
    """Return a factor of the same Gram matrix with at most as many columns as rows."""
    return lq(a) if columns(a) > a.shape[-2] else a


def masked_softmax(logits: Array, allowed: NDArray[np.bool_]) -> Array:
    """Return the softmax over each row's allowed columns; the others are 0."""
    if not allowed.all():
        logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return weights / np.sum(weights, axis=-1, keepdims=True)


def centre(y: Array, weights: Array) -> Array:
    """Return weights ∘ (y − row mean of y under the weights), whose rows sum to 0."""
    return weights * (y - np.sum(weights * y, axis=-1, keepdims=True))


def semidefinite_factor(v: Array) -> Array:
    """Return a lower-triangular L with L·Lᵀ = v for positive semi-definite v, singular ones included.

    Cholesky; where that fails, the same elimination with pivots below rounding error set to zero.
    """
    try:
        return np.linalg.cholesky(v)
    except np.linalg.LinAlgError:
        return _clamped_cholesky(v)


def _clamped_cholesky(v: Array) -> Array:
    size = v.shape[-1]
    rounding = 4 * size * np.finfo(v.dtype).eps * diagonal(v)
    factor = np.zeros_like(v)
    for j in range(size):
        rest = v[..., j:, j] - np.sum(factor[..., j:, :j] * factor[..., j : j + 1, :j], axis=-1)
        pivot = np.where(rest[..., :1] > rounding[..., j : j + 1], rest[..., :1], np.inf)
        factor[..., j:, j] = rest / np.sqrt(pivot)
    return factor


def squared_singular_values(a: Array) -> Array:
    """Return the eigenvalues of a·aᵀ from the factor itself, (…, rows), largest first; missing ones are 0."""
    values = np.linalg.svd(a, compute_uv=False) ** 2
    return pad(values, a.shape[-2])
