"""The MLP branch as a module."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_counts
from .activation import ShapedReLU
from .attention import BranchOutput, linear


class ShapedMLP(nn.Module):
    """Branch √c·σ(g·X W₁) W₂, weights N(0, 1/fan-in), c = 1/E σ(g·z)² [ST for n_h = n; theory §2].

    **Arguments:**

    - `width`: n. `hidden_width`: n_h, default n, as in the paper.
    - `activation`: σ, a module with `forward(x)` and `second_moment(gain)`; default `ShapedReLU(width)`. With learnable
      slopes c follows them.
    - `input_gain`: g, default 1; `normalise`: whether to multiply by √c, default yes.
    - `dropout`: on the hidden units, default 0.
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
