"""Exact Bayesian inference with networks of finite width (extra `bayes` for `Regressor` and `InfiniteWidthKernel`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .deep_linear import DeepLinear, DeepLinearPosterior
from .outputs import Outputs, sample

if TYPE_CHECKING:
    from .kernel import InfiniteWidthKernel
    from .regressor import Regressor

ESTIMATORS = {"InfiniteWidthKernel": "kernel", "Regressor": "regressor"}
"""What needs scikit-learn, and its module, which is imported when it is first used."""

__all__ = ["DeepLinear", "DeepLinearPosterior", "InfiniteWidthKernel", "Outputs", "Regressor", "sample"]


def __getattr__(name: str) -> Any:
    if name not in ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingExtra("bayes", f"shaped_transformer.bayes.{name}") from None
    return getattr(import_module(f".{ESTIMATORS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
