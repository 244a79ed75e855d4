"""The shaped Transformer as a module: a stack of blocks on token vectors."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import check_counts
from ..design.architecture import default_gamma
from ..errors import InputError
from .block import ShapedBlock
from .cache import Cache
from .checks import check_vectors

POSITION_STD = 0.02
"""Standard deviation of learned positions at initialisation, small beside the tokens' unit variance."""


class ShapedTransformer(nn.Module):
    """The shaped Transformer: blocks of shaped attention and shaped MLP on token vectors [ST].

    ```python
    model = st.nn.ShapedTransformer(width=64, depth=6, heads=4, gamma=0.3, causal=True, rotary=True)
    model(torch.randn(2, 9, 64))  # (2, 9, 64)
    ```

    **Arguments:**

    - `width`: n, the number of coordinates of a token.
    - `depth`: d, the number of blocks.
    - `heads`: H, default 1.
    - `max_positions`: the number of learned positions, which are added to the input; default `None`, no such positions.
    - `checkpointing`: whether blocks are recomputed in the backward pass, which saves memory; default no.
    - further options by name: those of `BlockOptions`, such as `tau0`, `causal`, `rotary` and `norm`. The default of
      `gamma` is 0.5/√depth, with which networks of any depth are stable (docs/choosing.md).

    **Raises:** `DefinitionError` or `InputError` for values that do not fit.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int = 1,
        *,
        max_positions: int | None = None,
        checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        check_counts(width=width, depth=depth)
        self.width, self.checkpointing = width, checkpointing
        self.positions = None if max_positions is None else nn.Embedding(max_positions, width)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=POSITION_STD)
        options.setdefault("gamma", default_gamma(depth))
        self.blocks = nn.ModuleList(ShapedBlock(width, heads, **options) for _ in range(depth))

    def forward(
        self,
        x: Tensor,
        *,
        attn_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return the token vectors after the last block, (batch, T, n).

        **Arguments:**

        - `x`: token vectors, (batch, T, n). The theory of initialisation holds for ‖x‖²/n of order 1.
        - `attn_mask`: boolean (true: may attend) or additive, broadcastable to (batch, heads, T, keys); for padding
          (batch, 1, 1, keys). With a cache the keys are those of all tokens so far. Default no mask.
        - `positions`: of the tokens, (T,) or (batch, T); by default they count from 0, or from the cache's length.
        - `cache`: `Cache(depth)`, to decode with a causal model in several calls; the new tokens are added to it.
          Default no cache.

        **Returns:** (batch, T, n).

        **Raises:** `InputError` for another width, a mask or a cache that does not fit, or more tokens than learned
        positions.
        """
        check_vectors(x, self.width)
        if cache is not None and (not isinstance(cache, Cache) or len(cache.layers) != len(self.blocks)):
            got = f"one of depth {len(cache.layers)}" if isinstance(cache, Cache) else type(cache).__name__
            raise InputError(f"cache must be st.nn.Cache({len(self.blocks)}), one layer for each block (got {got})")
        start = 0 if cache is None else cache.length
        if self.positions is not None:
            at = torch.arange(x.shape[1], device=x.device) + start if positions is None else positions
            if positions is None and start + x.shape[1] > self.positions.num_embeddings:
                raise InputError(
                    f"the model has learned positions for {self.positions.num_embeddings} tokens "
                    f"(got {start + x.shape[1]}): give a larger max_positions, or rotary=True"
                )
            x = x + self.positions(at)
        for index, block in enumerate(self.blocks):
            inputs = {"attn_mask": attn_mask, "positions": positions}
            if cache is not None:
                x = block(x, cache=cache.layers[index], **inputs)
            elif self.checkpointing and self.training:
                x = checkpoint(partial(block, **inputs), x, use_reentrant=False)
            else:
                x = block(x, **inputs)
        return x
