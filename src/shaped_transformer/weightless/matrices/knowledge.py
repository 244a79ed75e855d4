"""What is known of a matrix at initialisation, in the cheapest form that is exact, and its products."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...errors import InputError
from . import matrix
from .factor import Factor
from .ledger import Ledger, Met
from .once import Part, first_images, own_part, second_images
from .streams import Side
from .vectors import Units, Vectors, same

NOT_KEPT = (
    "the vectors of its backward pass were not kept, to save memory, so that it cannot take part in another pass: call "
    "st.weightless.redraw(model, seed=...) for another network, build the model with history=True, or make its "
    "optimiser before the first pass"
)

CHANGED = (
    "the vectors that this weight multiplied were changed in place afterwards: give it a copy of them, with x.clone()"
)


class Knowledge:
    """A matrix W₀ (a × b) with N(0, 1) entries, or Haar orthogonal, known by what it has met.

    It goes through these forms: nothing is known; rows of a look-up (drawn by their number, so that they need no
    history); the first vectors of each side, without a history (`once`); the whole history (`matrix`).

    A rectangular orthogonal matrix is the first rows, or the first columns, of a square one.

    **Arguments:**

    - `name`: of the parameter, for messages.
    - `shape`: (a, b).
    - `orthogonal`: whether it is Haar orthogonal.
    - `ledger`: of the network.
    """

    def __init__(self, name: str, shape: tuple[int, int], ledger: Ledger, *, orthogonal: bool = False) -> None:
        self.name, self.shape, self.orthogonal = name, shape, orthogonal
        self._ledger, self._stream = ledger, ledger.stream(name)
        self._square = (max(shape),) * 2 if orthogonal else shape
        self._first: tuple[Side, Met] | None = None
        self._second: Met | None = None
        self._forgot = False
        self.drawn = False
        self._rows: Tensor | None = None
        self._history: matrix.Matrix | None = None
        self._draws: dict[Side, int] = {"left": 0, "right": 0}

    @property
    def untouched(self) -> bool:
        """Whether it has met no vector yet."""
        return self._first is None and self._rows is None and self._history is None

    def kept(self, x: Vectors) -> Vectors:
        """Return the first vectors that it has met if x equals them, so that one copy is kept, and x otherwise."""
        return self._first[1].vectors if self._first is not None and same(x, self._first[1].vectors) else x

    def factor(self, x: Tensor) -> Factor:
        """Return the factor of vectors, which is at hand for those that it has met first from either side.

        **Raises:** `NotFiniteError` where x is not finite.
        """
        met = [one for one in (self._first and self._first[1], self._second) if one is not None]
        found = next((one for one in met if same(x, one.vectors)), None)
        return self._ledger.factor(found or self._ledger.meet(x))

    @property
    def only_rows(self) -> bool:
        """Whether at most rows of a look-up are known."""
        return self._first is None and self._history is None

    @property
    def has_history(self) -> bool:
        """Whether all that it has met is in a history."""
        return self._history is not None

    def look_up(self, units: Units) -> Tensor:
        """Return rows of the matrix, (m, b)."""
        if self._history is not None or self._first is not None or self.orthogonal:
            return self.product("left", units.dense(self._stream.dtype))
        old = units.rows if self._rows is None else torch.cat((self._rows, units.rows))
        self._rows = old.unique()
        return self._draw_rows(units.rows)

    def product(self, side: Side, x: Tensor) -> Tensor:
        """Return the product of vectors with the matrix, exact in distribution given all earlier products.

        **Arguments:**

        - `side`: `"left"` for x·W₀, `"right"` for x·W₀ᵀ.
        - `x`: vectors, (m, a) or (m, b).

        **Raises:** `InputError` where x is not finite, was changed in place, or where the past was not kept.
        """
        if self.orthogonal or self._history is not None or self._rows is not None:
            return self._product_from_history(side, x)
        length = self.shape[side == "left"]
        if self._first is None:
            met = self._ledger.meet(x)
            factor = self._ledger.factor(met)
            self._first = side, met
            return first_images(factor, length, self._stream, side)
        first_side, first = self._first
        self._check(first)
        if side == first_side and same(x, first.vectors):
            return first_images(self._ledger.factor(first), length, self._stream, side)
        if (found := self.own_part(side, x)) is not None:
            part, first = found
            return second_images(part, first.vectors, self._ledger.factor(first))
        return self._product_from_history(side, x)

    def own_part(self, side: Side, x: Tensor) -> tuple[Part, Met] | None:
        """Return the matrix's own part of the product, and the vectors of the other side that it has met first.

        `None` where x is not the first to come from its side after other vectors came from the other one.

        **Raises:** `InputError` where vectors that it has met were changed in place.
        """
        if self._first is None or self._history is not None or self._forgot or side == self._first[0]:
            return None
        first_side, first = self._first
        self._check(first)
        if self._second is not None:
            self._check(self._second)
            if not same(x, self._second.vectors):
                return None
        second = self._second or self._ledger.meet(x)
        factor, rank = self._ledger.factor(second), self._ledger.factor(first).rank
        self._second = second
        return own_part(x, factor, rank, first.vectors.shape[1], self._stream, first_side), first

    def _check(self, met: Met) -> None:
        """Check that vectors are still those that the matrix has met."""
        if met.changed():
            raise InputError(f"{self.name}: {CHANGED}")

    def forget(self) -> None:
        """Drop the vectors of the backward pass, unless they are in a history by now."""
        if self._second is not None:
            self._second, self._forgot = None, True

    def draw_whole(self) -> Tensor:
        """Return the whole matrix, (a, b), equal to what a look-up has drawn of it; nothing else may be known."""
        self.drawn = True
        normals = self._stream.normals(self._square, "whole")
        if self.orthogonal:
            q, r = torch.linalg.qr(normals)
            return (q * r.diagonal().sign())[: self.shape[0], : self.shape[1]].clone()
        if self._rows is not None:
            normals[self._rows] = self._draw_rows(self._rows)
        return normals

    def _draw_rows(self, rows: Tensor) -> Tensor:
        """Return rows by their numbers, each from its own address."""
        out = torch.empty(len(rows), self.shape[1], dtype=self._stream.dtype)
        for one, row in zip(out, rows.tolist(), strict=True):
            one.copy_(self._stream.normals((self.shape[1],), "row", row))
        return out

    def _product_from_history(self, side: Side, x: Tensor) -> Tensor:
        """Return a product from the whole history, which is made of the past where there is none yet."""
        if self._forgot:
            raise InputError(f"{self.name}: {NOT_KEPT}")
        if self._history is None:
            self._history = matrix.unknown(*self._square, self._stream.dtype)
            if self._rows is not None:
                units = Units(self._rows, self.shape[0]).dense(self._stream.dtype)
                known = matrix.Known(units, self._draw_rows(self._rows))
                self._history, self._rows = matrix.Matrix(known, self._history.right), None
            if self._first is not None:
                first_side, first = self._first
                self._check(first)
                self._query(first_side, first.vectors)
                if self._second is not None:
                    self._query("left" if first_side == "right" else "right", self._second.vectors)
                self._first = self._second = None
        return self._query(side, x)

    def _query(self, side: Side, x: Tensor) -> Tensor:
        """Return a product from the history, which then includes it."""
        left = side == "left"
        width = self._square[not left]
        padded = pad(x, (0, width - x.shape[1])) if x.shape[1] < width else x

        def draw(count: int) -> Tensor:
            number, self._draws[side] = self._draws[side], self._draws[side] + 1
            return self._stream.matrix(count, self._square[left], side, number)

        query = matrix.query_haar if self.orthogonal else matrix.query_gaussian
        product, self._history = query(self._history or matrix.unknown(*self._square), side, padded, draw)
        return product[:, : self.shape[left]]
