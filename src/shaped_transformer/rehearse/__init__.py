"""Rehearse: the first optimiser steps of a configuration at its true size, without its weights (extra `torch`)."""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.rehearse") from None

from .coordinates import CoordinateCheck, coordinate_check
from .parametrisations import Parametrised, mup, shaped, standard
from .rehearsal import Rehearsal
from .scaling import scaled
from .slopes import Slope
from .steps import run

__all__ = [
    "CoordinateCheck",
    "Parametrised",
    "Rehearsal",
    "Slope",
    "coordinate_check",
    "mup",
    "run",
    "scaled",
    "shaped",
    "standard",
]


def __dir__() -> list[str]:
    return sorted(__all__)
