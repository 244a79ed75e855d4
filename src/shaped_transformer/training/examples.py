"""Numbered examples: the i-th depends on the seed and i alone, not on processes or restarts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import InputError
from .vocabulary import END, MASK, PAD, SPECIAL

IGNORED = -100
"""Label of tokens that the loss ignores."""
KEPT_SHARE, REPLACED_SHARE = 0.1, 0.1
"""Of the tokens to predict, these shares are kept or replaced by random tokens; the rest is masked (BERT)."""
HELD_OUT_STREAM = 1
"""Held-out windows have random numbers of their own."""

Example = dict[str, torch.Tensor]


class Windows(Dataset[Example]):
    """Windows of text: the start of the i-th is drawn from (seed, i), or the windows are evenly spaced.

    **Arguments:**

    - `documents`: the tokens of each document.
    - `length`: tokens of a window.
    - `count`: number of examples.
    - `seed`: of the windows and masks.
    - `vocabulary`: number of different tokens.
    - `masking`: share of tokens to predict; default `None`, the next token at every position.
    - `even`: whether the windows are evenly spaced, as held-out ones are; default random.

    **Raises:** `InputError` if the text is shorter than a window.
    """

    def __init__(
        self,
        documents: Sequence[NDArray[np.int64]],
        length: int,
        count: int,
        seed: int,
        *,
        vocabulary: int,
        masking: float | None = None,
        even: bool = False,
    ) -> None:
        self.stream = np.concatenate([part for d in documents for part in (d, [END])])
        if len(self.stream) < length:
            raise InputError(
                f"tokens: the {'held-out' if even else 'training'} text has {len(self.stream)} tokens, fewer than one "
                f"window of {length}: give more text, or shorter windows"
            )
        self.length, self.count, self.seed, self.even = length, count, seed, even
        self.masking, self.vocabulary = masking, vocabulary

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        starts = len(self.stream) - self.length + 1
        rng = np.random.default_rng([self.seed, HELD_OUT_STREAM if self.even else 0, index])
        start = index * (starts - 1) // max(self.count - 1, 1) if self.even else int(rng.integers(starts))
        tokens = self.stream[start : start + self.length]
        if self.masking is None:
            return {"input_ids": torch.from_numpy(tokens.copy()), "labels": torch.from_numpy(tokens.copy())}
        shown, labels = _mask_tokens(tokens, self.masking, self.vocabulary, rng)
        return {"input_ids": torch.from_numpy(shown), "labels": torch.from_numpy(labels)}


def _mask_tokens(
    tokens: NDArray[np.int64], share: float, vocabulary: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Input tokens and labels: a fixed number of tokens, at least one, is to be predicted."""
    chosen = rng.permutation(len(tokens))[: max(1, round(share * len(tokens)))]
    labels = np.full(len(tokens), IGNORED)
    labels[chosen] = tokens[chosen]
    choice = rng.random(len(chosen))
    others = rng.integers(len(SPECIAL), vocabulary, len(chosen))
    shown = tokens.copy()
    shown[chosen] = np.where(
        choice < KEPT_SHARE, tokens[chosen], np.where(choice < KEPT_SHARE + REPLACED_SHARE, others, MASK)
    )
    return shown, labels


class Table(Dataset[Example]):
    """Labelled examples: passes over all rows, each in an order drawn from (seed, pass).

    **Arguments:**

    - `columns`: arrays with one row per example, by the names of the model's inputs.
    - `count`: number of examples over all passes.
    - `seed`: of the orders; `None` keeps the order of the rows.
    """

    def __init__(self, columns: Mapping[str, Any], count: int, seed: int | None) -> None:
        self.columns, self.count, self.seed = columns, count, seed
        self.rows = len(next(iter(columns.values())))
        self.order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        epoch, row = divmod(index, self.rows)
        if self.seed is not None:
            if self.order is None or self.order[0] != epoch:
                self.order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows))
            row = int(self.order[1][row])
        return {name: torch.as_tensor(column[row]) for name, column in self.columns.items()}


def pad(texts: Sequence[NDArray[np.int64]], length: int) -> dict[str, NDArray[np.int64]]:
    """Return texts cut or padded to one length, with the attention mask of their tokens; both (texts, length)."""
    ids = np.full((len(texts), length), PAD)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text[:length]
    lengths = np.minimum([len(text) for text in texts], length)
    return {"input_ids": ids, "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64)}
