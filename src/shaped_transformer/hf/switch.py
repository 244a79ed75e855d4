"""Turning a model of Hugging Face into its shaped form, in place."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import InputError, ShapedTransformerError
from . import families
from .registration import counted_calls, register


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

    **Returns:** the same model, whose class and configuration are now those of its shaped form: saved, it loads as such
    (after `st.hf.register`).

    **Raises:** `InputError` for a model with cross-attention or made of other models (shape those), or one that accepts
    the attention's name and does not call it; it is then left as it was.
    """
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise InputError(
            f"{type(model).__name__} has cross-attention, where no key is a query's own: it cannot be shaped"
        )
    parts = [n for n, m in model.named_modules() if isinstance(m, PreTrainedModel) and m.config is not config]
    if parts:
        raise InputError(f"{type(model).__name__} is made of models of their own ({', '.join(parts)}): shape those")
    if tau0 is not None and not tau0 > 0:
        raise InputError(f"tau0 must be positive (got {tau0})")
    register()
    plain_model: Any
    plain_config: Any
    plain_model, plain_config, settings = type(model), type(config), dict(vars(config))
    if not config.model_type.startswith(families.PREFIX):
        shaped = families.shaped_config(plain_config)
        config.__class__, model.__class__ = shaped, families.shaped_model(plain_model, shaped)
        families.register_models(shaped, plain_config)
    for name, value in (("tau0", tau0), ("identity_gain", identity_gain), ("uniform_gain", uniform_gain)):
        setattr(config, name, value)
    config._attn_implementation = families.ATTENTION
    try:
        calls, layers = _calls_in_one_pass(model, example), config.num_hidden_layers
        if calls < layers:
            raise InputError(
                f"{plain_model.__name__} calls the attention that it was told to use in {calls} of {layers} layers: it "
                "does not honour the attention interface, and cannot be shaped"
            )
    except BaseException:
        model.__class__, config.__class__ = plain_model, plain_config
        vars(config).clear()
        vars(config).update(settings)
        raise
    return model


def _calls_in_one_pass(model: PreTrainedModel, example: dict[str, Any] | None) -> int:
    """How often one forward pass calls shaped attention."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), counted_calls() as calls:
            model(**(_example(model) if example is None else example))
    except ShapedTransformerError:
        raise
    except Exception as error:  # a model that makes its own attention of the mask may fail in any way
        if calls:
            raise InputError(f"{type(model).__name__} fails with shaped attention: {error}") from error
    finally:
        model.train(training)
    return len(calls)


def _example(model: PreTrainedModel) -> dict[str, Any]:
    """Inputs that the model takes."""
    config = model.config
    if model.main_input_name == "input_ids":
        return {"input_ids": torch.zeros(1, 3, dtype=torch.long, device=model.device)}
    if model.main_input_name == "pixel_values":
        size = config.image_size if isinstance(config.image_size, tuple | list) else (config.image_size,) * 2
        return {"pixel_values": torch.zeros(1, config.num_channels, *size, device=model.device, dtype=model.dtype)}
    raise InputError(f"give example=, inputs for one forward pass: {model.main_input_name} is unknown here")
