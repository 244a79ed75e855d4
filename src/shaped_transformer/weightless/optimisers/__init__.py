"""Optimisers of weightless models, exact in distribution."""

from .adamw import AdamW
from .muon import Muon
from .sgd import SGD

__all__ = ["SGD", "AdamW", "Muon"]
