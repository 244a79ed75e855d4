"""The shaped Transformer in PyTorch (extra `torch`): functions, layers, models.

`functional` has the pure functions, which the modules call; `from_architecture` turns any definition into a module.
"""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.nn") from None

from . import functional
from .activation import ShapedReLU
from .attention import ShapedAttention, SoftmaxAttention
from .block import BlockOptions, Residual, ShapedBlock
from .cache import Cache
from .convert import from_architecture
from .mlp import ShapedMLP
from .model import ShapedTransformer
from .rates import head_std, parameter_groups
from .shaping import Shaping, advance

__all__ = [
    "BlockOptions",
    "Cache",
    "Residual",
    "ShapedAttention",
    "ShapedBlock",
    "ShapedMLP",
    "ShapedReLU",
    "ShapedTransformer",
    "Shaping",
    "SoftmaxAttention",
    "advance",
    "from_architecture",
    "functional",
    "head_std",
    "parameter_groups",
]


def __dir__() -> list[str]:
    return sorted(__all__)
