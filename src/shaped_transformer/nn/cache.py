"""Keys, values and the running sum of values of what was decoded so far."""

import torch
from torch import Tensor

from ..checks import check_counts


class LayerCache:
    """What one attention layer keeps of earlier tokens; room doubles as needed, so that a token costs O(1) copies.

    All rows of a batch have the same length. The sum of values is kept in float32 or better, and makes the centring
    O(1) per token.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._sum: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add the keys and values of new tokens, (batch, H', T, ·).

        **Returns:** all keys, all values, and for each new token the mean of the values up to it.
        """
        start, end = self.length, self.length + keys.shape[-2]
        self._keys, self._values = _with_room(self._keys, keys, end), _with_room(self._values, values, end)
        self._keys[..., start:end, :], self._values[..., start:end, :] = keys, values
        sums = values.to(torch.promote_types(values.dtype, torch.float32))
        sums = sums if end - start == 1 else sums.cumsum(-2)
        if self._sum is not None:
            sums = sums + self._sum
        self._sum, self.length = sums[..., -1:, :], end
        if end - start == 1:
            return self._keys[..., :end, :], self._values[..., :end, :], sums / end
        counts = torch.arange(start + 1, end + 1, device=values.device, dtype=sums.dtype)[:, None]
        return self._keys[..., :end, :], self._values[..., :end, :], sums / counts


def _with_room(kept: Tensor | None, new: Tensor, length: int) -> Tensor:
    """The kept tensor, or one of twice the room with its content, if `length` does not fit."""
    if kept is not None and kept.shape[-2] >= length:
        return kept
    grown = new.new_zeros(*new.shape[:-2], max(2 * length, 64), new.shape[-1])
    if kept is not None:
        grown[..., : kept.shape[-2], :] = kept
    return grown


class Cache:
    """One `LayerCache` for each block of a model; for inference only, as it is written in place."""

    def __init__(self, depth: int) -> None:
        check_counts(depth=depth)
        self.layers = tuple(LayerCache() for _ in range(depth))

    @property
    def length(self) -> int:
        """How many tokens were seen."""
        return self.layers[0].length
