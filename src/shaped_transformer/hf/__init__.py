"""The shaped Transformer for Hugging Face (extra `hf`): models of its own, and shaped attention in existing models.

Importing this package registers its models and the shaped forms of existing ones with the Auto classes, and the
attention "shaped" with Hugging Face's attention interface.
"""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError:
    raise MissingExtra("hf", "shaped_transformer.hf") from None

from .config import ShapedTransformerConfig
from .images import ShapedTransformerForImageClassification
from .modeling import (
    ShapedTransformerForCausalLM,
    ShapedTransformerForMaskedLM,
    ShapedTransformerForSequenceClassification,
    ShapedTransformerModel,
)
from .switch import register, shape_

register()

__all__ = [
    "ShapedTransformerConfig",
    "ShapedTransformerForCausalLM",
    "ShapedTransformerForImageClassification",
    "ShapedTransformerForMaskedLM",
    "ShapedTransformerForSequenceClassification",
    "ShapedTransformerModel",
    "register",
    "shape_",
]


def __dir__() -> list[str]:
    return sorted(__all__)
