"""Residual layers and the block of the shaped Transformer as modules."""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import PlainValidator, model_validator
from torch import Tensor, nn

from ..design import activations as definitions
from ..design.definition import Definition, Number, PositiveFloat, PositiveInt, definition
from ..design.layers.residual import Norm, Normaliser
from ..design.named import NAMED, SHAPED_RELU
from ..errors import DefinitionError, InputError
from .activation import ShapedReLU, activation
from .attention import ShapedAttention, SoftmaxAttention
from .mlp import ShapedMLP
from .shaping import Mode
from .skipinit import SkipInitAttention


class Residual(nn.Module):
    """Layer X' = λX + γ·Z(X̃), as the definition of the same name (theory §2).

    ```python
    layer = st.nn.Residual(st.nn.ShapedMLP(width=32), scale=0.5)
    layer(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:**

    - `branch`: Z, a module.
    - `scale`: γ.
    - `skip`: λ, default √(1 − γ²), which keeps the variance of tokens.
    - `norm`: a module that normalises the branch's input X̃; default `None`, no normalisation.
    - `after`: whether `norm` is applied to X' instead, default no.

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
        """Return X' for x, (batch, T, n); the branch receives `inputs` too."""
        inner = x if self.after else self.norm(x)
        out = torch.add(self.skip * x, self.branch(inner, **inputs), alpha=self.scale)
        return self.norm(out) if self.after else out

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, skip={self.skip:g}" + (", norm after" if self.after else "")


def _checked_activation(value: Any) -> Any:
    """Return an activation or its name; refuse other values."""
    if not isinstance(value, definitions.AnyActivation) and value not in ("shaped", *NAMED):
        raise ValueError(
            f"give one of shaped, {', '.join(NAMED)}, or an activation such as st.ShapedSmooth('tanh', a=1.0) "
            f"(got {value!r})"
        )
    return value


@definition
class BlockOptions(Definition):
    """Options of a block of the shaped Transformer besides its width and heads.

    ```python
    options = st.nn.BlockOptions(gamma=0.3, causal=True)
    options.tau0  # 1.0
    ```

    **Arguments:**

    - `gamma`: γ of both branches, in (0, 1] unless `skip` is given. Default 0.5, for a single block; in a network of
      depth d take 0.5/√d, which is the default of `ShapedTransformer`.
    - `skip`: λ of both branches, default √(1 − γ²).
    - `tau0`: temperature constant τ0, default 1.
    - `c_plus`, `c_minus`: slopes of the shaped ReLU minus 1, in units of 1/√n, default 0 and −1.
    - `learnable_slopes`: whether these slopes are parameters, default no.
    - `attention`: `"shaped"` (default), or the baselines `"softmax"` and `"skipinit"` (Value-SkipInit).
    - `activation`: σ of the MLP. `"shaped"` (default) is the shaped ReLU with the slopes above; others are a definition
      such as `ShapedSmooth("tanh", a=1.0)`, or a name: `"relu"`, `"gelu"`, `"silu"`, `"tanh"`, `"identity"`, or
      `"shaped-tanh"` and so on, which are shaped with a = 1.
    - `hidden_width`: n_h of the MLP, default n.
    - `key_width`, `value_width`: n_k and n_v of one head, default n // H.
    - `output_projection`: whether the heads' outputs are multiplied by W^O; default exactly when H > 1.
    - `kv_heads`: number of heads of keys and values, a divisor of H; default H.
    - `causal`: whether a token attends only to itself and earlier tokens, default no.
    - `rotary`: whether queries and keys have rotary positions, default no.
    - `dropout`: dropout on the softmax and on the hidden units in training, in [0, 1), default 0.
    - `norm`: `"none"` (default, as in the theory), `"pre"` or `"post"`.
    - `normaliser`: `"rms"` (default) or `"layer"`.
    - `shaping`, `recover_steps`: how the gains change in training, as in `Shaping`; default `"fixed"`.

    **Raises:** `DefinitionError` for unknown options, and values that do not fit.
    """

    gamma: PositiveFloat = 0.5
    skip: Number | None = None
    tau0: PositiveFloat = 1.0
    c_plus: Number = 0.0
    c_minus: Number = -1.0
    learnable_slopes: bool = False
    attention: Literal["shaped", "softmax", "skipinit"] = "shaped"
    activation: Annotated[str | definitions.AnyActivation, PlainValidator(_checked_activation)] = "shaped"
    hidden_width: PositiveInt | None = None
    key_width: PositiveInt | None = None
    value_width: PositiveInt | None = None
    output_projection: bool | None = None
    kv_heads: PositiveInt | None = None
    causal: bool = False
    rotary: bool = False
    dropout: Number = 0.0
    norm: Norm = "none"
    normaliser: Normaliser = "rms"
    shaping: Mode = "fixed"
    recover_steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_gamma_and_dropout(self) -> "BlockOptions":
        """Check γ together with λ, and the range of the dropout."""
        if self.skip is None and self.gamma > 1:
            raise DefinitionError(f"gamma must lie in (0, 1] unless skip is given (got {self.gamma:g})")
        if not 0 <= self.dropout < 1:
            raise DefinitionError(f"dropout must lie in [0, 1) (got {self.dropout:g})")
        return self


class ShapedBlock(nn.Module):
    """A block of the shaped Transformer: attention and MLP, each in a residual layer [ST; theory §2].

    ```python
    block = st.nn.ShapedBlock(width=32, heads=4, gamma=0.3, causal=True)
    block(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `heads`: H, default 1.
    - further options by name: those of `BlockOptions`.

    **Raises:** `DefinitionError` or `InputError` for values that do not fit.
    """

    def __init__(self, width: int, heads: int = 1, **options: Any) -> None:
        super().__init__()
        checked = BlockOptions(**options)
        self.width = width
        self.attention = _residual(_attention(width, heads, checked), width, checked)
        self.mlp = _residual(_mlp(width, checked), width, checked)

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """Return the block's output for x, (batch, T, n); the attention's `forward` receives `inputs` too."""
        out: Tensor = self.mlp(self.attention(x, **inputs))
        return out


def _attention(width: int, heads: int, options: BlockOptions) -> nn.Module:
    """Return the attention branch."""
    common: dict[str, Any] = {
        "key_width": options.key_width,
        "value_width": options.value_width,
        "output_projection": options.output_projection,
        "kv_heads": options.kv_heads,
        "causal": options.causal,
        "rotary": options.rotary,
        "dropout": options.dropout,
    }
    if options.attention != "shaped":
        baseline = SoftmaxAttention if options.attention == "softmax" else SkipInitAttention
        return baseline(width, heads, **common)
    common |= {"tau0": options.tau0, "shaping": options.shaping, "recover_steps": options.recover_steps}
    return ShapedAttention(width, heads, **common)


def _mlp(width: int, options: BlockOptions) -> nn.Module:
    """Return the MLP branch."""
    sigma = _definition_of_activation(options)
    if isinstance(sigma, definitions.ShapedReLU):
        module: nn.Module = ShapedReLU(width, sigma.c_plus, sigma.c_minus, learnable=options.learnable_slopes)
    else:
        module = activation(sigma, width)
    return ShapedMLP(width, options.hidden_width, activation=module, dropout=options.dropout)


def _definition_of_activation(options: BlockOptions) -> definitions.AnyActivation:
    """Return the definition of a block's activation."""
    if options.activation in ("shaped", SHAPED_RELU):
        return definitions.ShapedReLU(options.c_plus, options.c_minus)
    return NAMED[options.activation] if isinstance(options.activation, str) else options.activation


def _residual(branch: nn.Module, width: int, options: BlockOptions) -> Residual:
    """Return a branch in its residual layer."""
    norm = None if options.norm == "none" else normaliser(options.normaliser, width)
    return Residual(branch, options.gamma, options.skip, norm, after=options.norm == "post")


def normaliser(kind: str, width: int, *, trained: bool = True) -> nn.Module:
    """Return RMSNorm or LayerNorm.

    **Arguments:**

    - `kind`: `"rms"` or `"layer"`.
    - `width`: n, the number of coordinates of a token.
    - `trained`: whether it has parameters and ε = 1e-6 (default), or, as in the theory, no parameters and ε = 1e-30,
      which keeps a token of norm zero at zero.
    """
    make = nn.RMSNorm if kind == "rms" else nn.LayerNorm
    return make(width, eps=1e-6 if trained else 1e-30, elementwise_affine=trained)
