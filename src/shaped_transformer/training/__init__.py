"""Training on real text and images (extra `training`): recipes, data, runs that can be killed, and their reports."""

from ..errors import MissingExtra

try:
    import tokenizers as _tokenizers  # noqa: F401
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
    from torch.utils import tensorboard as _tensorboard  # noqa: F401
except ImportError:
    raise MissingExtra("training", "shaped_transformer.training") from None

from .recipe import Recipe, read
from .run import Outcome, is_first_process, train
from .variants import VARIANTS

__all__ = ["VARIANTS", "Outcome", "Recipe", "is_first_process", "read", "train"]
