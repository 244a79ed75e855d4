"""Whether a model can be shaped: what it is made of, and one forward pass in which the calls are counted."""

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..errors import InputError, ShapedTransformerError
from .registration import COUNTED, CROSS, counted_calls


def check_parts(model: PreTrainedModel) -> None:
    """See that a model is one decoder or encoder.

    **Raises:** `InputError` for a model with cross-attention, or made of other models.
    """
    config, name = model.config, type(model).__name__
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise InputError(CROSS.format(name))
    parts = [n for n, m in model.named_modules() if isinstance(m, PreTrainedModel) and m.config is not config]
    if parts:
        raise InputError(f"{name} is made of models of their own ({', '.join(parts)}): shape those")


def check_calls(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """See that one forward pass calls shaped attention once for each layer at least, and returns.

    **Raises:** `InputError` if it does not, or shaped attention refuses a call.
    """
    config, name = model.config, type(model).__name__
    before, config._attn_implementation = config._attn_implementation, COUNTED
    failure = None
    try:
        with counted_calls() as calls:
            _run(model, inputs)
    except ShapedTransformerError:
        raise
    except Exception as error:  # a model that makes its own attention of the mask may fail in any way
        failure = error
    finally:
        config._attn_implementation = before
    if calls and failure is not None:
        raise InputError(f"{name} fails with shaped attention: {failure}") from failure
    layers = getattr(config, "num_hidden_layers", 1)
    if len(calls) < layers:
        raise InputError(
            f"{name} calls the attention that it was told to use in {len(calls)} of {layers} layers: it does not "
            "honour the attention interface, and cannot be shaped"
        ) from failure


def check_family(family: Any) -> None:
    """See that models of a family can be shaped, as its configuration has them by default.

    The model is built and run without memory. What cannot be decided so is let pass: `shape_` sees the real one.

    **Raises:** `InputError` for a model type that Hugging Face does not know, or that `shape_` refuses.
    """
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise InputError(f"Hugging Face knows no model type {family!r}: give one such as 'mistral'")
    base: Any = CONFIG_MAPPING[family]
    try:
        if getattr(base, "is_encoder_decoder", False):
            raise InputError(CROSS.format(base.__name__))
        with torch.device("meta"):
            model = _by_default(base)
            if model is None:
                return
            check_parts(model)
            inputs = default_inputs(model)
            if inputs is not None:
                _check_without_memory(model, inputs)
    except InputError as error:
        raise InputError(f"{family!r} has no shaped form: {error}") from error


def default_inputs(model: PreTrainedModel) -> dict[str, Any] | None:
    """Return inputs that the model takes, or `None` if it takes others than tokens and images."""
    config = model.config
    if model.main_input_name == "input_ids":
        return {"input_ids": torch.zeros(1, 3, dtype=torch.long, device=model.device)}
    if model.main_input_name == "pixel_values":
        size = config.image_size if isinstance(config.image_size, tuple | list) else (config.image_size,) * 2
        return {"pixel_values": torch.zeros(1, config.num_channels, *size, device=model.device, dtype=model.dtype)}
    return None


def _by_default(base: Any) -> Any:
    """A model of a configuration class, or `None` where its defaults make none."""
    try:
        return AutoModel.from_config(base())
    except Exception:
        return None


def _check_without_memory(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """As `check_calls`, for a model that may not run without memory, whatever its attention."""
    try:
        check_calls(model, inputs)
    except InputError as error:
        if error.__cause__ is None:  # shaped attention refuses, or is not called
            raise
        try:
            _run(model, inputs)
        except Exception:
            return
        raise


def _run(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        model.train(training)
