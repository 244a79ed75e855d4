"""The verbs by which layers speak to arrays: batched small-matrix kernels in two layouts.

A batch of matrices has the shape (samples, rows, columns). Its layout in memory decides by which path the work goes:

- *sample first*, the usual one: NumPy, and so BLAS and LAPACK matrix by matrix. For large matrices, and the reference.
- *sample last* (`sample_last`): the samples are contiguous, so that the compiled `kernels` work on many at once. For
  small matrices, `SMALL` tells up to which size. Elementwise arithmetic of NumPy keeps this layout.

Both give the same numbers up to rounding. Layers use these verbs and elementwise arithmetic only, and never notice.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from . import compilation
from .arrays import Array

SMALL = 24
"""Most tokens for which the compiled kernels are the faster path (measured: benchmarks/README.md)."""
SAFE_PIVOT = 1e-4
"""Squared pivots of a correlation matrix above this cost Cholesky's decomposition at most four digits of sixteen."""

ROUNDING = 1e-28
"""Ratio to the largest below which an eigenvalue of L·Lᵀ is rounding of L in float64."""


def is_small(tokens: int) -> bool:
    """Return whether the sample-last layout is the faster one for so many tokens."""
    return tokens <= SMALL


def sample_last(a: Array) -> Array:
    """Return the same batch with its samples contiguous in memory."""
    return _batch(_bare(a))


def batch(numbers: Array, samples: int, rows: int, columns: int, last: bool) -> Array:
    """Return a batch in one of the two layouts whose entries lie in memory in the order of `numbers`."""
    return _batch(numbers.reshape(rows, columns, samples)) if last else numbers.reshape(samples, rows, columns)


def is_sample_last(a: Array) -> bool:
    """Return whether this is a batch with its samples contiguous."""
    return a.ndim == 3 and a.strides[0] == a.itemsize == 8 and len(a) > 1


def _bare(a: Array) -> Array:
    """The batch as the kernels see it: (rows, columns, samples), contiguous."""
    bare = a.transpose(1, 2, 0)
    return bare if bare.flags.c_contiguous else np.ascontiguousarray(bare)


def _batch(bare: Array) -> Array:
    """The converse of `_bare`."""
    return bare.transpose(2, 0, 1)


_kernels = partial(compilation.load, "kernels")


def product(a: Array, b: Array) -> Array:
    """Return a·b; a may be one matrix for all samples."""
    if not (is_sample_last(a) or is_sample_last(b)):
        return a @ b
    if a.ndim == 2:
        rest = b.shape[-1], len(b)
        return _batch((a @ _bare(b).reshape(b.shape[-2], -1)).reshape(len(a), *rest))
    bare = np.empty((a.shape[-2], b.shape[-1], len(b)))
    _kernels().product(_bare(a), _bare(b), bare)
    return _batch(bare)


def skip_and_product(skip: float, x: Array, scale: float, a: Array, b: Array) -> Array:
    """Return skip·x + scale·a·b; x may have fewer columns than b."""
    if is_sample_last(a):
        bare = np.empty((a.shape[-2], b.shape[-1], len(a)))
        _kernels().skip_and_product(skip, _bare(x), scale, _bare(a), _bare(b), bare)
        return _batch(bare)
    out = product(scale * a, b)
    out[..., : columns(x)] += skip * x
    return out


def product_t(a: Array, b: Array) -> Array:
    """Return a·bᵀ; b may be one matrix for all samples."""
    if not (is_sample_last(a) or is_sample_last(b)):
        return a @ b.swapaxes(-1, -2)
    if b.ndim == 2:
        return product(b, a.swapaxes(-1, -2)).swapaxes(-1, -2)
    bare = np.empty((a.shape[-2], b.shape[-2], len(a)))
    _kernels().product_t(_bare(a), _bare(b), bare)
    return _batch(bare)


def plus_transpose(a: Array) -> Array:
    """Return a + aᵀ."""
    return a + a.swapaxes(-1, -2)


def gram(a: Array) -> Array:
    """Return a·aᵀ."""
    if not is_sample_last(a):
        return product_t(a, a)
    bare = np.empty((a.shape[-2], a.shape[-2], len(a)))
    _kernels().gram(_bare(a), bare)
    return _batch(bare)


def squared_norm(a: Array) -> Array:
    """Return the sum of all squares of each matrix, (samples,)."""
    if not is_sample_last(a):
        return np.sum(np.square(a, dtype=np.float64), axis=(-1, -2))
    out = np.empty(len(a))
    _kernels().squared_norm(_bare(a), out)
    return out


def inverse_squared_norm(factor: Array) -> Array:
    """Return ‖L⁻¹‖² = tr (L·Lᵀ)⁻¹ of square lower-triangular matrices, (samples,); infinite or NaN where singular."""
    if is_sample_last(factor):
        out = np.empty(len(factor))
        _kernels().inverse_squared_norm(_bare(factor), out)
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
    out = np.zeros_like(a, shape=(*a.shape[:-1], width))
    out[..., : columns(a)] = a
    return out


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


def factor_of_sum(blocks: Iterable[Array]) -> Array:
    """Return L, lower triangular with a diagonal that is not negative: L·Lᵀ = Σ a·aᵀ over blocks of equal height.

    It has min(rows, columns of all blocks) columns. By Householder reflections on the blocks themselves (an LQ
    decomposition of the blocks side by side), so that small eigenvalues keep their digits down to the square of the
    machine precision relative to the largest (theory §3, step 4).

    In the sample-last layout each block is used up before the next is asked for, if the first is not higher than wide:
    what yields them need not hold all.
    """
    iterator = iter(blocks)
    first = next(iterator)
    samples, height, width = first.shape if first.ndim == 3 else (1, *first.shape)
    if not is_sample_last(first) or width < height:
        out = _lq(np.concatenate([first, *iterator], axis=-1))
        return sample_last(out) if is_sample_last(first) else out
    factor = np.zeros((height, height, samples))
    for block in chain([first], iterator):
        _kernels().absorb(factor, np.array(block.transpose(1, 2, 0), order="C"))
    _kernels().make_diagonal_positive(factor)
    return _batch(factor)


def _lq(a: Array) -> Array:
    wide = SMALL < a.shape[-2] <= a.shape[-1] // 2
    return _lq_by_gram(a) if wide and a.ndim == 3 else _lq_by_reflections(a)


def _lq_by_reflections(a: Array) -> Array:
    factor = np.asarray(np.linalg.qr(a.swapaxes(-1, -2), mode="r")).swapaxes(-1, -2)
    signs = np.copysign(np.ones((), a.dtype), diagonal(factor))
    return factor * signs[..., None, :]


def _lq_by_gram(a: Array) -> Array:
    """The same by a Cholesky decomposition of a·aᵀ, much faster for wide matrices, where its pivots show it is safe."""
    squares = gram(a)
    try:
        factor = np.linalg.cholesky(squares)
    except np.linalg.LinAlgError:
        return _lq_by_reflections(a)
    unsafe = np.any(diagonal(factor) ** 2 < SAFE_PIVOT * diagonal(squares), axis=-1)
    factor[unsafe] = _lq_by_reflections(a[unsafe])
    return factor


def lq(a: Array) -> Array:
    """Return L of the LQ decomposition: `factor_of_sum` of one block."""
    return factor_of_sum([a])


def shorten(a: Array) -> Array:
    """Return a factor of the same Gram matrix with at most as many columns as rows."""
    return lq(a) if columns(a) > a.shape[-2] else a


def masked_softmax(logits: Array, scale: float, allowed: NDArray[np.bool_], plus: Array) -> Array:
    """Return softmax(scale·logits) over each row's allowed columns (0 in the others) plus one matrix for all."""
    if is_sample_last(logits):
        weights = np.empty((*logits.shape[1:], len(logits)))
        _kernels().shifted_logits(_bare(logits), scale, allowed, weights)
        np.exp(weights, out=weights)
        _kernels().normalise_rows(weights, plus)
        return _batch(weights)
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
    """Return a lower-triangular L with L·Lᵀ = v for positive semi-definite v, singular ones included.

    Cholesky's elimination, in which pivots below rounding error count as zero.
    """
    rounding = 4 * v.shape[-1] * np.finfo(v.dtype).eps
    if is_sample_last(v):
        bare = np.empty((*v.shape[1:], len(v)))
        _kernels().cholesky(_bare(v), rounding, bare)
        return _batch(bare)
    try:
        return np.linalg.cholesky(v)
    except np.linalg.LinAlgError:
        return _clamped_cholesky(v, rounding)


def _clamped_cholesky(v: Array, rounding: float) -> Array:
    least = rounding * diagonal(v)
    factor = np.zeros_like(v)
    for j in range(v.shape[-1]):
        rest = v[..., j:, j] - np.sum(factor[..., j:, :j] * factor[..., j : j + 1, :j], axis=-1)
        pivot = np.where(rest[..., :1] > least[..., j : j + 1], rest[..., :1], np.inf)
        factor[..., j:, j] = rest / np.sqrt(pivot)
    return factor


def rank(factor: Array) -> int:
    """Return the rank of one factor, (m, k): how many of its squared singular values are above rounding."""
    values = squared_singular_values(factor)
    return int(np.sum(values > ROUNDING * values[0]))


def squared_singular_values(a: Array) -> Array:
    """Return the eigenvalues of a·aᵀ from the factor itself, (…, rows), largest first; missing ones are 0."""
    values = np.linalg.svd(a, compute_uv=False) ** 2
    return pad(values, a.shape[-2])
