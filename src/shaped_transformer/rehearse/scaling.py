"""Models of other sizes: a configuration with its width and depth multiplied."""

from copy import deepcopy
from typing import Any

from ..checks import check_number
from ..design.architecture import default_gamma
from ..errors import InputError
from ..probe.expectation import source_of

WIDE = ("hidden_size", "num_attention_heads")
"""What is multiplied by the width in every configuration; the size of a head stays."""
ALSO_WIDE = (
    *("num_key_value_heads", "decoder_attention_heads", "word_embed_proj_dim"),
    *("intermediate_size", "moe_intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "d_ff", "hidden_dim"),
    *("encoder_ffn_dim", "decoder_ffn_dim"),
)
"""What is multiplied too where a configuration has a number there."""
DEEP, ALSO_DEEP = "num_hidden_layers", ("num_decoder_layers", "decoder_layers")
"""The same for the depth."""
GUIDES = ("layer_types", "mlp_layer_types")
"""Lists with an entry for each layer."""


def scaled(config: Any, width: float = 1.0, depth: float = 1.0) -> Any:
    """Return a configuration of another width and depth, all else as it is.

    Hidden size, heads of queries and of keys and values, and the hidden width of the MLP are multiplied by `width`, the
    number of layers by `depth`. The size of a head stays. The default γ of our own configuration follows the depth.

    ```python
    from transformers import LlamaConfig
    config = LlamaConfig(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_hidden_layers=2)
    st.rehearse.scaled(config, width=0.5, depth=3).hidden_size  # 128
    ```

    **Arguments:**

    - `config`: of Hugging Face, such as GPT-2's, Llama's, BERT's or `st.hf.ShapedTransformerConfig`.
    - `width`, `depth`: factors, default 1.

    **Returns:** a copy.

    **Raises:** `InputError` where a size would not be a whole number, or where the configuration does not tell its
    sizes by the usual names.
    """
    for name, factor in (("width", width), ("depth", depth)):
        if not 0 < check_number(factor, name) < float("inf"):
            raise InputError(f"{name} must be a positive factor (got {factor:g})")
    names = dict(getattr(type(config), "attribute_map", {}))
    changes: dict[str, tuple[str, int, float]] = {}
    for given, factor, side in (*((name, width, "width") for name in WIDE), (DEEP, depth, "depth")):
        value = getattr(config, given, None)
        if not isinstance(value, int):
            raise InputError(
                f"the {given} of a {type(config).__name__} is unknown: give a function (width, depth) → module instead"
            )
        changes[names.get(given, given)] = (side, value, factor)
    more = (*((name, width, "width") for name in ALSO_WIDE), *((name, depth, "depth") for name in ALSO_DEEP))
    for given, factor, side in more:
        value = getattr(config, given, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            changes.setdefault(names.get(given, given), (side, value, factor))
    out = deepcopy(config)
    for name, (side, value, factor) in changes.items():
        new = value * factor
        if abs(new - round(new)) > 1e-9 * new or round(new) < 1:
            raise InputError(
                f"{side} {factor:g} turns {name} {value} into {new:g}, not a whole number of at least 1: choose "
                f"other factors, or a configuration with another {name}"
            )
        setattr(out, name, round(new))
    if getattr(config, "gamma", None) == default_gamma(getattr(config, DEEP)):
        out.gamma = default_gamma(getattr(out, DEEP))
    for name in GUIDES:
        _stretch(out, name, depth)
    return out


def _stretch(config: Any, name: str, depth: float) -> None:
    """Give a list with an entry for each layer the new length: its pattern again and again, as far as needed."""
    kinds = getattr(config, name, None)
    if isinstance(kinds, list) and kinds and depth != 1:
        count = getattr(config, DEEP)
        setattr(config, name, [kinds[i % len(kinds)] for i in range(count)])


def sized(model: Any, width: float, depth: float) -> Any:
    """Return a model of another size.

    **Arguments:**

    - `model`: a Hugging Face configuration, or a function (width, depth) → module that takes both factors.
    - `width`, `depth`: factors.

    **Returns:** a configuration, or a function without arguments that builds a module.
    """
    if source_of(model, None)[1] is None:
        return lambda: model(width, depth)
    return scaled(model, width, depth)
