"""Byte-pair tokens, learnt from the training text alone; tokenizer and tokens are cached on disk."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..errors import StorageError
from ..io.files import read_arrays, write_arrays
from .text import Text

PAD, END, MASK = 0, 1, 2
SPECIAL = ("<pad>", "<end>", "<mask>")
"""Padding, the separator of documents, and the token that hides another."""
CACHE_FORMAT = 2
"""Version of the cached arrays; it is part of the file's name, so that other versions are ignored."""
CACHED_ARRAYS = {"tokens", "lengths", "tokenizer"}


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the tokens of the documents, one array per document."""

    tokenizer: PreTrainedTokenizerFast
    train: tuple[NDArray[np.int64], ...]
    held_out: tuple[NDArray[np.int64], ...]
    validation: tuple[NDArray[np.int64], ...] = ()


def tokenize(text: Text, size: int, described: str | None = None) -> Tokens:
    """Return the tokens of all documents, from the cache if they are there.

    A damaged cache file is replaced. If the cache cannot be written, the tokenizer is trained anew in each call.

    **Arguments:**

    - `text`: the documents.
    - `size`: of the vocabulary, including the special tokens and all bytes.
    - `described`: a tokenizer as its library's JSON; default `None`, one that is trained on the training text.
    """
    made_by = str(size) if described is None else hashlib.sha256(described.encode()).hexdigest()
    split = f" {len(text.validation)} apart" if text.validation else ""
    key = hashlib.sha256(f"{CACHE_FORMAT} {text.sha256} {made_by}{split}".encode()).hexdigest()[:16]
    file = cache_folder() / f"tokens-{key}.npz"  # one file, so that several processes may write it at once
    cached = None
    with suppress(StorageError):
        cached = read_arrays(file)
    if cached is None or cached.keys() != CACHED_ARRAYS:
        cached = _apply(_trained(text, size) if described is None else Tokenizer.from_str(described), text)
        with suppress(StorageError):
            write_arrays(file, cached)
    pieces = np.split(cached["tokens"].astype(np.int64), np.cumsum(cached["lengths"])[:-1])
    tokenizer = _load_tokenizer(cached["tokenizer"].tobytes().decode("utf-8"))
    ends = np.cumsum([len(text.train), len(text.held_out)])
    return Tokens(tokenizer, *(tuple(pieces[part]) for part in (slice(ends[0]), slice(*ends), slice(ends[1], None))))


def encode(tokens: Tokens, texts: list[str]) -> list[NDArray[np.int64]]:
    """Return the tokens of further texts."""
    found = tokens.tokenizer.backend_tokenizer.encode_batch(texts)  # 22,000 paragraphs take a second
    return [np.array(each.ids, dtype=np.int64) for each in found]


def unigram_entropy(documents: tuple[NDArray[np.int64], ...], size: int) -> float:
    """Return the entropy −Σ p log p of the tokens' frequencies, in nats: the loss of a model that knows only them."""
    counts = np.bincount(np.concatenate(documents), minlength=size)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def cache_folder() -> Path:
    """Return the library's folder in the user's cache; on Linux inside `XDG_CACHE_HOME`, by default `~/.cache`."""
    return user_cache_path("shaped-transformer", appauthor=False)


def _trained(text: Text, size: int) -> Tokenizer:
    """Train a tokenizer on the training text."""
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
    return tokenizer


def _apply(tokenizer: Tokenizer, text: Text) -> dict[str, NDArray[Any]]:
    """Apply a tokenizer to all documents; the arrays that are cached."""
    found = [e.ids for e in tokenizer.encode_batch([d.text for d in (*text.train, *text.held_out, *text.validation)])]
    return {
        "tokens": np.concatenate(found).astype(np.uint32),
        "lengths": np.array([len(ids) for ids in found]),
        "tokenizer": np.frombuffer(tokenizer.to_str().encode("utf-8"), dtype=np.uint8),
    }


def _load_tokenizer(described: str) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "eos_token", "mask_token"), SPECIAL, strict=True))
    tokenizer = Tokenizer.from_str(described)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
