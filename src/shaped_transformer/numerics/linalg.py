"""Batched linear algebra on small matrices, in two memory layouts.

A batch of matrices has the shape (samples, rows, columns). Its memory layout decides how it is computed:

- *sample first*, NumPy's usual layout: BLAS and LAPACK, matrix by matrix. For large matrices, and as the reference.
- *sample last* (`sample_last`): the samples are contiguous, and the compiled `kernels` work on many at once. For
  matrices of up to `MAX_KERNEL_TOKENS` rows. NumPy's elementwise arithmetic keeps this layout.

Both layouts give the same numbers up to rounding. Layers use only these functions and elementwise arithmetic, so that
the same code serves both.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from . import compilation
from .arrays import Array

MAX_KERNEL_TOKENS = 24
"""Largest number of tokens for which the compiled kernels are faster than BLAS (measured: benchmarks/README.md)."""

SAFE_PIVOT = 1e-4
"""Cholesky's decomposition of a correlation matrix loses at most 4 of 16 digits if its squared pivots exceed this."""

ROUNDING = 1e-28
"""An eigenvalue of L·Lᵀ below this fraction of the largest is rounding error of L in float64."""


def prefers_kernels(tokens: int) -> bool:
    """Return whether the sample-last layout is the faster one for this number of tokens."""
    return tokens <= MAX_KERNEL_TOKENS


def sample_last(a: Array) -> Array:
    """Return the same batch with its samples contiguous in memory."""
    return _from_kernel(_to_kernel(a))


def batch(numbers: Array, samples: int, rows: int, columns: int, last: bool) -> Array:
    """Return a batch made of `numbers`, which keep their order in memory; `last` chooses the sample-last layout."""
    return _from_kernel(numbers.reshape(rows, columns, samples)) if last else numbers.reshape(samples, rows, columns)


def is_sample_last(a: Array) -> bool:
    """Return whether this is a batch in the sample-last layout."""
    return a.ndim == 3 and a.strides[0] == a.itemsize == 8 and len(a) > 1


def _to_kernel(a: Array) -> Array:
    """Return the batch as the kernels take it: (rows, columns, samples), contiguous."""
    array = a.transpose(1, 2, 0)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _from_kernel(array: Array) -> Array:
    """Return a kernel's (rows, columns, samples) as a batch: the inverse of `_to_kernel`."""
    return array.transpose(2, 0, 1)


_kernels = partial(compilation.load, "kernels")


def product(a: Array, b: Array) -> Array:
    """Return a·b; `a` may be one matrix for all samples."""
    if not (is_sample_last(a) or is_sample_last(b)):
        return a @ b
    if a.ndim == 2:
        rest = b.shape[-1], len(b)
        return _from_kernel((a @ _to_kernel(b).reshape(b.shape[-2], -1)).reshape(len(a), *rest))
    out = np.empty((a.shape[-2], b.shape[-1], len(b)))
    _kernels().product(_to_kernel(a), _to_kernel(b), out)
    return _from_kernel(out)


def skip_and_product(skip: float, x: Array, scale: float, a: Array, b: Array) -> Array:
    """Return skip·x + scale·a·b; `x` may have fewer columns than `b`."""
    if is_sample_last(a):
        entries = np.empty((a.shape[-2], b.shape[-1], len(a)))
        _kernels().skip_and_product(skip, _to_kernel(x), scale, _to_kernel(a), _to_kernel(b), entries)
        return _from_kernel(entries)
    out = product(scale * a, b)
    out[..., : column_count(x)] += skip * x
    return out


def product_t(a: Array, b: Array) -> Array:
    """Return a·bᵀ; `b` may be one matrix for all samples."""
    if not (is_sample_last(a) or is_sample_last(b)):
        return a @ b.swapaxes(-1, -2)
    if b.ndim == 2:
        return product(b, a.swapaxes(-1, -2)).swapaxes(-1, -2)
    out = np.empty((a.shape[-2], b.shape[-2], len(a)))
    _kernels().product_t(_to_kernel(a), _to_kernel(b), out)
    return _from_kernel(out)


def plus_transpose(a: Array) -> Array:
    """Return a + aᵀ."""
    return a + a.swapaxes(-1, -2)


def gram(a: Array) -> Array:
    """Return a·aᵀ."""
    if not is_sample_last(a):
        return product_t(a, a)
    out = np.empty((a.shape[-2], a.shape[-2], len(a)))
    _kernels().gram(_to_kernel(a), out)
    return _from_kernel(out)


def squared_norm(a: Array) -> Array:
    """Return the sum of the squared entries of each matrix, (samples,)."""
    if not is_sample_last(a):
        return np.sum(np.square(a, dtype=np.float64), axis=(-1, -2))
    out = np.empty(len(a))
    _kernels().squared_norm(_to_kernel(a), out)
    return out


def inverse_squared_norm(factor: Array) -> Array:
    """Return ‖L⁻¹‖² = tr (L·Lᵀ)⁻¹ of square lower-triangular matrices, (samples,); infinite or NaN where singular."""
    if is_sample_last(factor):
        out = np.empty(len(factor))
        _kernels().inverse_squared_norm(_to_kernel(factor), out)
        return out
    inverse = np.zeros_like(factor)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for i in range(factor.shape[-1]):
            row = -product(factor[..., i : i + 1, :i], inverse[..., :i, :])
            row[..., 0, i] += 1
            inverse[..., i : i + 1, :] = row / factor[..., i : i + 1, i : i + 1]
        return squared_norm(inverse)


def diagonal(a: Array) -> Array:
    """Return the diagonal, (…, rows)."""
    return np.diagonal(a, axis1=-2, axis2=-1)


def column_count(a: Array) -> int:
    """Return the number of columns."""
    return int(a.shape[-1])


def rows(a: Array, start: int = 0, stop: int | None = None) -> Array:
    """Return the rows from `start` up to, not including, `stop`."""
    return a[..., start:stop, :]


def hstack(*parts: Array) -> Array:
    """Join matrices with equal numbers of rows side by side."""
    return np.concatenate(parts, axis=-1)


def vstack(*parts: Array) -> Array:
    """Stack matrices on top of each other; narrower ones are padded with zero columns on the right."""
    width = max(column_count(part) for part in parts)
    return np.concatenate([pad(part, width) for part in parts], axis=-2)


def pad(a: Array, width: int) -> Array:
    """Add zero columns on the right up to `width`."""
    if column_count(a) == width:
        return a
    out = np.zeros_like(a, shape=(*a.shape[:-1], width))
    out[..., : column_count(a)] = a
    return out


def row_products(a: Array, b: Array) -> Array:
    """Return the inner product of each row of `a` with the same row of `b`, or with its only row, (…, rows)."""
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


def factor_of_sum(parts: Iterable[Array]) -> Array:
    """Return the lower-triangular L with non-negative diagonal and L·Lᵀ = Σ a·aᵀ, summed over the parts a.

    The parts have equal numbers of rows; L has min(rows, columns of all parts) columns. It is the LQ decomposition of
    the parts side by side, by Householder reflections on the parts themselves. So small eigenvalues of L·Lᵀ keep their
    digits down to the square of the machine precision relative to the largest (theory §3, step 4).

    In the sample-last layout, if the first part has at least as many columns as rows, each part is consumed before the
    next one is requested: a generator need not hold them all.
    """
    iterator = iter(parts)
    first = next(iterator)
    samples, height, width = first.shape if first.ndim == 3 else (1, *first.shape)
    if not is_sample_last(first) or width < height:
        out = _lq(np.concatenate([first, *iterator], axis=-1))
        return sample_last(out) if is_sample_last(first) else out
    factor = np.zeros((height, height, samples))
    for part in chain([first], iterator):
        _kernels().absorb(factor, np.array(part.transpose(1, 2, 0), order="C"))
    _kernels().make_diagonal_positive(factor)
    return _from_kernel(factor)


def _lq(a: Array) -> Array:
    """Return L of the LQ decomposition in the sample-first layout, by the faster of the two ways that is accurate."""
    wide = MAX_KERNEL_TOKENS < a.shape[-2] <= a.shape[-1] // 2
    return _lq_by_gram(a) if wide and a.ndim == 3 else lq_by_reflections(a)


def lq_by_reflections(a: Array) -> Array:
    """Return L of the LQ decomposition by LAPACK's Householder reflections: accurate for every matrix."""
    factor = np.asarray(np.linalg.qr(a.swapaxes(-1, -2), mode="r")).swapaxes(-1, -2)
    signs = np.copysign(np.ones((), a.dtype), diagonal(factor))
    return factor * signs[..., None, :]


def frame(normals: Array) -> Array:
    """Return a uniformly random matrix with orthonormal rows, made of normals of its transpose's shape."""
    q, r = np.linalg.qr(normals)
    signs = np.where(diagonal(r) < 0, -1, 1).astype(normals.dtype)
    return np.asarray((q * signs[..., None, :]).swapaxes(-1, -2))


def _lq_by_gram(a: Array) -> Array:
    """Return L by a Cholesky decomposition of a·aᵀ, or by reflections where its pivots show that digits were lost.

    For wide matrices this is much faster than reflections.
    """
    squares = gram(a)
    try:
        factor = np.linalg.cholesky(squares)
    except np.linalg.LinAlgError:
        return lq_by_reflections(a)
    unsafe = np.any(diagonal(factor) ** 2 < SAFE_PIVOT * diagonal(squares), axis=-1)
    factor[unsafe] = lq_by_reflections(a[unsafe])
    return factor


def lq(a: Array) -> Array:
    """Return L of the LQ decomposition: `factor_of_sum` of one matrix."""
    return factor_of_sum([a])


def shorten(a: Array) -> Array:
    """Return a factor of the same Gram matrix with at most as many columns as rows."""
    return lq(a) if column_count(a) > a.shape[-2] else a


def masked_softmax(logits: Array, scale: float, allowed: NDArray[np.bool_], plus: Array) -> Array:
    """Return softmax(scale·logits) over the allowed columns of each row, 0 elsewhere, plus the matrix `plus`."""
    if is_sample_last(logits):
        weights = np.empty((*logits.shape[1:], len(logits)))
        _kernels().shifted_logits(_to_kernel(logits), scale, allowed, weights)
        np.exp(weights, out=weights)
        _kernels().normalise_rows(weights, plus)
        return _from_kernel(weights)
    logits = logits.dtype.type(scale) * logits
    if not allowed.all():
        logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    weights /= np.sum(weights, axis=-1, keepdims=True)
    return weights + plus.astype(logits.dtype, copy=False)


def centre(y: Array, weights: Array) -> Array:
    """Return weights ∘ (y − row mean of y under the weights), whose rows sum to 0."""
    return weights * (y - np.sum(weights * y, axis=-1, keepdims=True))


def semidefinite_factor(v: Array) -> Array:
    """Return a lower-triangular L with L·Lᵀ = v for positive semi-definite v, which may be singular.

    Cholesky's elimination; pivots below rounding error count as zero.
    """
    rounding = 4 * v.shape[-1] * np.finfo(v.dtype).eps
    if is_sample_last(v):
        out = np.empty((*v.shape[1:], len(v)))
        _kernels().cholesky(_to_kernel(v), rounding, out)
        return _from_kernel(out)
    try:
        return np.linalg.cholesky(v)
    except np.linalg.LinAlgError:
        return _clamped_cholesky(v, rounding)


def _clamped_cholesky(v: Array, rounding: float) -> Array:
    """Return the Cholesky factor in which pivots below `rounding` times the diagonal entry count as zero."""
    least = rounding * diagonal(v)
    factor = np.zeros_like(v)
    for j in range(v.shape[-1]):
        rest = v[..., j:, j] - np.sum(factor[..., j:, :j] * factor[..., j : j + 1, :j], axis=-1)
        pivot = np.where(rest[..., :1] > least[..., j : j + 1], rest[..., :1], np.inf)
        factor[..., j:, j] = rest / np.sqrt(pivot)
    return factor


def rank(factor: Array) -> int:
    """Return the rank of one factor, (m, k): the number of squared singular values above rounding."""
    values = squared_singular_values(factor)
    return int(np.sum(values > ROUNDING * values[0]))


def squared_singular_values(a: Array) -> Array:
    """Return the eigenvalues of a·aᵀ, computed from `a` itself, (…, rows), largest first; missing ones are 0."""
    values = np.linalg.svd(a, compute_uv=False) ** 2
    return pad(values, a.shape[-2])
