"""What training does inside: covariance, effective rank, gains and gradients of each block, every so many steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .. import statistics
from ..nn.block import ShapedBlock
from ..nn.shaping import Shaping
from ..nn.skipinit import SkipInitAttention

SEQUENCES, TOKENS = 4, 16
"""Of each batch the longest so many sequences, and of these so many tokens that lie evenly: their cost is small."""
DIGITS = 5


def blocks_of(model: nn.Module) -> list[ShapedBlock]:
    """Return the blocks of a model in order."""
    return [module for module in model.modules() if isinstance(module, ShapedBlock)]


@contextmanager
def watched(model: nn.Module, mask: Tensor | None = None) -> Iterator[dict[str, Any]]:
    """Watch one forward and backward pass.

    **Arguments:** `mask`: (batch, tokens), where there are tokens and not padding at the end; default everywhere.

    **Returns:** a context whose value is filled when it ends: of each block the `covariance` V = XXᵀ/n of its output,
    (m, m) as a mean over sequences, `effective_rank` and `token_norm` (tr V / m), each a mean over sequences, the
    `gradient` norm of its parameters, and its `identity_gain` and `uniform_gain` (or `softmax_gain`), means over heads.
    """
    blocks = blocks_of(model)
    outputs: list[Tensor] = []
    seen: dict[str, Any] = {}

    def look(_: Any, __: Any, x: Tensor) -> None:
        outputs.append(_covariance(x, mask))

    handles = [block.mlp.register_forward_hook(look) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    gains: dict[str, list[float]] = {}
    for block in blocks:
        for name, gain in _gains(block.attention.branch).items():
            gains.setdefault(name, []).append(float(whole(gain.detach()).mean()))
    gradients = gradient_norms(blocks)  # and gains: asked for by all processes, whatever each sees below
    covariance = torch.stack(outputs[: len(blocks)]).double().cpu().numpy()
    if not np.isfinite(covariance).all():
        return
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    seen.update(
        {
            "covariance": _short(covariance.mean(1)),
            "effective_rank": _short(statistics.effective_rank(eigenvalues).mean(1)),
            "token_norm": _short(statistics.mean_token_norm(covariance).mean(1)),
            "gradient": _short(gradients),
        }
        | {name: _short(np.array(values)) for name, values in gains.items()}
    )


def gradient_norms(blocks: list[ShapedBlock]) -> np.ndarray[Any, Any]:
    """Return the norm of the gradient of each block's parameters."""
    return torch.stack([gradient_norm(block) for block in blocks]).double().cpu().numpy()


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the norm of the gradient of all parameters."""
    return whole(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def whole(x: Tensor) -> Tensor:
    """Return a tensor that may lie in parts on several processes; these ask for it together."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def _covariance(x: Tensor, mask: Tensor | None) -> Tensor:
    """V of evenly spaced tokens of the longest sequences, the first of equals, (sequences, m, m), in float32."""
    lengths = x.new_full(x.shape[:1], x.shape[1], dtype=torch.long) if mask is None else mask.sum(1)
    rows = lengths.argsort(descending=True, stable=True)[:SEQUENCES]
    tokens = int(lengths[rows].min())
    count = min(TOKENS, tokens)
    chosen = torch.arange(count, device=x.device) * (lengths[rows, None] - 1) // max(count - 1, 1)
    some = x.detach()[rows[:, None], chosen].float()
    return some @ some.transpose(1, 2) / x.shape[-1]


def _gains(attention: nn.Module) -> dict[str, Tensor]:
    if isinstance(attention, SkipInitAttention):
        return {"identity_gain": attention.identity_gain, "softmax_gain": attention.softmax_gain}
    shaping = getattr(attention, "shaping", None)
    if not isinstance(shaping, Shaping):
        return {}
    identity, uniform = shaping.gains()
    return {"identity_gain": identity, "uniform_gain": uniform}


def _short(values: np.ndarray[Any, Any]) -> Any:
    """Numbers of five digits, as lists; what is not finite becomes `None`, for JSON knows no infinity."""
    if values.ndim > 1:
        return [_short(row) for row in values]
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
