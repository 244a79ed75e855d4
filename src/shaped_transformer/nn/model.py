"""The shaped Transformer as a module: blocks one after another, on vectors of tokens."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import check_counts
from ..errors import InputError
from .block import ShapedBlock
from .cache import Cache
from .checks import check_vectors

POSITION_STD = 0.02
"""Of learned positions at initialisation: small beside the tokens' unit variance."""


class ShapedTransformer(nn.Module):
    """`depth` blocks of shaped attention and shaped MLP on token vectors of any origin [ST].

    ```python
    model = st.nn.ShapedTransformer(width=256, depth=24, heads=4, gamma=0.3, causal=True, rotary=True)
    y = model(x)  # (batch, tokens, 256)
    ```

    **Arguments:**

    - `width`, `depth`, `heads`: n, the number of blocks d, and H, default 1.
    - `max_positions`: for learned positions, added to the input; default `None`, none.
    - `checkpointing`: whether blocks are computed again in the backward pass, which saves memory; default no.
    - further those of `BlockOptions`, by name: `gamma`, `tau0`, `causal`, `rotary`, `norm`, `shaping`, ….

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

        - `x`: (batch, T, n). At initialisation the theory speaks of tokens with ‖x‖²/n of order 1.
        - `attn_mask`: boolean (true: may look) or additive, broadcastable to (batch, heads, T, keys); padding is
          (batch, 1, 1, keys). With a cache the keys are all tokens so far, not those of the piece.
        - `positions`: of the tokens, (T,) or (batch, T); by default they count from 0, or from the cache's length.
        - `cache`: `Cache(depth)`, for decoding piece by piece with a causal model; it is written.

        **Raises:** `InputError` for another width, a mask or a cache that does not fit, or more positions than were
        learned.
        """
        check_vectors(x, self.width)
        if cache is not None and (not isinstance(cache, Cache) or len(cache.layers) != len(self.blocks)):
            got = f"one of depth {len(cache.layers)}" if isinstance(cache, Cache) else type(cache).__name__
            raise InputError(f"cache must be st.nn.Cache({len(self.blocks)}), a layer for each block (got {got})")
        start = 0 if cache is None else cache.length
        if self.positions is not None:
            at = torch.arange(x.shape[1], device=x.device) + start if positions is None else positions
            if positions is None and start + x.shape[1] > self.positions.num_embeddings:
                raise InputError(
                    f"{start + x.shape[1]} tokens, but positions were learned for {self.positions.num_embeddings}: "
                    "give max_positions, or use rotary=True"
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
