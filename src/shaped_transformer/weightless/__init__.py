"""Weightless: any PyTorch model at initialisation, forward and backward, without its weights (extra `torch`).

A random weight matrix is known only by the vectors that it has met: its products are drawn one after another, each from
its exact distribution given the earlier ones (theory §7).
"""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.weightless") from None

from .gradients import GradientNorms, clip_grad_norm_, gradient_norms
from .models import build, from_config, redraw
from .optimisers import SGD, AdamW, Muon
from .table import Laws, ParameterLaw, laws

__all__ = [
    "SGD",
    "AdamW",
    "GradientNorms",
    "Laws",
    "Muon",
    "ParameterLaw",
    "build",
    "clip_grad_norm_",
    "from_config",
    "gradient_norms",
    "laws",
    "redraw",
]


def __dir__() -> list[str]:
    return sorted(__all__)
