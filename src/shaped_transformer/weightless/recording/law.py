"""The distribution of a parameter's entries at initialisation: a base, iid or Haar, times a vector along each axis."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["normal", "orthogonal", "uniform", "truncated", "constant", "other"]

NEVER = "never initialised"
"""The reason of a parameter whose memory was never filled."""


@dataclass(frozen=True)
class Law:
    """Distribution of a parameter's entries at initialisation: scales[0] × scales[1] × … × base.

    ```python
    from shaped_transformer.weightless.recording.law import Law
    print(Law("normal", 0.02))  # N(0, 0.02²)
    ```

    **Arguments:**

    - `kind`: the base. `"normal"`, `"uniform"`, `"truncated"` (a normal cut at less than 6 standard deviations) and
      `"constant"` have independent entries. `"orthogonal"` is `std` times a Haar matrix of orthonormal rows or
      columns, the first axis against all others. `"other"`: `reason` says what it is.
    - `std`: standard deviation of the base's entries; the gain of an orthogonal base; 0 of a constant.
    - `mean`: mean of the base's entries; the value of a constant. Default 0.
    - `scales`: for each axis of the parameter the vector that multiplies along it, float64, or `None` for ones. A row
      set to zero has scale 0. Default none.
    - `reason`: for `"other"`, what made it so.
    """

    kind: Kind
    std: float
    mean: float = 0.0
    scales: tuple[torch.Tensor | None, ...] = ()
    reason: str = ""

    @property
    def variance(self) -> float:
        """Variance of an entry of the base; of an orthogonal one gain², as the size of the matrix is not known here."""
        return self.std**2

    def __str__(self) -> str:
        """Return a short text, such as `N(0, 0.02²), 1 row zero`."""
        return ", ".join([self._base(), *self._scaled()])

    def _base(self) -> str:
        """Return the text of the base."""
        match self.kind:
            case "normal":
                return f"N({self.mean:.3g}, {self.std:.3g}²)"
            case "orthogonal":
                return f"orthogonal, gain {self.std:.3g}"
            case "uniform":
                half = math.sqrt(3) * self.std
                return f"uniform on [{self.mean - half:.3g}, {self.mean + half:.3g}]"
            case "truncated":
                return f"truncated normal, mean {self.mean:.3g}, std {self.std:.3g}"
            case "constant":
                return f"{self.mean:.3g}"
        return self.reason

    def _scaled(self) -> list[str]:
        """Return the texts of the scales: how many rows are zero, and whether the others differ."""
        texts = []
        for axis, scale in enumerate(self.scales):
            if scale is None:
                continue
            one, many = _names(axis, len(self.scales))
            zeros = int((scale == 0).sum())
            if zeros:
                texts.append(f"{zeros} {one if zeros == 1 else many} zero")
            kept = scale[scale != 0]
            if bool((kept != kept[:1]).any()) or (not zeros and bool((scale != 1).any())):
                texts.append(f"{many} scaled")
        return texts


def _names(axis: int, axes: int) -> tuple[str, str]:
    """Return what an index along an axis is called, one and many."""
    if axes == 1:
        return "entry", "entries"
    if axis < 2:
        return ("row", "rows") if axis == 0 else ("column", "columns")
    return f"slice of axis {axis}", f"slices of axis {axis}"


def other(reason: str) -> Law:
    """Return the law of entries of which only `reason` is known."""
    return Law("other", math.nan, reason=reason)
