"""A whole network: width, depth, and the block that is repeated; and the presets."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import model_validator

from ..errors import DefinitionError, InputError
from ..io.files import read_text
from .activations import Activation, AnyActivation, ShapedReLU
from .definition import Definition, PositiveFloat, PositiveInt, definition
from .layers import MLP, Dense, Layer, Residual, ShapedAttention, SoftmaxAttention
from .masks import Mask


@definition
class Architecture(Definition):
    """A network of `depth` equal blocks, each a sequence of layers, all weights independent Gaussians.

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `depth`: d, the number of blocks.
    - `block`: the layers of one block, in order.

    **Raises:** `DefinitionError` if a layer does not fit the width.
    """

    width: PositiveInt
    depth: PositiveInt
    block: tuple[Layer, ...]

    @model_validator(mode="after")
    def _layers_fit(self) -> "Architecture":
        if not self.block:
            raise DefinitionError("block must have at least one layer")
        for layer in self.block:
            layer.check(self.width)
        return self

    @classmethod
    def read(cls, path: str | PathLike[str], *, trust: bool = False) -> "Architecture":
        """Read a definition from a JSON file, such as `json.dump(architecture.to_dict(), file)` writes.

        **Arguments:** `path`: the file; `trust`: whether functions that it names may be of any module, as in
        `from_dict`.

        **Raises:** `StorageError` if the file cannot be read; `InputError` or `DefinitionError` for what is in it.
        """
        file = Path(path)
        text = read_text(file, "JSON")
        try:
            data = json.loads(text)
        except RecursionError:
            raise InputError(f"{file} is nested too deeply to be a definition") from None
        except ValueError as error:  # also of a number with more digits than Python reads
            raise InputError(f"{file} is not JSON: {error}") from None
        return cls.from_dict(data, trust=trust)

    @property
    def time(self) -> float:
        """T = depth / width, the time of the limit."""
        return self.depth / self.width

    @property
    def needs_mean(self) -> bool:
        """Whether some layer needs the tokens' means (LayerNorm)."""
        return any(layer.needs_mean for layer in self.block)

    def check_tokens(self, tokens: int) -> None:
        """Raise `InputError` if a mask is for another number of tokens."""
        for layer in self.block:
            layer.check_tokens(tokens)


def shaped_transformer(
    width: int,
    depth: int,
    *,
    gamma: PositiveFloat = 0.5,
    tau0: PositiveFloat = 1.0,
    c_plus: float = 0.0,
    c_minus: float = -1.0,
    heads: PositiveInt = 1,
    mask: Mask = "full",
) -> Architecture:
    """The shaped Transformer: shaped attention and a shaped-ReLU MLP, each in a residual branch [ST; theory §2].

    **Arguments:**

    - `width`, `depth`: n and the number of blocks d.
    - `gamma`: γ of both branches, in (0, 1]; the skip is √(1 − γ²).
    - `tau0`: temperature constant of the attention.
    - `c_plus`, `c_minus`: slopes of the shaped ReLU, in units of 1/√n.
    - `heads`, `mask`: of the attention.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    attention = Residual(ShapedAttention(tau0=tau0, heads=heads, mask=mask), scale=gamma)
    mlp = Residual(MLP(ShapedReLU(c_plus=c_plus, c_minus=c_minus)), scale=gamma)
    return Architecture(width, depth, (attention, mlp))


def shaped_attention_only(
    width: int,
    depth: int,
    *,
    gamma: PositiveFloat = 0.5,
    tau0: PositiveFloat = 1.0,
    heads: PositiveInt = 1,
    mask: Mask = "full",
) -> Architecture:
    """Shaped attention in residual branches, without MLP [ST]. Arguments as in `shaped_transformer`."""
    return Architecture(width, depth, (Residual(ShapedAttention(tau0=tau0, heads=heads, mask=mask), scale=gamma),))


def shaped_mlp(width: int, depth: int, *, activation: AnyActivation | None = None) -> Architecture:
    """A multilayer perceptron of shaped layers without skips [NC].

    **Arguments:** `activation`: σ; default `ShapedReLU(0, -1)`.
    """
    return Architecture(width, depth, (Dense(activation or ShapedReLU(0.0, -1.0)),))


def deep_linear(width: int, depth: int) -> Architecture:
    """A deep linear network, X' = X W/√n [DL]."""
    return Architecture(width, depth, (Dense(Activation("identity")),))


def pre_norm_transformer(
    width: int,
    depth: int,
    *,
    heads: PositiveInt = 1,
    mask: Mask = "full",
    activation: AnyActivation | None = None,
    hidden_width: PositiveInt | None = None,
) -> Architecture:
    """The usual Transformer: softmax attention and MLP in unit-skip branches, LayerNorm before each.

    **Arguments:**

    - `width`, `depth`: n and the number of blocks d.
    - `heads`, `mask`: of the attention.
    - `activation`: of the MLP, default plain ReLU.
    - `hidden_width`: n_h of the MLP, default n.
    """
    return _vanilla(width, depth, 1.0, "pre", SoftmaxAttention(heads=heads, mask=mask), activation, hidden_width)


def post_norm_transformer(
    width: int,
    depth: int,
    *,
    heads: PositiveInt = 1,
    mask: Mask = "full",
    activation: AnyActivation | None = None,
    hidden_width: PositiveInt | None = None,
) -> Architecture:
    """The original Transformer: unit skips, LayerNorm after each sum. Arguments as in `pre_norm_transformer`."""
    return _vanilla(width, depth, 1.0, "post", SoftmaxAttention(heads=heads, mask=mask), activation, hidden_width)


def skipless_transformer(
    width: int,
    depth: int,
    *,
    heads: PositiveInt = 1,
    mask: Mask = "full",
    activation: AnyActivation | None = None,
    hidden_width: PositiveInt | None = None,
) -> Architecture:
    """Softmax attention and MLP, neither skips nor norms: rank collapses. Arguments as in `pre_norm_transformer`."""
    return _vanilla(width, depth, 0.0, "none", SoftmaxAttention(heads=heads, mask=mask), activation, hidden_width)


def _vanilla(
    width: int,
    depth: int,
    skip: float,
    norm: Any,
    attention: SoftmaxAttention,
    activation: AnyActivation | None,
    hidden_width: int | None,
) -> Architecture:
    mlp = MLP(activation or Activation("relu"), hidden_width=hidden_width)
    block = tuple(Residual(branch, 1.0, skip=skip, norm=norm, normaliser="layer") for branch in (attention, mlp))
    return Architecture(width, depth, block)


PRESETS = {
    preset.__name__: preset
    for preset in (
        shaped_transformer,
        shaped_attention_only,
        shaped_mlp,
        deep_linear,
        pre_norm_transformer,
        post_norm_transformer,
        skipless_transformer,
    )
}
"""The presets by name, as the command line knows them."""
