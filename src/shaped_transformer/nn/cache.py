"""The cache of decoding: keys, values and the running sum of values of all tokens so far."""

import torch
from torch import Tensor

from ..checks import check_counts


class LayerCache:
    """Keys, values and the sum of values of one attention layer.

    All rows of a batch have the same length. Capacity doubles when it is exhausted, so that a token costs O(1) copies.
    The sum of values is kept in float32 or better; with it the centring costs O(1) per token.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._sum: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add the keys and values of new tokens.

        **Arguments:**

        - `keys`, `values`: (batch, H', T, k) and (batch, H', T, v).

        **Returns:** all keys, all values, and for each new token the mean of the values up to it.
        """
        start, end = self.length, self.length + keys.shape[-2]
        self._keys, self._values = _with_capacity(self._keys, keys, end), _with_capacity(self._values, values, end)
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


def _with_capacity(kept: Tensor | None, new: Tensor, length: int) -> Tensor:
    """Return the kept tensor if `length` fits, otherwise a copy with twice that capacity."""
    if kept is not None and kept.shape[-2] >= length:
        return kept
    grown = new.new_zeros(*new.shape[:-2], max(2 * length, 64), new.shape[-1])
    if kept is not None:
        grown[..., : kept.shape[-2], :] = kept
    return grown


class Cache:
    """The cache of a causal model: one `LayerCache` for each block. It is written in place: for inference only.

    ```python
    model = st.nn.ShapedTransformer(width=32, depth=2, causal=True).eval()
    cache = st.nn.Cache(depth=2)
    with torch.no_grad():
        model(torch.randn(1, 5, 32), cache=cache)  # the prompt
        model(torch.randn(1, 1, 32), cache=cache)  # the next token, (1, 1, 32)
    cache.length  # 6
    ```

    **Arguments:**

    - `depth`: the number of blocks of the model.

    **Raises:** `InputError` if `depth` is not a whole number of at least 1.
    """

    def __init__(self, depth: int) -> None:
        check_counts(depth=depth)
        self.layers = tuple(LayerCache() for _ in range(depth))

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return self.layers[0].length
