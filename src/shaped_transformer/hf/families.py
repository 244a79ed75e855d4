"""Shaped forms of Hugging Face's model families: configurations and models that stay shaped when saved and loaded."""

from functools import cache
from typing import Any

from transformers import AutoConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..errors import InputError

FAMILIES = ("gpt2", "llama", "gpt_neox", "bert", "vit")
"""Model types whose shaped forms are always loadable."""
ATTENTION = "shaped"
"""The name of the attention."""
PREFIX = "shaped-"
CROSS = "{} has cross-attention, where no key is a query's own: it cannot be shaped"
"""Why a model is refused, with its name."""
OPTIONS: dict[str, Any] = {"tau0": 1.0, "identity_gain": 1.0, "uniform_gain": 1.0}
"""What a shaped configuration knows besides its family's own fields, with defaults."""


@cache
def shaped_config(base: Any) -> Any:
    """Return the configuration class of a family's shaped form, known to `AutoConfig`.

    The plain class does not store which attention a model has; this one has a model type of its own, which does.
    """

    def __post_init__(self: Any, **kwargs: Any) -> None:  # noqa: N807 - a method of the class made below
        kwargs["attn_implementation"] = kwargs.get("attn_implementation") or ATTENTION
        base.__post_init__(self, **kwargs)
        own: Any = type(self)
        register_models(own, base)

    fields = {"__annotations__": {"tau0": float | None, "identity_gain": float, "uniform_gain": float}} | OPTIONS
    names = {"model_type": PREFIX + base.model_type, "__module__": __name__, "__post_init__": __post_init__}
    made: Any = type("Shaped" + base.__name__, (base,), fields | names)
    AutoConfig.register(PREFIX + base.model_type, made, exist_ok=True)
    return made


@cache
def shaped_model(base: Any, config: Any) -> Any:
    """Return the model class of a shaped form: the same in all but its configuration."""
    return type("Shaped" + base.__name__, (base,), {"config_class": config, "__module__": __name__})


@cache
def register_models(config: Any, base: Any) -> None:
    """Tell every Auto class that knows models of the plain family of the shaped ones."""
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None) if isinstance(auto, type) else None
        if mapping is None or base not in mapping:
            continue
        plain = mapping[base]
        if isinstance(plain, type):
            auto.register(config, shaped_model(plain, config), exist_ok=True)


def make_loadable(family: str) -> None:
    """Let a family's shaped form be loaded by the Auto classes.

    **Raises:** `InputError` for a model type that Hugging Face does not know.
    """
    if family not in CONFIG_MAPPING:
        raise InputError(f"Hugging Face knows no model type {family!r}: give one such as 'mistral'")
    base: Any = CONFIG_MAPPING[family]
    shaped_config(base)
