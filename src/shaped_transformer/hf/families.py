"""Shaped forms of Hugging Face's model families: configurations and models that stay shaped when saved and loaded.

A saved shaped model names its family in its model type, `"shaped-mistral"`. Its classes are made from the family's own
when they are first asked for: importing every family would take seconds.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from transformers import AutoConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ATTENTION = "shaped"
"""The name of the attention."""
PREFIX = "shaped-"
OPTIONS: dict[str, Any] = {"tau0": 1.0, "identity_gain": 1.0, "uniform_gain": 1.0}
"""What a shaped configuration knows besides its family's own fields, with defaults."""


class Later:
    """Stands for the configuration class of a shaped family until it is asked for one."""

    family: str
    model_type: str

    def __new__(cls, **fields: Any) -> Any:
        return cls.due()(**fields)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """Return what the class it stands for returns."""
        return cls.due().from_dict(config_dict, **options)

    @classmethod
    def due(cls) -> Any:
        """Return the class it stands for."""
        base: Any = CONFIG_MAPPING[cls.family]
        return shaped_config(base)


def make_loadable() -> None:
    """Let the shaped forms of all families that Hugging Face knows be loaded by the Auto classes."""
    for family in tuple(CONFIG_MAPPING):
        shaped = PREFIX + family
        if shaped not in CONFIG_MAPPING and not family.startswith(PREFIX):
            AutoConfig.register(shaped, type(f"Later({family})", (Later,), {"family": family, "model_type": shaped}))


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
    names["__reduce_ex__"] = _reducing(shaped_config, base)
    made: Any = type("Shaped" + base.__name__, (base,), fields | names)
    AutoConfig.register(PREFIX + base.model_type, made, exist_ok=True)
    _convert_alike(base.model_type, PREFIX + base.model_type)
    return made


@cache
def shaped_model(base: Any, config: Any) -> Any:
    """Return the model class of a shaped form: the same in all but its configuration.

    **Arguments:** `base`: the plain model class; `config`: the plain configuration class.
    """
    names = {"config_class": shaped_config(config), "__module__": __name__}
    names["__reduce_ex__"] = _reducing(shaped_model, base, config)
    made = type("Shaped" + base.__name__, (base,), names)
    _convert_alike(base.__name__, made.__name__)
    return made


@cache
def register_models(config: Any, base: Any) -> None:
    """Tell every Auto class that knows models of the plain family of the shaped ones."""
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None) if isinstance(auto, type) else None
        if mapping is None or base not in mapping:
            continue
        plain = mapping[base]
        if isinstance(plain, type):
            auto.register(config, shaped_model(plain, base), exist_ok=True)


def _convert_alike(plain: str, shaped: str) -> None:
    """Let the weights of a shaped form be renamed and merged as the plain one's between file and model."""
    mapping = get_checkpoint_conversion_mapping(plain)
    if mapping is not None:
        register_checkpoint_conversion_mapping(shaped, mapping, overwrite=True)


def remade(make: Callable[..., Any], *plain: Any) -> Any:
    """Return an empty object of a class made here, for its state to be put into."""
    made = make(*plain)
    return made.__new__(made)


def _reducing(make: Callable[..., Any], *plain: Any) -> Callable[[Any, int], tuple[Any, ...]]:
    """How objects of a class made here are pickled: by the plain classes, as its own name is found nowhere."""

    def __reduce_ex__(self: Any, protocol: int) -> tuple[Any, ...]:  # noqa: N807 - a method of the class made
        parts: Any = object.__reduce_ex__(self, max(protocol, 2))
        _, _, *state = parts
        return remade, (make, *plain), *state

    return __reduce_ex__
