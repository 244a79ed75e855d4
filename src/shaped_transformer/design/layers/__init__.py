"""The layers: a file for each, with its definition and how it acts in the three views."""

from .attention import ShapedAttention, SoftmaxAttention
from .base import Branch, Layer
from .dense import Dense
from .mlp import MLP
from .residual import Residual

__all__ = ["MLP", "Branch", "Dense", "Layer", "Residual", "ShapedAttention", "SoftmaxAttention"]
