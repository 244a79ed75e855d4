"""The PyTorch module of a definition, with a linear output: what tangent kernels are of."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import InputError
from ..nn.activation import activation
from ..nn.convert import from_architecture
from .perceptron import Perceptron

Network = Architecture | Perceptron
"""What has a tangent kernel of its own here."""


class _PerceptronModule(nn.Sequential):
    """The module of a `Perceptron`, (…, coordinates) → (…, outputs)."""

    def __init__(self, network: Perceptron, outputs: int) -> None:
        widths = [network.coordinates, *(network.width,) * network.depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [
                _linear(fan_in, fan_out, network.weight_variance),
                activation(network.activation, network.width),
            ]
        super().__init__(*layers, _linear(widths[-1], outputs, network.weight_variance))

    def streams(self, x: Tensor) -> list[Tensor]:
        """Return the input and the outputs of the hidden layers."""
        out, parts = [x], list(self.children())
        for linear, phi in zip(parts[:-1:2], parts[1::2], strict=True):
            out.append(phi(linear(out[-1])))
        return out

    def read(self, x: Tensor) -> Tensor:
        """Return the outputs, given that of the last hidden layer."""
        out: Tensor = self[-1](x)
        return out


class _ArchitectureModule(nn.Module):
    """The module of an architecture with a linear output of the last token, (inputs, m, n) → (inputs, outputs)."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        self.blocks = from_architecture(architecture)
        self.output = _linear(architecture.width, outputs, 1.0)

    def streams(self, x: Tensor) -> list[Tensor]:
        """Return the tokens, (inputs, m, n), before the first block and after each."""
        out = [x[:, None] if x.ndim == 2 else x]
        for block in self.blocks.children():
            out.append(block(out[-1]))
        return out

    def read(self, x: Tensor) -> Tensor:
        """Return the outputs, given the tokens after the last block."""
        out: Tensor = self.output(x[:, -1])
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of inputs of several tokens each, or, (inputs, n), of one."""
        return self.read(self.blocks(x[:, None] if x.ndim == 2 else x))


def module(network: Network, outputs: int = 1, *, bias_gradients: bool = False) -> nn.Module:
    """Return the real network of a definition, with a linear output, freshly initialised.

    Weights come from PyTorch's global generator: fix them with `torch.manual_seed`.

    ```python
    mlp = st.ntk.module(st.ntk.Perceptron(width=50, depth=10), outputs=2)
    mlp(torch.randn(3, 50)).shape  # (3, 2)
    ```

    **Arguments:**

    - `network`: a `Perceptron`, or an `Architecture` of width n.
    - `outputs`: D, the number of outputs, default 1. Their weights are N(0, σ_w²/M) of a perceptron, and N(0, 1/n) of
      an architecture, which they read at the last token.
    - `bias_gradients`: whether each linear map has biases, which are 0 at initialisation; default no.

    **Returns:** a module from (inputs, coordinates), or (inputs, tokens, n) of an architecture, to (inputs, outputs).

    **Raises:** `InputError` for anything else, or an activation with a NumPy function of the user's.
    """
    check_network(network)
    check_count(outputs, "outputs")
    made: nn.Module
    if isinstance(network, Perceptron):
        made = _PerceptronModule(network, outputs)
    else:
        made = _ArchitectureModule(network, outputs)
    for layer in linear_maps(made).values() if bias_gradients else ():
        layer.bias = nn.Parameter(torch.zeros(layer.out_features))
    return made


def check_network(network: Network) -> None:
    """Check that a network is given by its definition.

    **Raises:** `InputError` otherwise.
    """
    if not isinstance(network, Architecture | Perceptron):
        raise InputError(
            f"an Architecture or a Perceptron is expected (got {type(network).__name__}): for the kernel of a module "
            "use st.ntk.of"
        )


def linear_maps(model: nn.Module) -> dict[str, Any]:
    """Return the linear maps of a module by name, in order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def _linear(fan_in: int, fan_out: int, variance: float) -> nn.Linear:
    """Return a linear map without bias whose weights are N(0, variance/fan-in)."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(variance / fan_in))
    return layer
