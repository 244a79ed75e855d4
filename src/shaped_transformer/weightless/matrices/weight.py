"""One weight matrix of a model: its products, its gradient, and what training has added to it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from .adam import AdamSum
from .factor import NotFiniteError, product_norm
from .knowledge import NOT_KEPT, Knowledge
from .ledger import Ledger, Met
from .once import Part
from .pair import Pair, Terms, add_product, norm_squared
from .streams import Side
from .vectors import Units, Vectors

WORTH_DRAWING = 1.5
"""A matrix (a × b) is drawn whole where more than this times a·b/(a + b) vectors come.

Without weights two passes of m vectors take 5m²(a + b) operations, with weights 6m·a·b. The rest is for the memory.
"""


@dataclass(frozen=True)
class Entries:
    """Distribution of a matrix W = rows × σ·W₀ × columns, W₀ with N(0, 1) entries or Haar orthogonal.

    **Arguments:**

    - `std`: σ; 0 for a matrix of zeros.
    - `orthogonal`: whether W₀ is Haar orthogonal.
    - `rows`, `columns`: factors of the rows, (a,), and of the columns, (b,); default `None`, ones.
    """

    std: float
    orthogonal: bool = False
    rows: Tensor | None = None
    columns: Tensor | None = None


class Weight:
    """A matrix W (a × b), trained or not, that is known by what it has met, or drawn whole where that is cheaper.

    **Arguments:**

    - `name`: of the parameter, with the number of the matrix in a stack.
    - `shape`: (a, b).
    - `entries`: its distribution at initialisation.
    - `ledger`: of the network.
    - `twin`: a matrix that starts with the same values; default none.
    """

    def __init__(
        self, name: str, shape: tuple[int, int], entries: Entries, ledger: Ledger, twin: "Weight | None" = None
    ) -> None:
        self.name, self.shape, self.entries, self.ledger = name, shape, entries, ledger
        own = Knowledge(name, shape, ledger, orthogonal=entries.orthogonal)
        self.known: Knowledge = own if twin is None else twin.known
        self.version = 0  # counts steps of an optimiser, and the end of the network
        self.real: Tensor | None = None
        self.initial = 1.0  # coefficient of the matrix at initialisation in the trained one
        self.terms: dict[Pair, float] = {}  # what training has added, as multiples of terms of gradients
        self.updates: list[AdamSum] = []  # what Adam has added
        self.last: AdamSum | Terms | None = None  # what the last step has added
        self.gradient: dict[Pair, float] = {}  # its terms and their factors, since it was last cleared
        self.forgotten: float | None = None  # norm of the gradient where its terms were not kept

    def images(self, side: Side, x: Vectors) -> Tensor:
        """Return the product of vectors with the matrix as it is now.

        **Arguments:**

        - `side`: `"left"` for x·W, `"right"` for x·Wᵀ.
        - `x`: vectors, (m, a) or (m, b).

        **Returns:** (m, b) or (m, a).

        **Raises:** `InputError` where x is not finite, was changed in place, or where the past was not kept.
        """
        if self.known.drawn and self.real is None:
            self.draw()  # a twin was
        if self.real is not None:
            values = self.real.detach()
            return values[x.rows] if isinstance(x, Units) else x @ (values if side == "left" else values.T)
        before, after = self.entries.rows, self.entries.columns
        if side == "right":
            before, after = after, before
        scale = self.entries.std * self.initial
        dtype = self.ledger.dtype
        if scale == 0:
            count = len(x.rows) if isinstance(x, Units) else len(x)
            out = torch.zeros(count, self.shape[side == "left"], dtype=dtype)
        elif isinstance(x, Units):
            out = self.known.look_up(x)
            out = out if before is None else out * before[x.rows, None].to(dtype)
        else:
            out = self._product(side, x if before is None else x * before.to(dtype))
        out *= scale if after is None else after.to(dtype) * scale
        add_product(out, side, x, self.terms, self.name)
        for updates in self.updates:
            out += updates.product(side, x)
        return out

    def own_part(self, side: Side, x: Tensor) -> tuple[Part, Met] | None:
        """Return the matrix's own part of the product, as `Knowledge.own_part` does, where the rest is as simple.

        `None` where it has real values, factors of its rows or columns, or terms from training.
        """
        real = self.real is not None or self.known.drawn
        if real or self.entries.rows is not None or self.entries.columns is not None or self.terms or self.updates:
            return None
        if self.entries.std * self.initial == 0:
            return None
        try:
            found = self.known.own_part(side, x)
        except NotFiniteError as error:
            raise NotFiniteError(f"{self.name} met {error}") from None
        if found is not None:
            found[0].scale(self.entries.std * self.initial)
        return found

    def _product(self, side: Side, x: Tensor) -> Tensor:
        """Return the product of vectors with the matrix at initialisation, without its scales."""
        try:
            return self.known.product(side, x)
        except NotFiniteError as error:
            raise NotFiniteError(f"{self.name} met {error}") from None

    def add_gradient(self, pair: Pair, size: int) -> None:
        """Add a term to the gradient, and keep its vectors for later passes, or only its norm (`Ledger.keeps`).

        **Arguments:**

        - `pair`: the term.
        - `size`: bytes of its vectors from the backward pass.

        **Raises:** `InputError` where an earlier term was not kept.
        """
        if self.forgotten is not None:
            raise InputError(f"{self.name}: {NOT_KEPT}")
        if self.real is not None:  # drawn after a look-up of its rows
            left, right = (
                one.dense(self.ledger.dtype) if isinstance(one, Units) else one for one in (pair.left, pair.right)
            )
            self.real.grad = left.T @ right if self.real.grad is None else self.real.grad + left.T @ right
            return
        self.gradient[pair] = 1.0
        if not self.known.has_history and not self.ledger.keeps(self, size):
            self.forget()

    def forget(self) -> None:
        """Drop the vectors of the backward pass; of the gradient its norm is left."""
        if not self.known.has_history:
            self.forgotten = self.gradient_norm()
            self.gradient.clear()
            self.known.forget()

    def clear_gradient(self) -> None:
        """Set the gradient to zero."""
        self.gradient, self.forgotten = {}, None
        if self.real is not None:
            self.real.grad = None

    def scale_gradient(self, factor: float) -> None:
        """Multiply the gradient by a number."""
        self.gradient = {pair: factor * before for pair, before in self.gradient.items()}
        if self.forgotten is not None:
            self.forgotten *= factor
        if self.real is not None and self.real.grad is not None:
            self.real.grad.mul_(factor)

    def scale(self, factor: float) -> None:
        """Multiply the matrix by a number, as weight decay does."""
        self.initial *= factor
        self.terms = {pair: factor * before for pair, before in self.terms.items()}
        for one in self.updates:
            one.scale(factor)

    @property
    def trained(self) -> bool:
        """Whether it is no longer as at initialisation, or has a gradient that may make it so."""
        return (
            bool(self.terms)
            or bool(self.updates)
            or self.initial != 1
            or bool(self.gradient)
            or self.forgotten is not None
        )

    @property
    def has_gradient(self) -> bool:
        """Whether there is a gradient."""
        return (
            bool(self.gradient) or self.forgotten is not None or (self.real is not None and self.real.grad is not None)
        )

    def gradient_norm(self) -> float | None:
        """Return the Frobenius norm of the gradient, from Grams alone, or `None` where there is none (theory §7)."""
        if self.real is not None:
            return (
                None if self.real.grad is None else float(torch.linalg.vector_norm(self.real.grad, dtype=torch.float64))
            )
        if not self.gradient:
            return self.forgotten
        for pair in self.gradient:
            pair.check(self.name)
        if len(self.gradient) == 1:
            ((pair, factor),) = self.gradient.items()
            if isinstance(pair.left, Tensor) and isinstance(pair.right, Tensor):
                try:
                    return abs(factor) * product_norm(self.known.factor(pair.left), self.known.factor(pair.right))
                except NotFiniteError:
                    return math.nan
        return math.sqrt(max(norm_squared(self.gradient), 0.0))

    def draw_if_cheaper(self, count: int) -> None:
        """Draw the whole matrix where it has met nothing, `count` vectors come, and knowing them would cost more."""
        if self.real is not None:
            return
        if self.known.drawn:
            self.draw()  # a twin was
            return
        a, b = self.shape
        if (
            not self.ledger.whole
            or not self.known.untouched
            or self.trained
            or count * (a + b) <= WORTH_DRAWING * a * b
        ):
            return
        if self.ledger.reserve(a * b * self.ledger.dtype.itemsize):
            self.draw()

    def draw(self) -> Tensor:
        """Draw the whole matrix, for good, and return it.

        **Raises:** `InputError` where it was trained, which can be where only a twin is untrained.
        """
        if self.trained:
            raise InputError(
                f"{self.name}: a copy of it was drawn for real after it was trained, which is not supported"
            )
        values = self.known.draw_whole() * self.entries.std
        for axis, factors in enumerate((self.entries.rows, self.entries.columns)):
            if factors is not None:
                values *= factors.to(values.dtype).unsqueeze(1 - axis)
        self.real = values.requires_grad_()
        return self.real
