"""Residual layers and the block of the shaped Transformer as modules."""

import math
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ..design.activations import Activation
from ..design.definition import Definition, Number, PositiveFloat, PositiveInt, definition
from ..errors import DefinitionError, InputError
from .activation import Pointwise, ShapedReLU
from .attention import ShapedAttention, SoftmaxAttention
from .mlp import ShapedMLP
from .skipinit import SkipInitAttention

Norm = Literal["none", "pre", "post"]


class Residual(nn.Module):
    """Layer X' = λX + γ·Z(X̃), as the definition of the same name (theory §2).

    **Arguments:** `branch`: Z; `scale`: γ; `skip`: λ, default √(1 − γ²); `norm`: a module, or `None` for none;
    `after`: whether X' is normalised rather than X̃.

    **Raises:** `InputError` for a γ beyond 1 without λ.
    """

    def __init__(
        self,
        branch: nn.Module,
        scale: float,
        skip: float | None = None,
        norm: nn.Module | None = None,
        *,
        after: bool = False,
    ) -> None:
        super().__init__()
        if skip is None and not abs(scale) <= 1:
            raise InputError(f"scale must lie in (0, 1] unless skip is given (got {scale:g})")
        self.branch, self.scale, self.after = branch, scale, after
        self.skip = math.sqrt(1 - scale**2) if skip is None else skip
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """Return X' for x, (batch, T, n); `inputs` are the branch's."""
        inner = x if self.after else self.norm(x)
        out = torch.add(self.skip * x, self.branch(inner, **inputs), alpha=self.scale)
        return self.norm(out) if self.after else out

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, skip={self.skip:g}" + (", norm after" if self.after else "")


@definition
class BlockOptions(Definition):
    """What a block of the shaped Transformer may be told besides its width and heads.

    **Arguments:**

    - `gamma`: γ of both branches, default 0.5; `skip`: λ, default √(1 − γ²).
    - `tau0`: temperature constant, default 1.
    - `c_plus`, `c_minus`: slopes of the shaped ReLU in units of 1/√n, default 0 and −1; `learnable_slopes`: whether
      they are parameters.
    - `attention`: `"shaped"` (default), or for baselines `"softmax"` and `"skipinit"` (Value-SkipInit).
    - `activation`: `"shaped"` (default) or `"relu"`.
    - `hidden_width`: of the MLP, default n. `kv_heads`: default one for each head.
    - `causal`, `rotary`: default no. `dropout`: on the softmax and the hidden units, default 0.
    - `norm`: `"none"` (default, the theory's), `"pre"` or `"post"`; `normaliser`: `"rms"` (default) or `"layer"`.
    - `shaping`, `recover_steps`: how the gains change in training, see `Shaping`; default `"fixed"`.
    """

    gamma: PositiveFloat = 0.5
    skip: Number | None = None
    tau0: PositiveFloat = 1.0
    c_plus: Number = 0.0
    c_minus: Number = -1.0
    learnable_slopes: bool = False
    attention: Literal["shaped", "softmax", "skipinit"] = "shaped"
    activation: Literal["shaped", "relu"] = "shaped"
    hidden_width: PositiveInt | None = None
    kv_heads: PositiveInt | None = None
    causal: bool = False
    rotary: bool = False
    dropout: Number = 0.0
    norm: Norm = "none"
    normaliser: Literal["rms", "layer"] = "rms"
    shaping: Literal["fixed", "learn", "recover"] = "fixed"
    recover_steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> "BlockOptions":
        if self.skip is None and self.gamma > 1:
            raise DefinitionError(f"gamma must lie in (0, 1] unless skip is given (got {self.gamma:g})")
        if not 0 <= self.dropout < 1:
            raise DefinitionError(f"dropout must lie in [0, 1) (got {self.dropout:g})")
        return self


class ShapedBlock(nn.Module):
    """A block of the shaped Transformer: attention and MLP, each in a residual layer [ST; theory §2].

    **Arguments:** `width`: n; `heads`: H, default 1; further those of `BlockOptions`, by name.

    **Raises:** `DefinitionError` or `InputError` for values that do not fit.
    """

    def __init__(self, width: int, heads: int = 1, **options: Any) -> None:
        super().__init__()
        o = BlockOptions(**options)
        self.width = width
        self.attention = _residual(_attention(width, heads, o), width, o)
        self.mlp = _residual(_mlp(width, o), width, o)

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """Return the block's output for x, (batch, T, n); `inputs` are those of `ShapedAttention.forward`."""
        out: Tensor = self.mlp(self.attention(x, **inputs))
        return out


def _attention(width: int, heads: int, o: BlockOptions) -> nn.Module:
    common: dict[str, Any] = {
        "kv_heads": o.kv_heads,
        "causal": o.causal,
        "rotary": o.rotary,
        "dropout": o.dropout,
    }
    if o.attention != "shaped":
        baseline = SoftmaxAttention if o.attention == "softmax" else SkipInitAttention
        return baseline(width, heads, **common)
    return ShapedAttention(width, heads, tau0=o.tau0, shaping=o.shaping, recover_steps=o.recover_steps, **common)


def _mlp(width: int, o: BlockOptions) -> nn.Module:
    if o.activation == "relu":
        sigma: nn.Module = Pointwise(Activation("relu"), width)
    else:
        sigma = ShapedReLU(width, o.c_plus, o.c_minus, learnable=o.learnable_slopes)
    return ShapedMLP(width, o.hidden_width, activation=sigma, dropout=o.dropout)


def _residual(branch: nn.Module, width: int, o: BlockOptions) -> Residual:
    norm = None if o.norm == "none" else normaliser(o.normaliser, width)
    return Residual(branch, o.gamma, o.skip, norm, after=o.norm == "post")


def normaliser(kind: str, width: int, *, trained: bool = True) -> nn.Module:
    """Return RMSNorm ("rms") or LayerNorm ("layer").

    **Arguments:** `trained`: with parameters and PyTorch's usual ε, as in training; or neither, as in the theory, an ε
    of 1e-30 keeping a token of norm zero at zero.
    """
    make = nn.RMSNorm if kind == "rms" else nn.LayerNorm
    return make(width, eps=1e-6 if trained else 1e-30, elementwise_affine=trained)
