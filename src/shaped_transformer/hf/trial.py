"""Checks whether a model can be shaped: its parts, and the calls of its attention in one forward pass."""

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..errors import InputError, ShapedTransformerError
from .registration import COUNTED_ATTENTION, CROSS_ATTENTION, attention_of, count_calls, set_attention


def check_parts(model: PreTrainedModel) -> None:
    """Check that a model is a single decoder or encoder.

    **Raises:** `InputError` for a model with cross-attention, or made of other models.
    """
    config, name = model.config, type(model).__name__
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise InputError(CROSS_ATTENTION.format(name))
    parts = [n for n, m in model.named_modules() if isinstance(m, PreTrainedModel) and m.config is not config]
    if parts:
        raise InputError(f"{name} is composed of several models ({', '.join(parts)}): shape each of these")


def check_calls(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Check that one forward pass succeeds and calls shaped attention at least once for each layer.

    **Arguments:**

    - `model`: the model.
    - `inputs`: of its `forward`, by name.

    **Raises:** `InputError` if it does not, or if shaped attention refuses a call.
    """
    config, name = model.config, type(model).__name__
    before = attention_of(config)
    set_attention(config, COUNTED_ATTENTION)
    failure = None
    try:
        with count_calls() as calls:
            _run_forward(model, inputs)
    except ShapedTransformerError:
        raise
    except Exception as error:  # a model with attention of its own may fail on the mask in any way
        failure = error
    finally:
        set_attention(config, before)
    if calls and failure is not None:
        raise InputError(f"{name} fails with shaped attention: {failure}") from failure
    layers = getattr(config, "num_hidden_layers", 1)
    if len(calls) < layers:
        raise InputError(
            f"{name} calls the attention of its configuration in {len(calls)} of {layers} layers: it does not "
            "honour the attention interface, so it cannot be shaped"
        ) from failure


def check_family(family: Any) -> None:
    """Check that models of a family with its default configuration can be shaped.

    The model is built and run on the meta device, which needs no memory. Where that decides nothing, the family passes,
    because `shape_` checks the real model.

    **Arguments:**

    - `family`: a model type, such as `"mistral"`.

    **Raises:** `InputError` for a model type that Hugging Face does not know, or that `shape_` refuses.
    """
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise InputError(f"Hugging Face knows no model type {family!r}: give one such as 'mistral'")
    base: Any = CONFIG_MAPPING[family]
    try:
        if getattr(base, "is_encoder_decoder", False):
            raise InputError(CROSS_ATTENTION.format(base.__name__))
        with torch.device("meta"):
            model = _default_model(base)
            if model is None:
                return
            check_parts(model)
            inputs = example_inputs(model)
            if inputs is not None:
                _check_calls_on_meta(model, inputs)
    except InputError as error:
        raise InputError(f"{family!r} has no shaped form: {error}") from error


def example_inputs(model: PreTrainedModel) -> dict[str, Any] | None:
    """Return inputs for a forward pass: a few tokens or one empty image; `None` for a model of other inputs."""
    config = model.config
    if model.main_input_name == "input_ids":
        return {"input_ids": torch.zeros(1, 3, dtype=torch.long, device=model.device)}
    if model.main_input_name == "pixel_values":
        size = config.image_size if isinstance(config.image_size, tuple | list) else (config.image_size,) * 2
        return {"pixel_values": torch.zeros(1, config.num_channels, *size, device=model.device, dtype=model.dtype)}
    return None


def _default_model(base: Any) -> Any:
    """Return a model of a configuration class with its defaults, or `None` where they give no model."""
    try:
        return AutoModel.from_config(base())
    except Exception:
        return None


def _check_calls_on_meta(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Check the calls of a model on the meta device, where some models fail with any attention; those pass."""
    try:
        check_calls(model, inputs)
    except InputError as error:
        if error.__cause__ is None:  # shaped attention refuses the call, or is not called
            raise
        try:
            _run_forward(model, inputs)
        except Exception:
            return
        raise


def _run_forward(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Run one forward pass in evaluation mode, and restore the mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        model.train(training)
