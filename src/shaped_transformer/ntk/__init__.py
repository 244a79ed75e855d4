"""Neural tangent kernels of real and weightless networks, and how much they vary at finite width (extra `torch`).

Θ = J Jᵀ, J the derivatives of the outputs by the parameters. Without weights it is made of inner products alone
(theory §8).
"""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.ntk") from None

from .kernel import of
from .measured import MeasuredDispersion, measure_dispersion
from .modules import module
from .norms import StreamNorms, stream_norms
from .perceptron import Perceptron
from .sampling import sample
from .theory import dispersion, limit_dispersion

__all__ = [
    "MeasuredDispersion",
    "Perceptron",
    "StreamNorms",
    "dispersion",
    "limit_dispersion",
    "measure_dispersion",
    "module",
    "of",
    "sample",
    "stream_norms",
]


def __dir__() -> list[str]:
    return sorted(__all__)
