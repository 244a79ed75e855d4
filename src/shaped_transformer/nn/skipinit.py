"""Value-SkipInit attention, a baseline: it starts as the identity and learns to attend to other tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from .attention import SoftmaxAttention
from .functional import own_value


class SkipInitAttention(SoftmaxAttention):
    """Value-SkipInit: A = α·I + β·softmax(Q Kᵀ/√n_k), with α and β per head, trained from α = 1 and β = 0.

    The attention of "Deep Transformers without Shortcuts" (He et al. 2023) and "Simplifying Transformer Blocks" (He and
    Hofmann 2024); the latter compare it with shaped attention.

    **Arguments:** as in `SoftmaxAttention`.

    **Raises:** `InputError` for widths and heads that do not fit.
    """

    def __init__(self, width: int, heads: int = 1, **options: Any) -> None:
        super().__init__(width, heads, **options)
        self.identity_gain = nn.Parameter(torch.ones(heads))
        self.softmax_gain = nn.Parameter(torch.zeros(heads))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        softmax = super().mix(query, key, value, **options)
        own = own_value(value, options["query_positions"]).repeat_interleave(self.heads // self.kv_heads, dim=-3)
        return self.identity_gain.view(-1, 1, 1) * own + self.softmax_gain.view(-1, 1, 1) * softmax
