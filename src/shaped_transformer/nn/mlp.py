"""The MLP branch as a module."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_counts
from .activation import ShapedReLU
from .attention import BranchOutput, linear


class ShapedMLP(nn.Module):
    """Branch √c·σ(g·X W₁) W₂, weights N(0, 1/fan-in), c = 1/E σ(g·z)², z ~ N(0, 1) [ST for n_h = n; theory §2].

    ```python
    mlp = st.nn.ShapedMLP(width=32, hidden_width=64)
    mlp(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `hidden_width`: n_h, default n, as in the paper.
    - `activation`: σ, a module with `forward(x)` and `second_moment(gain)`; default `ShapedReLU(width)`. Where its
      slopes are trained, c changes with them.
    - `input_gain`: g, default 1.
    - `normalise`: whether to multiply by √c, default yes; otherwise c = 1.
    - `dropout`: dropout on the hidden units in training, default 0.

    **Raises:** `InputError` for widths that are not whole numbers of at least 1.
    """

    def __init__(
        self,
        width: int,
        hidden_width: int | None = None,
        *,
        activation: Any = None,
        input_gain: float = 1.0,
        normalise: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = width if hidden_width is None else hidden_width
        check_counts(width=width, hidden_width=hidden)
        self.input, self.output = linear(width, hidden), BranchOutput(hidden, width)
        self.activation = ShapedReLU(width) if activation is None else activation
        self.input_gain, self.normalise, self.dropout = input_gain, normalise, dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output for x, (…, n)."""
        hidden = self.activation(self.input(x) if self.input_gain == 1 else self.input_gain * self.input(x))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        if not self.normalise:
            return self.output(hidden)
        moment = self.activation.second_moment(self.input_gain)
        gain = moment.rsqrt().to(hidden.dtype) if isinstance(moment, torch.Tensor) else moment**-0.5
        return gain * self.output(hidden)
