"""The state of each block during training: token covariance, effective rank, gains and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..nn.block import ShapedBlock
from ..nn.shaping import Shaping
from ..nn.skipinit import SkipInitAttention
from ..observables import effective_rank, mean_token_norm
from ..probe.observation import Observation, observed
from ..probe.tokens import Tokens

SEQUENCES, TOKENS = 4, 16
"""How much of a batch is watched, so that it costs little: its longest sequences, and evenly spaced tokens of each."""
DIGITS = 5
"""Significant digits that are kept."""


def blocks_of(model: nn.Module) -> list[ShapedBlock]:
    """Return the blocks of a model, first to last."""
    return [module for module in model.modules() if isinstance(module, ShapedBlock)]


@contextmanager
def watch_blocks(model: nn.Module, mask: Tensor | None = None) -> Iterator[dict[str, Any]]:
    """Watch the blocks of a model during one forward and backward pass.

    **Arguments:**

    - `model`: whose blocks are watched.
    - `mask`: (batch, tokens), 1 for tokens and 0 for the padding at the end; default no padding.

    **Returns:** a context whose value is a dictionary, filled when the context ends. For each block it holds the
    `covariance` V = XXᵀ/n of the output, (m, m), `effective_rank` and `token_norm` (tr V / m), each a mean over
    sequences; the `gradient` norm of the parameters; and the `identity_gain` and `uniform_gain` (or `softmax_gain`),
    means over heads. It stays empty if a covariance is not finite.
    """
    blocks = blocks_of(model)
    watched: dict[str, Any] = {}
    names: dict[str, nn.Module] = {f"block {i}": block.mlp for i, block in enumerate(blocks)}
    with observed(model, names, Observation(LongestSequences(mask)), attention=False) as observation:
        yield watched
    gains: dict[str, list[float]] = {}
    for block in blocks:
        for name, gain in _gains(block.attention.branch).items():
            gains.setdefault(name, []).append(float(gather(gain.detach()).mean()))
    gradients = gradient_norms(blocks)  # gathered, like the gains, by all processes, before one may return
    covariance = np.array([observation.layers[name].covariance for name in names])
    if not np.isfinite(covariance).all():
        return
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    watched.update(
        {
            "covariance": _rounded(covariance.mean(1)),
            "effective_rank": _rounded(effective_rank(eigenvalues).mean(1)),
            "token_norm": _rounded(mean_token_norm(covariance).mean(1)),
            "gradient": _rounded(gradients),
        }
        | {name: _rounded(np.array(values)) for name, values in gains.items()}
    )


def gradient_norms(blocks: list[ShapedBlock]) -> np.ndarray[Any, Any]:
    """Return the norm of the gradient of each block's parameters."""
    return torch.stack([gradient_norm(block) for block in blocks]).double().cpu().numpy()


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the norm of the gradient of all parameters."""
    return gather(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def gather(x: Tensor) -> Tensor:
    """Return a whole tensor, also if it is sharded over processes, which must then all call this."""
    return x.full_tensor() if isinstance(x, DTensor) else x


class LongestSequences(Tokens):
    """Chooses evenly spaced tokens of the longest sequences; of equal ones the first.

    **Arguments:**

    - `mask`: (batch, tokens), 1 for tokens and 0 for the padding at the end, or `None`.
    """

    def __init__(self, mask: Tensor | None) -> None:
        super().__init__({}, TOKENS, 0, batch_first=True)
        self._lengths = None if mask is None else mask.sum(1)

    def sequences(self, x: Tensor, name: str) -> list[Tensor]:
        """Return the chosen tokens of the chosen sequences, each (m, n)."""
        full = x.new_full(x.shape[:1], x.shape[1], dtype=torch.long)
        lengths = full if self._lengths is None else self._lengths
        rows = lengths.argsort(descending=True, stable=True)[:SEQUENCES]
        count = min(TOKENS, int(lengths[rows].min()))
        chosen = torch.arange(count, device=x.device) * (lengths[rows, None] - 1) // max(count - 1, 1)
        return list(x[rows[:, None], chosen])


def _gains(attention: nn.Module) -> dict[str, Tensor]:
    """The gains of an attention layer by name, one value per head."""
    if isinstance(attention, SkipInitAttention):
        return {"identity_gain": attention.identity_gain, "softmax_gain": attention.softmax_gain}
    shaping = getattr(attention, "shaping", None)
    if not isinstance(shaping, Shaping):
        return {}
    identity, uniform = shaping.gains()
    return {"identity_gain": identity, "uniform_gain": uniform}


def _rounded(values: np.ndarray[Any, Any]) -> Any:
    """Nested lists of rounded numbers; infinities and NaN become `None`, which JSON can hold."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
