"""The Shaped Transformer library: define a network once, look at its token covariance three ways."""

from . import inputs, statistics
from .activations import Activation, ShapedReLU, ShapedSmooth, Smooth
from .advice import Advice, advise
from .architecture import (
    PRESETS,
    Architecture,
    deep_linear,
    post_norm_transformer,
    pre_norm_transformer,
    shaped_attention_only,
    shaped_mlp,
    shaped_transformer,
    skipless_transformer,
)
from .errors import DefinitionError, InputError, NoProportionalLimit, ShapedTransformerError, StorageError
from .layers import MLP, Dense, Residual, ShapedAttention, SoftmaxAttention
from .stability import Stability, stability
from .version import __version__
from .views import chain, network, sde
from .views.ensemble import Ensemble

__all__ = [
    "MLP",
    "PRESETS",
    "Activation",
    "Advice",
    "Architecture",
    "DefinitionError",
    "Dense",
    "Ensemble",
    "InputError",
    "NoProportionalLimit",
    "Residual",
    "ShapedAttention",
    "ShapedReLU",
    "ShapedSmooth",
    "ShapedTransformerError",
    "Smooth",
    "SoftmaxAttention",
    "Stability",
    "StorageError",
    "__version__",
    "advise",
    "chain",
    "deep_linear",
    "inputs",
    "network",
    "post_norm_transformer",
    "pre_norm_transformer",
    "sde",
    "shaped_attention_only",
    "shaped_mlp",
    "shaped_transformer",
    "skipless_transformer",
    "stability",
    "statistics",
]
