"""From a definition to a module: the network of the theory on token vectors, to train and to probe."""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from ..design import layers
from ..design import masks as definitions
from ..design.architecture import Architecture
from ..errors import InputError
from .activation import activation
from .attention import ShapedAttention, SoftmaxAttention, linear
from .block import Residual, normaliser
from .checks import check_vectors
from .mlp import ShapedMLP


class Dense(nn.Module):
    """Layer X' = √c·σ(X W), weights N(0, 1/n) (theory §2)."""

    def __init__(self, width: int, sigma: nn.Module) -> None:
        super().__init__()
        self.input = linear(width, width)
        self.activation: Any = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Return X' for x, (batch, m, n)."""
        out: Tensor = self.activation.second_moment() ** -0.5 * self.activation(self.input(x))
        return out


class Network(nn.Sequential):
    """The module of an architecture: its blocks in order, on (batch, m, n)."""

    def __init__(self, architecture: Architecture) -> None:
        blocks = [
            nn.Sequential(*(_layer(layer, architecture.width) for layer in architecture.block))
            for _ in range(architecture.depth)
        ]
        super().__init__(*blocks)
        self.architecture = architecture

    def forward(self, x: Tensor) -> Tensor:
        """Return the token vectors after the last block, (batch, m, n).

        **Raises:** `InputError` for another width, or a number of tokens that does not fit a mask.
        """
        width = self.architecture.width
        check_vectors(x, width)
        self.architecture.check_tokens(x.shape[1])
        for block in self:
            x = block(x)
        return x


def from_architecture(architecture: Architecture) -> Network:
    """Return the module of an architecture, freshly initialised.

    At initialisation V = XXᵀ/n after each block has the distribution of `st.network` and `st.chain`. Weights come from
    PyTorch's global generator: fix them with `torch.manual_seed`.

    ```python
    arch = st.shaped_transformer(width=32, depth=4, heads=4, mask="causal")
    module = st.nn.from_architecture(arch)
    module(torch.randn(2, 9, 32))  # (2, 9, 32)
    ```

    **Arguments:**

    - `architecture`: any `Architecture`; the module has its widths, masks and gains.

    **Returns:** an `nn.Module` from (batch, m, n) to (batch, m, n).

    **Raises:** `InputError` for anything but an `Architecture`, a branch without a module, or an activation with a
    NumPy function of the user's.
    """
    if not isinstance(architecture, Architecture):
        raise InputError(f"an Architecture is expected (got {type(architecture).__name__})")
    return Network(architecture)


@singledispatch
def branch_module(branch: Any, _width: int) -> nn.Module:
    """Return the module of a branch's definition at a width; `branch_module.register` adds a kind of branch.

    **Raises:** `InputError` for a kind that is not registered.
    """
    raise InputError(
        f"no module is known for a branch of kind {type(branch).__name__}: register one with "
        "shaped_transformer.nn.convert.branch_module.register"
    )


@branch_module.register
def _mlp(branch: layers.MLP, width: int) -> nn.Module:
    """Return the module of an MLP."""
    return ShapedMLP(
        width,
        branch.hidden_width,
        activation=activation(branch.activation, width),
        input_gain=branch.input_gain,
        normalise=branch.normalise,
    )


@branch_module.register
def _shaped_attention(branch: layers.ShapedAttention, width: int) -> nn.Module:
    """Return the module of shaped attention."""
    gains: dict[str, Any] = {"identity_gain": branch.identity_gain, "uniform_gain": branch.uniform_gain}
    return ShapedAttention(width, branch.heads, tau0=branch.tau0, **gains, **_attention_options(branch))


@branch_module.register
def _softmax_attention(branch: layers.SoftmaxAttention, width: int) -> nn.Module:
    """Return the module of softmax attention."""
    return SoftmaxAttention(width, branch.heads, **_attention_options(branch))


def _attention_options(branch: layers.ShapedAttention | layers.SoftmaxAttention) -> dict[str, Any]:
    """Return the arguments that modules of both kinds of attention take."""
    own_mask = not isinstance(branch.mask, str)
    return {
        "key_width": branch.key_width,
        "value_width": branch.value_width,
        "output_projection": branch.projects,
        "causal": branch.mask == "causal",
        "mask": torch.as_tensor(definitions.allowed(branch.mask, len(branch.mask)).copy()) if own_mask else None,
        "logit_gain": branch.logit_gain,
    }


def _layer(layer: layers.Layer, width: int) -> nn.Module:
    """Return the module of a layer's definition."""
    if isinstance(layer, layers.Dense):
        return Dense(width, activation(layer.activation, width))
    if isinstance(layer, layers.Residual):
        norm = None if layer.norm == "none" else normaliser(layer.normaliser, width, trained=False)
        branch = branch_module(layer.branch, width)
        return Residual(branch, layer.scale, layer.skip_scale, norm, after=layer.norm == "post")
    raise InputError(f"no module is known for a layer of kind {type(layer).__name__}: use Dense or Residual")
