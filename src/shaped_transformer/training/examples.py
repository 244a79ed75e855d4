"""Examples by number: the i-th is the same whoever asks, whatever the processes and restarts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import InputError
from .vocabulary import END, MASK, PAD, SPECIAL

IGNORED = -100
"""Label of what is not to be guessed."""
KEPT, REPLACED = 0.1, 0.1
"""Of the tokens to be guessed these shares are left as they are, or replaced by another; the rest is masked (BERT)."""
HELD_OUT_STREAM = 1

Example = dict[str, torch.Tensor]


class Windows(Dataset[Example]):
    """Windows of text: the i-th begins at a place drawn from (seed, i); held-out ones lie evenly.

    **Arguments:** `documents`: tokens of each; `length`: of a window; `count`: how many examples there are; `masking`:
    share of tokens to be guessed, or `None` for the next token everywhere; `vocabulary`: how many tokens there are;
    `even`: whether the windows lie evenly instead of at random.
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
        places = len(self.stream) - self.length + 1
        rng = np.random.default_rng([self.seed, HELD_OUT_STREAM if self.even else 0, index])
        start = index * (places - 1) // max(self.count - 1, 1) if self.even else int(rng.integers(places))
        tokens = self.stream[start : start + self.length]
        if self.masking is None:
            return {"input_ids": torch.from_numpy(tokens.copy()), "labels": torch.from_numpy(tokens.copy())}
        shown, labels = _masked(tokens, self.masking, self.vocabulary, rng)
        return {"input_ids": torch.from_numpy(shown), "labels": torch.from_numpy(labels)}


def _masked(
    tokens: NDArray[np.int64], share: float, vocabulary: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is shown, and what is to be guessed: always the same number of tokens, at least one."""
    chosen = rng.permutation(len(tokens))[: max(1, round(share * len(tokens)))]
    labels = np.full(len(tokens), IGNORED)
    labels[chosen] = tokens[chosen]
    how = rng.random(len(chosen))
    others = rng.integers(len(SPECIAL), vocabulary, len(chosen))
    shown = tokens.copy()
    shown[chosen] = np.where(how < KEPT, tokens[chosen], np.where(how < KEPT + REPLACED, others, MASK))
    return shown, labels


class Table(Dataset[Example]):
    """Labelled examples: passes over all of them, each in an order drawn from (seed, pass).

    **Arguments:** `columns`: arrays with one row an example, by the names that the model knows; `count`: how many
    examples there are, passes counted; `seed`: of the order, or `None` for the order as it is.
    """

    def __init__(self, columns: Mapping[str, Any], count: int, seed: int | None) -> None:
        self.columns, self.count, self.seed = columns, count, seed
        self.rows = len(next(iter(columns.values())))
        self.order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        turn, place = divmod(index, self.rows)
        if self.seed is not None:
            if self.order is None or self.order[0] != turn:
                self.order = (turn, np.random.default_rng([self.seed, turn]).permutation(self.rows))
            place = int(self.order[1][place])
        return {name: torch.as_tensor(column[place]) for name, column in self.columns.items()}


def padded(texts: Sequence[NDArray[np.int64]], length: int) -> dict[str, NDArray[np.int64]]:
    """Return texts cut or padded to one length, and where they are."""
    ids = np.full((len(texts), length), PAD)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text[:length]
    lengths = np.minimum([len(text) for text in texts], length)
    return {"input_ids": ids, "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64)}
