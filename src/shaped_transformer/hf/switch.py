"""Conversion of a model of Hugging Face to its shaped form, in place."""

import copy
from typing import Any

from transformers import PreTrainedModel

from ..errors import InputError
from . import families
from .registration import register_attention, set_attention
from .trial import check_calls, check_family, check_parts, example_inputs


def register(*model_types: str) -> None:
    """Register shaped attention, its mask and the shaped forms of all families with Hugging Face.

    Importing `shaped_transformer.hf` calls it. Call it again after adding families to Hugging Face's own, or to check
    that families can be shaped.

    ```python
    from transformers import AutoModelForCausalLM, GPT2Config

    st.hf.register("gpt2")  # raises an InputError if GPT-2 cannot be shaped
    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(config, attn_implementation="shaped")  # tau0 = 1
    ```

    **Arguments:**

    - `model_types`: model types to check, such as `"mistral"`; default none.

    **Raises:** `InputError` for a model type that Hugging Face does not know or that cannot be shaped, with the reason.
    """
    register_attention()
    families.make_loadable()
    for model_type in model_types:
        check_family(model_type)


def shape_(
    model: PreTrainedModel,
    *,
    tau0: float | None = families.OPTIONS["tau0"],
    identity_gain: float = families.OPTIONS["identity_gain"],
    uniform_gain: float = families.OPTIONS["uniform_gain"],
    example: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Replace a model's attention by shaped attention, in place, and check in one forward pass that the model calls it.

    Only the attention matrix changes: from softmax(Y) to a·I + softmax(Y/(τ0√n)) − b·U, where Y are the model's own
    logits and n is its hidden size. Norms, MLP, residual strength and weights do not change, so that a trained model
    has to be trained further.

    ```python
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    model = st.hf.shape_(AutoModelForCausalLM.from_config(config), tau0=1.0)
    model.save_pretrained("my-shaped-model")
    AutoModelForCausalLM.from_pretrained("my-shaped-model").config.model_type  # "shaped-gpt2"
    ```

    **Arguments:**

    - `model`: a model that honours the attention interface: GPT-2, Llama, NeoX, BERT, ViT and most others.
    - `tau0`: temperature constant τ0, default 1; `None` keeps the model's own temperature.
    - `identity_gain`, `uniform_gain`: a and b, default 1.
    - `example`: inputs of the forward pass, by name; by default a few tokens, or one empty image.

    **Returns:** the same model, with the class of its shaped form and a shaped copy of its configuration, which it may
    have shared with other models. Saved, it loads as shaped.

    **Raises:** `InputError` for anything but a model of Hugging Face; for a model with cross-attention; for one made of
    other models (shape those); for one that ignores the attention of its configuration; for a `tau0` that is not
    positive; and for a missing `example`. The model is then unchanged.
    """
    inputs = _check_arguments(model, tau0, example)
    register()
    plain, config = model.config, copy.deepcopy(model.config)
    plain_model: Any = type(model)
    plain_config: Any = type(plain)
    was_plain = not plain.model_type.startswith(families.PREFIX)
    if was_plain:
        config.__class__ = families.shaped_config(plain_config)
    for name, value in (("tau0", tau0), ("identity_gain", identity_gain), ("uniform_gain", uniform_gain)):
        setattr(config, name, value)
    set_attention(config, families.ATTENTION)
    _replace_config(model, plain, config)
    try:
        check_calls(model, inputs)
    except BaseException:
        _replace_config(model, config, plain)
        raise
    if was_plain:
        model.__class__ = families.shaped_model(plain_model, plain_config)
        families.register_models(families.shaped_config(plain_config), plain_config)
        _record_outputs(type(model), config)
    return model


def _check_arguments(model: Any, tau0: float | None, example: dict[str, Any] | None) -> dict[str, Any]:
    """Check the arguments of `shape_`, and return the inputs of its forward pass."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"a PreTrainedModel of Hugging Face is expected (got {type(model).__name__}): use "
            "st.nn.ShapedAttention in modules of your own, and shape the inner model if one is wrapped"
        )
    check_parts(model)
    if tau0 is not None and not tau0 > 0:
        raise InputError(f"tau0 must be positive (got {tau0})")
    inputs = example_inputs(model) if example is None else example
    if inputs is None:
        raise InputError(
            f"{type(model).__name__} takes {model.main_input_name}, for which there is no default example: give inputs "
            "of one forward pass as example="
        )
    return inputs


def _replace_config(model: PreTrainedModel, old: Any, new: Any) -> None:
    """Replace a configuration in every part of a model that refers to it."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)


def _record_outputs(made: Any, config: Any) -> None:
    """Have Hugging Face register the outputs that a class can record, as it does whenever it builds a model."""
    PreTrainedModel.__init__(made.__new__(made), copy.deepcopy(config))
