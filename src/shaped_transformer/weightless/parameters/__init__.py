"""Tensors that stand for unseen parameters, and what PyTorch's functions do with them.

Importing this package fills the table of what is served (`registry`).
"""

from . import attention, conversions, convolution, einsum, lookup, products, views  # noqa: F401
from .source import Source
from .tensor import View, WeightlessTensor

__all__ = ["Source", "View", "WeightlessTensor"]
