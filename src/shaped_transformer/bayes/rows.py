"""Weights that are known only by what the training inputs have met; each test point meets them alone (theory §9).

Layers that treat inputs one by one use weights only through `draws.linear(x, out)`. `RowDraws` answers with the exact
distribution: the rows of the training inputs are queried together, and each test row after them.
"""

import numpy as np

from ..numerics import linalg
from ..numerics.arrays import Floats
from .normals import Source

WHOLE = 3
"""Weights with at most this many times as many rows as there are training inputs are drawn whole, which is faster."""

DEPENDENT = 1e-10
"""A row whose part outside the span of the rows before it is below this share of its length lies in the span."""


class RowDraws:
    """Answers x ↦ xW/√fan-in for a batch of networks, with a new W at each call.

    **Arguments:**

    - `known`: normals of the training inputs. How they are used does not depend on the test points.
    - `rows`: P, the number of training inputs, which are the first rows of every x.
    - `further`: normals that only test points need; `None` if there are none.
    - `joint`: whether the test points are drawn jointly. If false, each is drawn as if it were the only one, with the
      same normals, so that it does not depend on the others; then only its own distribution with the training inputs
      is right.
    - `wide`: vectors that replace the first x, or `None`: inputs with more coordinates than the network.
    """

    def __init__(
        self, known: Source, rows: int, further: Source | None = None, joint: bool = False, wide: Floats | None = None
    ) -> None:
        self._known, self._rows, self._further, self._joint, self._wide = known, rows, further, joint, wide

    def linear(self, x: Floats, out: int) -> Floats:
        """Return x·W/√fan-in, (size, rows of x, out)."""
        if self._wide is not None:
            x, self._wide = self._wide, None
        fan_in = x.shape[-1]
        known, asked = x[:, : self._rows], x[:, self._rows :]
        if fan_in <= WHOLE * self._rows:
            weights = self._known.normal(fan_in, out)
            images = known @ weights
            further = asked @ weights if asked.shape[1] else None
        else:
            factor, basis = echelon(known)
            first = self._known.normal(self._rows, out)
            images = factor @ first
            further = None if self._further is None else self._appended(asked, basis, first, self._further)
        parts = images if further is None else np.concatenate([images, further], axis=1)
        return parts / np.sqrt(fan_in)

    def _appended(self, asked: Floats, basis: Floats, images: Floats, source: Source) -> Floats:
        """Return the images of test rows, given those of the basis of the training rows (theory §7, left query)."""
        inside = asked @ basis.swapaxes(-1, -2)
        rest = asked - inside @ basis
        count, fan_in = asked.shape[1:]
        if self._joint:
            outside = linalg.lq_by_reflections(rest) @ source.normal(min(count, fan_in), images.shape[-1])
        else:
            length = np.sqrt(np.sum(np.square(rest), axis=-1, keepdims=True))
            outside = length * source.normal(1, images.shape[-1])
        return inside @ images + outside


def echelon(x: Floats) -> tuple[Floats, Floats]:
    """Return R and Q with x = R·Q: R lower triangular, diagonal ≥ 0; Q with orthonormal rows, or rows of zeros.

    Row i of Q is the direction of what row i of x adds to the rows before it, and zero if it adds nothing. So R and Q
    are determined by x up to rounding, also where x has dependent rows.

    **Arguments:**

    - `x`: (samples, m, n) with m ≤ n.

    **Returns:** R, (samples, m, m), and Q, (samples, m, n).
    """
    q, r = np.linalg.qr(x.swapaxes(-1, -2))
    signs = np.copysign(1.0, linalg.diagonal(r))
    factor, basis = r.swapaxes(-1, -2) * signs[:, None, :], q.swapaxes(-1, -2) * signs[:, :, None]
    least = DEPENDENT * np.sqrt(np.sum(np.square(factor), axis=-1))
    dependent = linalg.diagonal(factor) <= least
    if not dependent.any():
        return factor, basis
    rank = np.where(dependent.any(axis=1), np.argmax(dependent, axis=1), x.shape[1])
    after = np.arange(x.shape[1]) >= rank[:, None]  # in general, all rows after the first dependent one are
    beyond = np.abs(factor) * after[:, None, :]
    factor = np.where(after[:, None, :], 0.0, factor)
    basis = np.where(after[:, :, None], 0.0, basis)
    slow = np.flatnonzero((beyond.max(axis=-1) > least).any(axis=1))
    if slow.size:
        factor[slow], basis[slow] = _by_projections(x[slow])
    return factor, basis


def _by_projections(x: Floats) -> tuple[Floats, Floats]:
    """Return R and Q of `echelon`, row by row, whichever rows are dependent."""
    factor, basis = np.zeros((len(x), x.shape[1], x.shape[1])), np.zeros_like(x)
    for i in range(x.shape[1]):
        row = x[:, i]
        for _ in range(2):  # once more, so that rounding leaves nothing inside the span
            inside = np.einsum("sn,skn->sk", row, basis[:, :i])
            row = row - np.einsum("sk,skn->sn", inside, basis[:, :i])
            factor[:, i, :i] += inside
        length = np.sqrt(np.sum(np.square(row), axis=-1))
        new = length > DEPENDENT * np.sqrt(np.sum(np.square(x[:, i]), axis=-1))
        factor[:, i, i] = np.where(new, length, 0.0)
        basis[:, i] = row * np.where(new, 1 / np.where(new, length, 1.0), 0.0)[:, None]
    return factor, basis
