"""Byte-pair tokens, learnt from the training text alone; tokenizer and tokens are kept in the user's cache."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..errors import StorageError
from ..files import replacing
from .text import Text

PAD, END, MASK = 0, 1, 2
SPECIAL = ("<pad>", "<end>", "<mask>")
"""Padding; what stands between documents; what hides a token."""
FORMAT = 1
"""Of what lies in the cache; another number is another place."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer, and what it makes of the documents: one array a document."""

    tokenizer: PreTrainedTokenizerFast
    train: tuple[NDArray[np.int64], ...]
    held_out: tuple[NDArray[np.int64], ...]


def tokenize(text: Text, size: int) -> Tokens:
    """Return the tokens of all documents, from the cache where they were made before.

    **Arguments:** `text`: the documents; `size`: of the vocabulary, special tokens and all bytes included.
    """
    key = hashlib.sha256(f"{FORMAT} {text.sha256} {size}".encode()).hexdigest()[:16]
    place = cache_folder() / f"tokens-{key}"
    if not (place / "tokens.npz").exists():
        _make(text, size, place)
    tokenizer = _tokenizer(str(place / "tokenizer.json"))
    try:
        with np.load(place / "tokens.npz") as kept:
            pieces = np.split(kept["tokens"].astype(np.int64), np.cumsum(kept["lengths"])[:-1])
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"the cache {place} is damaged ({error}): remove it") from None
    return Tokens(tokenizer, tuple(pieces[: len(text.train)]), tuple(pieces[len(text.train) :]))


def encode(tokens: Tokens, texts: list[str]) -> list[NDArray[np.int64]]:
    """Return the tokens of further texts."""
    return [np.array(ids, dtype=np.int64) for ids in tokens.tokenizer(texts)["input_ids"]]


def unigram_entropy(documents: tuple[NDArray[np.int64], ...], size: int) -> float:
    """Return −Σ p log p in nats of the tokens' frequencies: the loss of who knows these and nothing else."""
    counts = np.bincount(np.concatenate(documents), minlength=size)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def cache_folder() -> Path:
    """Return where things are kept that can be made again: XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shaped-transformer"


def _make(text: Text, size: int, place: Path) -> None:
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
    buffer = io.BytesIO()
    lengths = np.array([len(ids) for ids in found])
    np.savez_compressed(buffer, allow_pickle=False, tokens=np.concatenate(found).astype(np.uint32), lengths=lengths)
    with replacing(place) as temporary:
        temporary.mkdir()
        (temporary / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        (temporary / "tokens.npz").write_bytes(buffer.getvalue())


def _tokenizer(file: str) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "eos_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_file=file, clean_up_tokenization_spaces=False, **names)
