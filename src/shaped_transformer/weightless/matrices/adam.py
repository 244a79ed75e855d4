"""What Adam has added to a matrix: an entry-wise function of the gradients so far, formed only where it is small."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...numerics.compilation import load
from .ledger import Ledger
from .pair import Pair
from .streams import Side
from .vectors import Units, Vectors, inner

KEPT_ENTRIES = 2**20
"""Most entries of a matrix whose updates and moments are formed and kept."""


@dataclass(frozen=True)
class Settings:
    """Numbers of Adam: β₁ and β₂, and ε, which is positive."""

    betas: tuple[float, float]
    eps: float


@dataclass(frozen=True, eq=False)
class Step:
    """One step: the gradient as terms with their factors, and by what its update m̂/(√v̂ + ε) is multiplied."""

    gradient: Mapping[Pair, float]
    coefficient: float


class AdamSum:
    """The sum Σ_s c_s·m̂_s/(√v̂_s + ε) of Adam's updates of a matrix (a × b).

    Its state are the factors of the gradients. A small matrix keeps the sum itself and both moments.

    **Arguments:**

    - `name`: of the parameter.
    - `shape`: (a, b).
    - `ledger`: of the network.
    - `settings`: of Adam.
    - `earlier`: how many steps the parameter made before, without this matrix of its stack.
    """

    def __init__(self, name: str, shape: tuple[int, int], ledger: Ledger, settings: Settings, earlier: int = 0) -> None:
        self.name, self.shape, self.ledger, self.settings, self.earlier = name, shape, ledger, settings, earlier
        self.steps: list[Step] = []
        entries = shape[0] * shape[1]
        keeps = entries <= KEPT_ENTRIES and ledger.keeps_moments(4 * entries * ledger.dtype.itemsize)
        self._kept = _Kept(shape, ledger.dtype) if keeps else None

    def step(self, gradient: Mapping[Pair, float], lr: float) -> None:
        """Add the update of a gradient, −lr·m̂/(√v̂ + ε); without terms it is zero."""
        self.steps.append(Step(dict(gradient), -lr))
        if self._kept is not None:
            for pair in gradient:
                pair.check(self.name)
            self._kept.step(gradient, lr, self.earlier + len(self.steps), self.settings)
            self.steps = [Step({}, one.coefficient) for one in self.steps]

    def scale(self, factor: float) -> None:
        """Multiply the sum by a number."""
        self.steps = [replace(one, coefficient=factor * one.coefficient) for one in self.steps]
        if self._kept is not None:
            self._kept.total.mul_(factor)

    def product(self, side: Side, x: Vectors) -> Tensor:
        """Return the product of vectors with the sum."""
        if self._kept is not None:
            return _times(self._kept.total, side, x)
        return self._stream(side, x, [one.coefficient for one in self.steps])[0]

    def last(self, side: Side, x: Vectors) -> tuple[Tensor, float]:
        """Return the product of vectors with the last update, and its Frobenius norm."""
        if self._kept is not None:
            last = self._kept.last
            return _times(last, side, x), float(torch.linalg.vector_norm(last, dtype=torch.float64))
        coefficients = [0.0] * (len(self.steps) - 1) + [self.steps[-1].coefficient]
        return self._stream(side, x, coefficients, norm=True)

    def _stream(
        self, side: Side, x: Vectors, coefficients: Sequence[float], *, norm: bool = False
    ) -> tuple[Tensor, float]:
        """Return the product of vectors with Σ c·m̂/(√v̂ + ε), made and dropped by tiles, and its norm if wanted."""
        kernels, dtype = load("adam"), self.ledger.dtype
        width = self.shape[side == "left"]
        count = len(x.rows) if isinstance(x, Units) else len(x)
        out = torch.zeros(count, width, dtype=dtype)
        pairs = [(pair, factor) for step in self.steps for pair, factor in step.gradient.items()]
        for pair, _ in pairs:
            pair.check(self.name)
        if not pairs:
            return out, 0.0
        near, far = zip(*(pair.towards(side) for pair, _ in pairs), strict=True)
        rows = _rows(near, None if norm else x)  # of a norm, all rows count
        left = torch.cat([factor * _at(one, rows, dtype) for one, (_, factor) in zip(near, pairs, strict=True)])
        right = torch.cat([one.dense(dtype) if isinstance(one, Units) else one for one in far])
        ends = np.cumsum([sum(len(pair) for pair in step.gradient) for step in self.steps])
        exact, real = np.dtype(str(dtype).removeprefix("torch.")), self.settings
        (beta1, beta2), numbers = real.betas, self.earlier + np.arange(1, len(ends) + 1)
        scales = np.stack((coefficients / (1 - beta1**numbers), 1 / np.sqrt(1 - beta2**numbers)), 1)
        betas = np.array([beta1, 1 - beta1, beta2, 1 - beta2], exact)
        lows = range(0, width, kernels.TILE)
        squares = np.zeros((len(lows), kernels.TILE if norm else 0))
        given = (
            *(left.T.contiguous().numpy(), right.contiguous().numpy(), ends.astype(np.int64), scales.astype(exact)),
            *(betas, exact.type(real.eps), _at(x, rows, dtype).T.contiguous().numpy()),
        )
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            tiles = pool.map(lambda i: kernels.add_product(*given, lows[i], out.numpy(), squares[i]), range(len(lows)))
            list(tiles)
        self.ledger.report(left.shape[1] * width * len(self.steps))
        return out, float(np.sqrt(squares.sum()))


class _Kept:
    """The sum of updates, the last update and both moments, in full."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.total, self.last, self.first, self.second = (torch.zeros(shape, dtype=dtype) for _ in range(4))

    def step(self, gradient: Mapping[Pair, float], lr: float, number: int, settings: Settings) -> None:
        """Add an update."""
        full = torch.zeros_like(self.total)
        for pair, factor in gradient.items():
            left, right = (one.dense(full.dtype) if isinstance(one, Units) else one for one in (pair.left, pair.right))
            full.addmm_(left.T, right, alpha=factor)
        beta1, beta2 = settings.betas
        self.first.lerp_(full, 1 - beta1)
        self.second.mul_(beta2).addcmul_(full, full, value=1 - beta2)
        root = (self.second / (1 - beta2**number)).sqrt_().add_(settings.eps)
        torch.div(self.first, root, out=self.last)
        self.last.mul_(-lr / (1 - beta1**number))
        self.total.add_(self.last)


def _times(matrix: Tensor, side: Side, x: Vectors) -> Tensor:
    """Return the product of vectors with a matrix that is there."""
    matrix = matrix if side == "left" else matrix.T
    return matrix[x.rows] if isinstance(x, Units) else x @ matrix


def _rows(near: Sequence[Vectors], x: Vectors | None) -> Tensor | None:
    """Return the rows of the sum that count, because they are not zero and meet a vector; `None` for all."""
    units = [one for one in near if isinstance(one, Units)]
    if len(units) == len(near):
        return torch.cat([one.rows for one in units]).unique()
    return x.rows.unique() if isinstance(x, Units) else None


def _at(x: Vectors, rows: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return vectors in full, at some coordinates, or at all."""
    if rows is None:
        return x.dense(dtype) if isinstance(x, Units) else x
    return inner(x, Units(rows, 0), dtype)
