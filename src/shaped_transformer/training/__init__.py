"""Training on real text and images (extra `training`): recipes, data, runs that can be resumed, and their reports.

Recipes are read and checked without PyTorch, which is imported when a run begins.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .recipe import Recipe, read
from .variants import VARIANTS

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "tensorboard", "platformdirs")
"""Packages of the extra that this part cannot do without."""

try:
    _complete = all(find_spec(package) for package in PACKAGES)
except ImportError:
    _complete = False
if not _complete:
    raise MissingExtra("training", "shaped_transformer.training")

if TYPE_CHECKING:
    from .folder import Outcome as Outcome
    from .run import train as train

LAZY = {"Outcome": ".folder", "train": ".run"}
"""Names whose modules import PyTorch, imported when first used."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = ["VARIANTS", "Outcome", "Recipe", "read", "train"]
