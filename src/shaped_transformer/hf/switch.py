"""Turning a model of Hugging Face into its shaped form, in place."""

import copy
from typing import Any

from transformers import PreTrainedModel

from ..errors import InputError
from . import families
from .registration import register_attention
from .trial import check_calls, check_family, check_parts, default_inputs


def register(*families_: str) -> None:
    """Make `attn_implementation="shaped"` known to Hugging Face, attention and mask in one, and shaped models loadable.

    ```python
    model = AutoModelForCausalLM.from_config(config, attn_implementation="shaped")  # tau0 = 1
    ```

    Importing `shaped_transformer.hf` calls it. It is needed again after families were added to Hugging Face's own, and
    tells whether those it is given can be shaped.

    **Arguments:** `families_`: model types (such as `"mistral"`) of which to see that `shape_` takes them.

    **Raises:** `InputError` for a model type that Hugging Face does not know or that cannot be shaped, with the reason.
    """
    register_attention()
    families.make_loadable()
    for family in families_:
        check_family(family)


def shape_(
    model: PreTrainedModel,
    *,
    tau0: float | None = 1.0,
    identity_gain: float = 1.0,
    uniform_gain: float = 1.0,
    example: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Give a model shaped attention, in place, and see that it uses it.

    Only the attention matrix changes: a·I + softmax(Y/(τ0√n)) − b·U in place of softmax(Y), Y the model's own logits
    and n its hidden size. Norms, MLP, residual strength and weights stay as they are: a trained model needs training.

    **Arguments:**

    - `model`: a model that honours the attention interface: GPT-2, Llama, NeoX, BERT, ViT and most others.
    - `tau0`: temperature constant, default 1; `None` keeps the model's own temperature.
    - `identity_gain`, `uniform_gain`: a and b, default 1.
    - `example`: inputs for the one forward pass that counts the calls; by default a few tokens, or one empty image.

    **Returns:** the same model, whose class is now that of its shaped form, and whose configuration is a shaped copy of
    the one it had, which other models may share: saved, it loads as shaped.

    **Raises:** `InputError` for what is no model of Hugging Face, one with cross-attention or made of other models
    (shape those), or one that accepts the attention's name and does not call it; it is then left as it was.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"a PreTrainedModel of Hugging Face is expected (got {type(model).__name__}): in modules of your own use "
            "st.nn.ShapedAttention, of a wrapped model shape the model inside"
        )
    check_parts(model)
    if tau0 is not None and not tau0 > 0:
        raise InputError(f"tau0 must be positive (got {tau0})")
    inputs = default_inputs(model) if example is None else example
    if inputs is None:
        raise InputError(f"give example=, inputs for one forward pass: {model.main_input_name} is unknown here")
    register()
    plain, config = model.config, copy.deepcopy(model.config)
    plain_model: Any = type(model)
    plain_config: Any = type(plain)
    new = not plain.model_type.startswith(families.PREFIX)
    if new:
        config.__class__ = families.shaped_config(plain_config)
    for name, value in (("tau0", tau0), ("identity_gain", identity_gain), ("uniform_gain", uniform_gain)):
        setattr(config, name, value)
    config._attn_implementation = families.ATTENTION
    _replace(model, plain, config)
    try:
        check_calls(model, inputs)
    except BaseException:
        _replace(model, config, plain)
        raise
    if new:
        model.__class__ = families.shaped_model(plain_model, plain_config)
        families.register_models(families.shaped_config(plain_config), plain_config)
        _introduce(type(model), config)
    return model


def _replace(model: PreTrainedModel, old: Any, new: Any) -> None:
    """Give every part of a model that holds one configuration another."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)


def _introduce(made: Any, config: Any) -> None:
    """Have Hugging Face note what a class can record, hidden states and more: it does so for each object it makes."""
    PreTrainedModel.__init__(made.__new__(made), copy.deepcopy(config))
