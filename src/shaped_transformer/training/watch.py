"""What training does inside: covariance, effective rank, gains and gradients of each block, every so many steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import statistics
from ..nn.block import ShapedBlock
from ..nn.shaping import Shaping
from ..nn.skipinit import SkipInitAttention

SEQUENCES, TOKENS = 4, 16
"""Of each batch so many sequences, and of these so many tokens that lie evenly, are looked at: their cost is small."""
DIGITS = 5


def blocks_of(model: nn.Module) -> list[ShapedBlock]:
    """Return the blocks of a model in order."""
    return [module for module in model.modules() if isinstance(module, ShapedBlock)]


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Watch one forward and backward pass.

    **Returns:** a context whose value is filled when it ends: of each block the `covariance` V = XXᵀ/n of its output,
    (m, m) as a mean over sequences, `effective_rank` and `token_norm` (tr V / m), each a mean over sequences, the
    `gradient` norm of its parameters, and its `identity_gain` and `uniform_gain` (or `softmax_gain`), means over heads.
    """
    blocks = blocks_of(model)
    outputs: list[Tensor] = []
    seen: dict[str, Any] = {}
    handles = [block.mlp.register_forward_hook(lambda _, __, x: outputs.append(_covariance(x))) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    covariance = torch.stack(outputs[: len(blocks)]).double().cpu().numpy()
    if not np.isfinite(covariance).all():
        return
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    gains: dict[str, list[float]] = {}
    for block in blocks:
        for name, gain in _gains(block.attention.branch).items():
            gains.setdefault(name, []).append(float(gain.detach().mean()))
    seen.update(
        {
            "covariance": _short(covariance.mean(1)),
            "effective_rank": _short(statistics.effective_rank(eigenvalues).mean(1)),
            "token_norm": _short(statistics.mean_token_norm(covariance).mean(1)),
            "gradient": _short(gradient_norms(blocks)),
        }
        | {name: _short(np.array(values)) for name, values in gains.items()}
    )


def gradient_norms(blocks: list[ShapedBlock]) -> np.ndarray[Any, Any]:
    """Return the norm of the gradient of each block's parameters."""
    norms = [torch.nn.utils.get_total_norm([p.grad for p in b.parameters() if p.grad is not None]) for b in blocks]
    return torch.stack(norms).double().cpu().numpy()


def _covariance(x: Tensor) -> Tensor:
    """V of evenly spaced tokens of the first sequences, (sequences, m, m), in float32."""
    tokens = x.shape[1]
    chosen = torch.linspace(0, tokens - 1, min(TOKENS, tokens), device=x.device).long()
    some = x.detach()[:SEQUENCES, chosen].float()
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
