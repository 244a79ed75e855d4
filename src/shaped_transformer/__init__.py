"""The Shaped Transformer library: define a network once, and sample its token covariance in three ways.

```python
arch = st.shaped_transformer(width=64, depth=16, gamma=0.5)
chain = st.chain.sample(arch, st.inputs.equicorrelated(tokens=4, correlation=0.2), samples=100, seed=0)
print(st.statistics.verdict(chain).sentence)
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import inputs, statistics
from .analysis.advice import Advice, advise
from .analysis.criterion import Criterion
from .analysis.stability import Stability, stability
from .design.activations import Activation, ShapedReLU, ShapedSmooth, Smooth
from .design.architecture import (
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
from .design.layers import MLP, Dense, Residual, ShapedAttention, SoftmaxAttention
from .errors import (
    DefinitionError,
    InputError,
    MissingExtra,
    NoProportionalLimit,
    NotConverged,
    ShapedTransformerError,
    StorageError,
)
from .version import __version__
from .views import chain, network, sde
from .views.ensemble import Ensemble

if TYPE_CHECKING:
    from . import bayes as bayes
    from . import explore as explore
    from . import hf as hf
    from . import nn as nn
    from . import ntk as ntk
    from . import probe as probe
    from . import rehearse as rehearse
    from . import training as training
    from . import weightless as weightless

LAZY = ("bayes", "explore", "hf", "nn", "ntk", "probe", "rehearse", "training", "weightless")
"""Parts that need more packages, most of them PyTorch: each is imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *LAZY})


__all__ = [
    "MLP",
    "PRESETS",
    "Activation",
    "Advice",
    "Architecture",
    "Criterion",
    "DefinitionError",
    "Dense",
    "Ensemble",
    "InputError",
    "MissingExtra",
    "NoProportionalLimit",
    "NotConverged",
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
