"""Shaped forms of Hugging Face's model families: configurations and models that stay shaped when saved and loaded.

A saved shaped model names its family in its model type, as in `"shaped-mistral"`. Its classes are derived from the
family's own on first use, because importing every family would take seconds.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from transformers import AutoConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ATTENTION = "shaped"
"""Name of shaped attention in Hugging Face's attention interface."""
PREFIX = "shaped-"
"""What a shaped family's model type adds to the plain one's."""
OPTIONS: dict[str, Any] = {"tau0": 1.0, "identity_gain": 1.0, "uniform_gain": 1.0}
"""Fields of a shaped configuration besides its family's own, with their defaults."""


class DeferredConfig:
    """Placeholder for the configuration class of a shaped family, which is made on first use."""

    family: str
    model_type: str

    def __new__(cls, **fields: Any) -> Any:
        return cls.resolve()(**fields)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """Return what `from_dict` of the actual class returns."""
        return cls.resolve().from_dict(config_dict, **options)

    @classmethod
    def resolve(cls) -> Any:
        """Return the actual class."""
        base: Any = CONFIG_MAPPING[cls.family]
        return shaped_config(base)


def make_loadable() -> None:
    """Register the shaped forms of all families of Hugging Face with the Auto classes."""
    for family in tuple(CONFIG_MAPPING):
        shaped = PREFIX + family
        if shaped not in CONFIG_MAPPING and not family.startswith(PREFIX):
            names = {"family": family, "model_type": shaped}
            AutoConfig.register(shaped, type(f"Deferred({family})", (DeferredConfig,), names))


@cache
def shaped_config(base: Any) -> Any:
    """Return the configuration class of a family's shaped form, and register it with `AutoConfig`.

    The plain class does not store the name of the attention; this one does so by a model type of its own.

    **Arguments:**

    - `base`: the plain configuration class.
    """

    def __post_init__(self: Any, **kwargs: Any) -> None:  # noqa: N807 - a method of the class below
        kwargs["attn_implementation"] = kwargs.get("attn_implementation") or ATTENTION
        base.__post_init__(self, **kwargs)
        own: Any = type(self)
        register_models(own, base)

    fields = {"__annotations__": {"tau0": float | None, "identity_gain": float, "uniform_gain": float}} | OPTIONS
    names = {"model_type": PREFIX + base.model_type, "__module__": __name__, "__post_init__": __post_init__}
    names["__reduce_ex__"] = _reduce_by(shaped_config, base)
    made: Any = type("Shaped" + base.__name__, (base,), fields | names)
    AutoConfig.register(PREFIX + base.model_type, made, exist_ok=True)
    _share_weight_conversion(base.model_type, PREFIX + base.model_type)
    return made


@cache
def shaped_model(base: Any, config: Any) -> Any:
    """Return the model class of a shaped form, which differs from the plain one in its configuration only.

    **Arguments:**

    - `base`: the plain model class.
    - `config`: the plain configuration class.
    """
    names = {"config_class": shaped_config(config), "__module__": __name__}
    names["__reduce_ex__"] = _reduce_by(shaped_model, base, config)
    made = type("Shaped" + base.__name__, (base,), names)
    _share_weight_conversion(base.__name__, made.__name__)
    return made


@cache
def register_models(config: Any, base: Any) -> None:
    """Register the shaped models of a family with every Auto class that knows the plain ones.

    **Arguments:**

    - `config`: the shaped configuration class.
    - `base`: the plain configuration class.
    """
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None) if isinstance(auto, type) else None
        if mapping is None or base not in mapping:
            continue
        plain = mapping[base]
        if isinstance(plain, type):
            auto.register(config, shaped_model(plain, base), exist_ok=True)


def _share_weight_conversion(plain: str, shaped: str) -> None:
    """Rename and merge weights between file and model for a shaped form as for the plain one."""
    mapping = get_checkpoint_conversion_mapping(plain)
    if mapping is not None:
        register_checkpoint_conversion_mapping(shaped, mapping, overwrite=True)


def empty_instance(make: Callable[..., Any], *plain: Any) -> Any:
    """Return an object of a derived class without state; unpickling calls this.

    **Arguments:**

    - `make`: `shaped_config` or `shaped_model`.
    - `plain`: the plain classes, its arguments.
    """
    made = make(*plain)
    return made.__new__(made)


def _reduce_by(make: Callable[..., Any], *plain: Any) -> Callable[[Any, int], tuple[Any, ...]]:
    """Return the `__reduce_ex__` of a derived class: by the plain classes, as the derived one is in no module."""

    def __reduce_ex__(self: Any, protocol: int) -> tuple[Any, ...]:  # noqa: N807 - a method of the derived class
        parts: Any = object.__reduce_ex__(self, max(protocol, 2))
        _, _, *state = parts
        return empty_instance, (make, *plain), *state

    return __reduce_ex__
