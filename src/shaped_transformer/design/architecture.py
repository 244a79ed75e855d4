"""A whole network: width, depth, and the block of layers that is repeated; and presets."""

import json
import math
from collections.abc import Callable
from numbers import Integral
from os import PathLike
from pathlib import Path

from pydantic import model_validator

from ..errors import DefinitionError, InputError
from ..io.files import read_text
from .activations import Activation, AnyActivation, ShapedReLU
from .definition import Definition, PositiveInt, definition
from .layers import MLP, Dense, Layer, Residual, ShapedAttention, SoftmaxAttention
from .layers.residual import Norm, Normaliser
from .masks import MaskLike

GAMMA_ROOT_DEPTH = 0.5
"""Default of γ√d: it keeps γ²d, the noise that depth adds up, at a quarter for all depths."""


@definition
class Architecture(Definition):
    """A network of `depth` equal blocks, each a sequence of layers; all weights are independent Gaussians.

    ```python
    attention = st.Residual(st.ShapedAttention(tau0=1.0), scale=0.5)
    mlp = st.Residual(st.MLP(st.ShapedReLU(0.0, -1.0)), scale=0.5)
    st.Architecture(width=64, depth=16, block=(attention, mlp))
    ```

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
        """Read an architecture from a JSON file.

        ```python
        import json
        from pathlib import Path

        arch = st.deep_linear(width=8, depth=2)
        Path("arch.json").write_text(json.dumps(arch.to_dict()))
        st.Architecture.read("arch.json") == arch  # True
        ```

        **Arguments:**

        - `path`: the file, with the dictionary of `to_dict` as JSON.
        - `trust`: whether a function that the file names may come from any module, as in `from_dict`; default no.

        **Returns:** the architecture.

        **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not JSON, `DefinitionError` if the
        JSON is not that of an architecture.
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
        """Check that every mask fits the number of tokens.

        **Raises:** `InputError` if a mask is an array for another number of tokens.
        """
        for layer in self.block:
            layer.check_tokens(tokens)


def shaped_transformer(
    width: int,
    depth: int,
    *,
    gamma: float | None = None,
    tau0: float = 1.0,
    c_plus: float | None = None,
    c_minus: float | None = None,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    mask: MaskLike = "full",
    hidden_width: int | None = None,
    activation: AnyActivation | None = None,
    norm: Norm = "none",
    normaliser: Normaliser = "rms",
) -> Architecture:
    """Return the shaped Transformer: shaped attention and a shaped MLP in residual branches [ST; theory §2].

    ```python
    arch = st.shaped_transformer(width=64, depth=16, gamma=0.5)
    arch.time  # 0.25
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `depth`: d, the number of blocks.
    - `gamma`: γ of both branches, in (0, 1]; the skip is √(1 − γ²). Default 0.5/√depth, with which γ²·depth is ¼:
      stable at any depth, and right for training (docs/choosing.md).
    - `tau0`: temperature constant τ0 of the attention, default 1.
    - `c_plus`, `c_minus`: slopes of the shaped ReLU minus 1, in units of 1/√n, default 0 and −1.
    - `heads`: number of attention heads, default 1.
    - `key_width`, `value_width`: n_k and n_v of one head; `None` (the default) is n // heads.
    - `mask`: mask of the attention, as in `ShapedAttention`, default `"full"`.
    - `hidden_width`: n_h of the MLP; `None` (the default) is n.
    - `activation`: σ of the MLP; `None` (the default) is `ShapedReLU(c_plus, c_minus)`.
    - `norm`, `normaliser`: normalisation of both residual layers, as in `Residual`; default none, as in the paper.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have, or slopes beside an activation.
    """
    attention = ShapedAttention(tau0=tau0, heads=heads, key_width=key_width, value_width=value_width, mask=mask)
    mlp = MLP(_with_slopes(activation, c_plus, c_minus), hidden_width=hidden_width)
    scale = default_gamma(depth) if gamma is None else gamma
    block = tuple(Residual(branch, scale=scale, norm=norm, normaliser=normaliser) for branch in (attention, mlp))
    return Architecture(width, depth, block)


def default_gamma(depth: int) -> float:
    """Return 0.5/√depth, the default γ of networks of a depth; a depth that no network can have counts as 1."""
    return GAMMA_ROOT_DEPTH / math.sqrt(depth if isinstance(depth, Integral) and depth > 0 else 1)


def _with_slopes(activation: AnyActivation | None, c_plus: float | None, c_minus: float | None) -> AnyActivation:
    """Return the activation, or the shaped ReLU with the given slopes; `None` stands for its defaults."""
    slopes = {name: c for name, c in (("c_plus", c_plus), ("c_minus", c_minus)) if c is not None}
    if activation is None:
        return ShapedReLU(**slopes)
    if slopes:
        raise DefinitionError(
            f"give either an activation or {' and '.join(slopes)}, not both: they are slopes of the default "
            "activation, the shaped ReLU"
        )
    return activation


def shaped_attention_only(
    width: int,
    depth: int,
    *,
    gamma: float | None = None,
    tau0: float = 1.0,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    mask: MaskLike = "full",
    norm: Norm = "none",
    normaliser: Normaliser = "rms",
) -> Architecture:
    """Return a network of shaped attention in residual branches, without MLPs [ST].

    ```python
    st.shaped_attention_only(width=64, depth=16, heads=4, mask="causal")
    ```

    **Arguments:** as in `shaped_transformer`.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    attention = ShapedAttention(tau0=tau0, heads=heads, key_width=key_width, value_width=value_width, mask=mask)
    scale = default_gamma(depth) if gamma is None else gamma
    return Architecture(width, depth, (Residual(attention, scale=scale, norm=norm, normaliser=normaliser),))


def shaped_mlp(width: int, depth: int, *, activation: AnyActivation | None = None) -> Architecture:
    """Return a multilayer perceptron of shaped layers without skip connections [NC].

    ```python
    st.shaped_mlp(width=64, depth=16, activation=st.ShapedSmooth("tanh", a=1.0))
    ```

    **Arguments:**

    - `width`: n, the number of units of each layer.
    - `depth`: d, the number of layers.
    - `activation`: σ; `None` (the default) is `ShapedReLU()`.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    return Architecture(width, depth, (Dense(ShapedReLU() if activation is None else activation),))


def deep_linear(width: int, depth: int) -> Architecture:
    """Return a deep linear network, X' = X W/√n [DL].

    ```python
    st.deep_linear(width=64, depth=16)
    ```

    **Arguments:**

    - `width`: n, the number of units of each layer.
    - `depth`: d, the number of layers.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    return Architecture(width, depth, (Dense(Activation("identity")),))


def pre_norm_transformer(
    width: int,
    depth: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    mask: MaskLike = "full",
    activation: AnyActivation | None = None,
    hidden_width: int | None = None,
) -> Architecture:
    """Return the pre-norm Transformer: softmax attention and MLP with unit skips, LayerNorm before each branch.

    ```python
    st.pre_norm_transformer(width=64, depth=4, heads=4, activation=st.Activation("gelu"), hidden_width=256)
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `depth`: d, the number of blocks.
    - `heads`: number of attention heads, default 1.
    - `key_width`, `value_width`: n_k and n_v of one head; `None` (the default) is n // heads.
    - `mask`: mask of the attention, as in `SoftmaxAttention`, default `"full"`.
    - `activation`: σ of the MLP; `None` (the default) is the plain ReLU.
    - `hidden_width`: n_h of the MLP; `None` (the default) is n.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    attention = SoftmaxAttention(heads=heads, key_width=key_width, value_width=value_width, mask=mask)
    mlp = _plain_mlp(activation, hidden_width)
    return Architecture(width, depth, _plain_block(attention, mlp, skip=1.0, norm="pre"))


def post_norm_transformer(
    width: int,
    depth: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    mask: MaskLike = "full",
    activation: AnyActivation | None = None,
    hidden_width: int | None = None,
) -> Architecture:
    """Return the original, post-norm Transformer: unit skips, LayerNorm after each sum.

    ```python
    st.post_norm_transformer(width=64, depth=4, heads=4)
    ```

    **Arguments:** as in `pre_norm_transformer`.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    attention = SoftmaxAttention(heads=heads, key_width=key_width, value_width=value_width, mask=mask)
    mlp = _plain_mlp(activation, hidden_width)
    return Architecture(width, depth, _plain_block(attention, mlp, skip=1.0, norm="post"))


def skipless_transformer(
    width: int,
    depth: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    mask: MaskLike = "full",
    activation: AnyActivation | None = None,
    hidden_width: int | None = None,
) -> Architecture:
    """Return softmax attention and MLPs with neither skips nor norms: the covariance collapses to rank 1.

    ```python
    st.skipless_transformer(width=64, depth=4)
    ```

    **Arguments:** as in `pre_norm_transformer`.

    **Returns:** the `Architecture`.

    **Raises:** `DefinitionError` for values that no network can have.
    """
    attention = SoftmaxAttention(heads=heads, key_width=key_width, value_width=value_width, mask=mask)
    mlp = _plain_mlp(activation, hidden_width)
    return Architecture(width, depth, _plain_block(attention, mlp, skip=0.0, norm="none"))


def _plain_mlp(activation: AnyActivation | None, hidden_width: int | None) -> MLP:
    """Return an MLP, by default with the plain ReLU."""
    return MLP(Activation("relu") if activation is None else activation, hidden_width=hidden_width)


def _plain_block(attention: SoftmaxAttention, mlp: MLP, *, skip: float, norm: Norm) -> tuple[Layer, ...]:
    """Return the block of a Transformer with branches of strength 1 and LayerNorm."""
    return tuple(Residual(branch, 1.0, skip=skip, norm=norm, normaliser="layer") for branch in (attention, mlp))


PRESETS: dict[str, Callable[..., Architecture]] = {
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
"""The presets by name, for the command line."""
