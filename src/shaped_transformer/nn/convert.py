"""From a definition to a module: the network of the theory, on token vectors, that can be trained and probed."""

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
        """Return the token vectors after the last block.

        **Raises:** `InputError` for another width, or a number of tokens that a mask is not for.
        """
        width = self.architecture.width
        check_vectors(x, width)
        self.architecture.check_tokens(x.shape[1])
        for block in self:
            x = block(x)
        return x


def from_architecture(architecture: Architecture) -> Network:
    """Return the module of an architecture, freshly initialised.

    At initialisation V = XXᵀ/n after each block has the law of `st.network` and `st.chain`. Weights come from PyTorch's
    global generator: `torch.manual_seed` fixes them.

    **Arguments:** `architecture`: any, with the layers' widths, masks and gains.

    **Returns:** an `nn.Module` from (batch, m, n) to (batch, m, n).

    **Raises:** `InputError` for what is no architecture, or an activation with a function of the user's.
    """
    if not isinstance(architecture, Architecture):
        raise InputError(f"an Architecture is expected (got {type(architecture).__name__})")
    return Network(architecture)


def _layer(layer: layers.Layer, width: int) -> nn.Module:
    if isinstance(layer, layers.Dense):
        return Dense(width, activation(layer.activation, width))
    if isinstance(layer, layers.Residual):
        norm = None if layer.norm == "none" else normaliser(layer.normaliser, width, trained=False)
        return Residual(_branch(layer.branch, width), layer.scale, layer.skip_scale, norm, after=layer.norm == "post")
    raise InputError(f"no module is known for a layer of kind {type(layer).__name__}")


def _branch(branch: Any, width: int) -> nn.Module:
    if isinstance(branch, layers.MLP):
        sigma = activation(branch.activation, width)
        return ShapedMLP(
            width, branch.hidden_width, activation=sigma, input_gain=branch.input_gain, normalise=branch.normalise
        )
    if not isinstance(branch, layers.ShapedAttention | layers.SoftmaxAttention):
        raise InputError(f"no module is known for a branch of kind {type(branch).__name__}")
    own = not isinstance(branch.mask, str)
    options: dict[str, Any] = {
        "key_width": branch.key_width,
        "value_width": branch.value_width,
        "output_projection": branch.projects,
        "causal": branch.mask == "causal",
        "mask": torch.as_tensor(definitions.allowed(branch.mask, len(branch.mask)).copy()) if own else None,
        "logit_gain": branch.logit_gain,
    }
    if isinstance(branch, layers.ShapedAttention):
        gains: dict[str, Any] = {"identity_gain": branch.identity_gain, "uniform_gain": branch.uniform_gain}
        return ShapedAttention(width, branch.heads, tau0=branch.tau0, **gains, **options)
    return SoftmaxAttention(width, branch.heads, **options)
