"""Probe: what any PyTorch model does to its tokens, beside what its initialisation would do (extra `torch`)."""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.probe") from None

from .comparison import Band, Comparison
from .expectation import Expectation, expected
from .history import History, callback
from .measures import MEASURES
from .passes import run
from .result import ProbeResult
from .verdict import judge

__all__ = [
    "MEASURES",
    "Band",
    "Comparison",
    "Expectation",
    "History",
    "ProbeResult",
    "callback",
    "expected",
    "judge",
    "run",
]


def __dir__() -> list[str]:
    return sorted(__all__)
