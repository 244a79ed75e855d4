"""Entropy of attention, and its distance from uniform attention and from the identity."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..numerics.arrays import Floats


@dataclass(frozen=True)
class AttentionRow:
    """Numbers of one call of an attention layer, each (heads,): means over sequences and tokens.

    **Arguments:**

    - `entropy`: of the weights, over that of uniform attention to the tokens that are seen: 1 is uniform, 0 one token.
    - `from_uniform`, `from_identity`: half the sum of absolute differences of the weights, between 0 and 1.
    - `spread`: standard deviation of a row's logits, over the tokens that are seen.
    - `range`: largest difference of two logits in a row, of all sequences and tokens. Differences beyond about 100,
      at which weights are 0 in single precision, count as fewer.
    """

    entropy: Floats
    from_uniform: Floats
    from_identity: Floats
    spread: Floats
    range: Floats


def attention_row(output: Any, mask_of: Callable[[tuple[int, int]], Tensor | None]) -> AttentionRow | None:
    """Return the numbers of attention weights in the output of a module, or `None` where there are none.

    Weights are a tensor (batch, heads, tokens, tokens) beside the first entry of a tuple, whose rows sum to 1.

    **Arguments:**

    - `output`: of the module.
    - `mask_of`: shape (batch, tokens) → mask of the padding of such sequences, true for tokens, or `None`.
    """
    if not isinstance(output, tuple):
        return None
    weights = next(
        (x for x in output[1:] if isinstance(x, Tensor) and x.dim() == 4 and x.shape[-1] == x.shape[-2]), None
    )
    if weights is None or not weights.is_floating_point() or weights.shape[-1] < 2:
        return None
    a = weights.detach().double()
    sums = a.sum(-1)
    if not bool(((sums - 1).abs() < 1e-2).all()):
        return None
    seen = (a > 0).double()
    count = seen.sum(-1)
    uniform = seen / count[..., None]
    entropy = -(a * torch.where(a > 0, a, torch.ones_like(a)).log()).sum(-1)
    relative = torch.where(count > 1, entropy / count.clamp(min=2).log(), torch.ones_like(entropy))
    far = 0.5 * (a - uniform).abs().sum(-1)
    own = 1 - a.diagonal(dim1=-2, dim2=-1)
    rows = (count > 1).double()
    mask = mask_of((a.shape[0], a.shape[-1]))
    if mask is not None:
        rows = rows * mask[:, None].double().to(rows.device)
    total = rows.sum((0, 2)).clamp(min=1)

    def mean(x: Tensor) -> Floats:
        return np.asarray(((x * rows).sum((0, 2)) / total).cpu().numpy())

    logits = torch.where(a > 0, a, torch.ones_like(a)).log()  # up to a number for each row
    centred = (logits - (logits.sum(-1) / count.clamp(min=1))[..., None]) * seen
    spread = ((centred**2).sum(-1) / count.clamp(min=1)).sqrt()
    highest = torch.where(a > 0, logits, torch.full_like(a, -torch.inf)).amax(-1)
    lowest = torch.where(a > 0, logits, torch.full_like(a, torch.inf)).amin(-1)
    between = torch.where(rows > 0, highest - lowest, torch.zeros_like(highest)).amax((0, 2))
    return AttentionRow(
        mean(relative), mean(far), mean(own), mean(spread), np.asarray(between.cpu().numpy(), np.float64)
    )


@contextmanager
def eager(model: Any) -> Iterator[bool]:
    """Let a Hugging Face model compute attention weights while the context lasts; the value tells whether it does."""
    config = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    if before is None or not hasattr(model, "set_attn_implementation"):
        yield False
        return
    try:
        model.set_attn_implementation("eager")
    except (ValueError, ImportError):
        yield False
        return
    try:
        yield True
    finally:
        model.set_attn_implementation(before)
