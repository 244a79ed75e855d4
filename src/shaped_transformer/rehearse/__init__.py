"""Rehearse: the first optimiser steps of a configuration at its true size, without its weights (extra `torch`)."""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtra("torch", "shaped_transformer.rehearse") from None

from .rehearsal import Rehearsal
from .steps import run

__all__ = ["Rehearsal", "run"]


def __dir__() -> list[str]:
    return sorted(__all__)
