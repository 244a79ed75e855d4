"""Tokens of one layer's output: which tensor, which tokens, and their Gram matrix."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..numerics.arrays import Floats

COLUMNS = 4096
"""Number of coordinates that are turned to float64 at a time."""

MASKS = ("attention_mask", "decoder_attention_mask", "src_key_padding_mask")
"""Names of masks of the padding in a batch, 1 for tokens; PyTorch's `src_key_padding_mask` is true for padding."""


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in a tensor, tuple, list, dictionary or dataclass; `None` if there is none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (tuple, list)):
        parts = list(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return None
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def padding_masks(batch: Any) -> dict[str, Tensor]:
    """Return the masks (batch, tokens) in a batch by their names, true for tokens."""
    if not isinstance(batch, Mapping):
        return {}
    found = {name: batch[name] for name in MASKS if isinstance(batch.get(name), Tensor) and batch[name].dim() == 2}
    return {name: mask == 0 if name == "src_key_padding_mask" else mask != 0 for name, mask in found.items()}


class Tokens:
    """Chooses the tokens of each sequence: no padding, and a sample of a long sequence.

    **Arguments:**

    - `masks`: of the padding, (batch, tokens), true for tokens, by name; each counts for layers of its length.
    - `limit`: number of tokens above which a sequence is represented by a sample of its tokens.
    - `seed`: of the sample.
    - `batch_first`: whether tensors are (batch, tokens, width), and not (tokens, batch, width).
    - `decoder`: whether the model has an encoder and a decoder, so that the decoder has a mask of its own.
    """

    def __init__(
        self, masks: Mapping[str, Tensor], limit: int, seed: int, *, batch_first: bool, decoder: bool = False
    ) -> None:
        self.masks, self.limit, self.seed, self.batch_first = masks, limit, seed, batch_first
        self.decoder, self.sampled = decoder, False
        self._chosen: dict[tuple[int, int, bool], list[Tensor]] = {}

    def mask(self, shape: tuple[int, int], name: str) -> Tensor | None:
        """Return the mask of a layer of sequences, (batch, tokens), or `None`."""
        own = self.decoder and "decoder" in name
        masks = (mask for key, mask in self.masks.items() if not self.decoder or key.startswith("decoder") == own)
        return next((mask for mask in masks if tuple(mask.shape) == shape), None)

    def sequences(self, x: Tensor, name: str) -> list[Tensor]:
        """Return the chosen tokens of each sequence, (m, n).

        **Raises:** `InputError` where x is no tensor of tokens.
        """
        if x.dim() == 2:
            x = x[None]
        elif not self.batch_first and x.dim() == 3:
            x = x.transpose(0, 1)
        if x.dim() != 3 or 0 in x.shape:
            raise InputError(
                f"{name} gives a tensor of shape {tuple(x.shape)}; expected (batch, tokens, width) or (tokens, width): "
                "choose other layers with layers="
            )
        if (key := (x.shape[0], x.shape[1], "decoder" in name)) not in self._chosen:
            mask = self.mask(key[:2], name)
            self._chosen[key] = [self._choose(mask, key[1], i) for i in range(x.shape[0])]
        return [one[rows.to(x.device)] for one, rows in zip(x, self._chosen[key], strict=True)]

    def _choose(self, mask: Tensor | None, tokens: int, sequence: int) -> Tensor:
        """Return the numbers of the chosen tokens of a sequence."""
        rows = torch.arange(tokens) if mask is None else mask[sequence].nonzero()[:, 0].cpu()
        if len(rows) == 0:
            raise InputError(f"sequence {sequence} of the batch is nothing but padding: leave it out")
        if len(rows) <= self.limit:
            return rows
        self.sampled = True
        random = np.random.default_rng([self.seed, sequence])
        return rows[np.sort(random.choice(len(rows), self.limit, replace=False))]


def covariance(x: Tensor) -> Floats:
    """Return XXᵀ/n in float64, (m, m), for X (m, n) of any precision."""
    x = x.detach()
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=device)
    for part in x.split(COLUMNS, 1):
        some = part.to(device, torch.float64)
        total.addmm_(some, some.T)
    return np.asarray((total / x.shape[1]).cpu().numpy())
