"""Byte-pair tokens, learnt from the training text alone; tokenizer and tokens are kept in the user's cache."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..errors import StorageError
from ..io.files import read_arrays, write_arrays
from .text import Text

PAD, END, MASK = 0, 1, 2
SPECIAL = ("<pad>", "<end>", "<mask>")
"""Padding; what stands between documents; what hides a token."""
FORMAT = 2
"""Of what lies in the cache; another number is another place."""
KEPT = {"tokens", "lengths", "tokenizer"}
"""What lies there."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer, and what it makes of the documents: one array a document."""

    tokenizer: PreTrainedTokenizerFast
    train: tuple[NDArray[np.int64], ...]
    held_out: tuple[NDArray[np.int64], ...]


def tokenize(text: Text, size: int) -> Tokens:
    """Return the tokens of all documents, from the cache where they were made before.

    Where that is damaged they are made again, and where it cannot be written each time.

    **Arguments:** `text`: the documents; `size`: of the vocabulary, special tokens and all bytes included.
    """
    key = hashlib.sha256(f"{FORMAT} {text.sha256} {size}".encode()).hexdigest()[:16]
    place = cache_folder() / f"tokens-{key}.npz"  # one file, so that several processes may make it at once
    kept = None
    with suppress(StorageError):
        kept = read_arrays(place)
    if kept is None or kept.keys() != KEPT:
        kept = _make(text, size)
        with suppress(StorageError):
            write_arrays(place, kept)
    pieces = np.split(kept["tokens"].astype(np.int64), np.cumsum(kept["lengths"])[:-1])
    tokenizer = _tokenizer(kept["tokenizer"].tobytes().decode("utf-8"))
    return Tokens(tokenizer, tuple(pieces[: len(text.train)]), tuple(pieces[len(text.train) :]))


def encode(tokens: Tokens, texts: list[str]) -> list[NDArray[np.int64]]:
    """Return the tokens of further texts."""
    found = tokens.tokenizer.backend_tokenizer.encode_batch(texts)  # 22,000 paragraphs take a second
    return [np.array(each.ids, dtype=np.int64) for each in found]


def unigram_entropy(documents: tuple[NDArray[np.int64], ...], size: int) -> float:
    """Return −Σ p log p in nats of the tokens' frequencies: the loss of who knows these and nothing else."""
    counts = np.bincount(np.concatenate(documents), minlength=size)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def cache_folder() -> Path:
    """Return where things are kept that can be made again: XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shaped-transformer"


def _make(text: Text, size: int) -> dict[str, NDArray[Any]]:
    """Learn a tokenizer and apply it; what is kept of both."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d.text for d in text.train), trainer)
    found = [e.ids for e in tokenizer.encode_batch([d.text for d in (*text.train, *text.held_out)])]
    return {
        "tokens": np.concatenate(found).astype(np.uint32),
        "lengths": np.array([len(ids) for ids in found]),
        "tokenizer": np.frombuffer(tokenizer.to_str().encode("utf-8"), dtype=np.uint8),
    }


def _tokenizer(described: str) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "eos_token", "mask_token"), SPECIAL, strict=True))
    made = Tokenizer.from_str(described)
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)
