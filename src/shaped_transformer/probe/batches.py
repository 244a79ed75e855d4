"""What a model is given by the command line: tokens of a text, images or vectors, all from one seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import inputs
from ..checks import check_count, check_seed
from ..errors import InputError
from ..io.files import read_text
from .loading import first_line

PARAGRAPHS = Path(__file__).parents[1] / "data" / "probe.txt"
"""The text that is used where none is given, written for this library."""

TOKENS = 64
"""Number of tokens of a sequence."""

SEQUENCES = 4
"""Number of sequences, where the text has so many."""

LANGUAGE = ("LMHeadModel", "ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining")
"""Ends of the names of classes whose labels are tokens."""


@dataclass(frozen=True)
class Batch:
    """What a model is given.

    **Arguments:**

    - `values`: a tensor, or a dictionary of tensors, keyword arguments.
    - `what`: what it is, in words.
    """

    values: Any
    what: str

    def split(self) -> list[Any]:
        """Return its sequences as values of their own, each with one sequence."""
        if isinstance(self.values, Tensor):
            return list(self.values.split(1))
        parts = {name: one.split(1) for name, one in self.values.items()}
        return [dict(zip(parts, some, strict=True)) for some in zip(*parts.values(), strict=True)]

    @property
    def shape(self) -> list[int]:
        """Sizes of its first tensor."""
        first = self.values if isinstance(self.values, Tensor) else next(iter(self.values.values()))
        return list(first.shape)


def make_batch(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    text: Path | None = None,
    tokens: int | None = None,
    input_width: int | None = None,
    sequences: int = SEQUENCES,
    usual: int = TOKENS,
    seed: int = 0,
) -> Batch:
    """Return a batch that a model takes: the first tokens of a text, in a few sequences of equal length.

    Without a tokenizer, each word and punctuation mark of the text has a token of its own, drawn from the vocabulary:
    tokens repeat where words do. Models for images are given standard normal pixels. Labels of language models are the
    tokens themselves.

    ```python
    from shaped_transformer.probe.batches import make_batch
    model = torch.nn.Sequential(torch.nn.Embedding(100, 8), torch.nn.Linear(8, 8))
    make_batch(model, tokens=16).values.shape  # (4, 16)
    ```

    **Arguments:**

    - `model`: a Hugging Face model, or any module. A module with no `torch.nn.Embedding` takes vectors.
    - `tokenizer`: of Hugging Face, default none.
    - `text`: a UTF-8 text file, default a text that comes with the library.
    - `tokens`: length of a sequence, default `usual`, or fewer where the model has fewer positions; a text with fewer
      tokens is one sequence of them all.
    - `input_width`: gives the module standard normal vectors of so many coordinates, (sequences, tokens, input_width).
    - `sequences`: their number, default 4, or fewer where the text is shorter.
    - `usual`: the default of `tokens`, default 64.
    - `seed`: of all that is drawn, default 0.

    **Raises:** `InputError` for a text without words, more tokens than the model has positions, options that do not go
    with the model, or a model for anything else, such as sound; `StorageError` where the text cannot be read.
    """
    length = check_count(usual if tokens is None else tokens, "--tokens")
    generator = torch.Generator().manual_seed(check_seed(seed))
    config: Any = getattr(model, "config", None)
    if input_width is not None:
        if text is not None:
            raise InputError("give --text or --input-width, not both")
        shape = (sequences, length, check_count(input_width, "--input-width"))
        return Batch(torch.randn(shape, generator=generator), "standard normal vectors")
    if not hasattr(config, "to_dict"):
        table = next((one for one in model.modules() if isinstance(one, nn.Embedding)), None)
        if table is None:
            raise InputError(
                "the module has no torch.nn.Embedding, so it takes vectors: give their number of coordinates with "
                "--input-width"
            )
        return _words(_read(text), length, sequences, table.num_embeddings, set(), seed).batch(None)
    takes = getattr(model, "main_input_name", "input_ids")
    if takes == "pixel_values":
        for option, value in (("--text", text), ("--tokens", tokens)):
            if value is not None:
                raise InputError(f"the model takes images, so {option} has no effect: leave it out")
        return Batch({"pixel_values": _images(config, sequences, generator)}, "standard normal images")
    if takes != "input_ids":
        raise InputError(f"the model takes {takes}: probe it from Python, with st.probe.run and a batch of your own")
    length = _fitting(config, tokens, usual)
    vocabulary = int(config.get_text_config().vocab_size)
    if tokenizer is None:
        chosen = _words(_read(text), length, sequences, vocabulary, _special(config), seed)
    else:
        chosen = _tokenized(_read(text), tokenizer, length, sequences, vocabulary)
    return chosen.batch(model)


@dataclass(frozen=True)
class _Chosen:
    """Sequences of tokens, and what they are."""

    sequences: list[list[int]]
    what: str

    def batch(self, model: nn.Module | None) -> Batch:
        """Return the batch of a Hugging Face model, or that of another module for `None`."""
        ids = torch.tensor(self.sequences)
        if model is None:
            return Batch(ids, self.what)
        values = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if type(model).__name__.endswith(LANGUAGE) and ids.shape[1] > 1:  # the next token of a single one is unknown
            values["labels"] = ids
            if _starts_nowhere(model.config):
                values["decoder_input_ids"] = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
        elif getattr(model.config, "is_encoder_decoder", False):
            values["decoder_input_ids"] = ids
        return Batch(values, self.what)


def _starts_nowhere(config: Any) -> bool:
    """Whether a configuration has a decoder but no token with which its input starts, so that it cannot be made."""
    return (
        bool(getattr(config, "is_encoder_decoder", False)) and getattr(config, "decoder_start_token_id", None) is None
    )


def _read(text: Path | None) -> str:
    """Return a text.

    **Raises:** `StorageError` where it cannot be read, `InputError` where it has no words or is not text.
    """
    content = read_text(PARAGRAPHS if text is None else text, "text")
    if "\0" in content:
        raise InputError(f"{text} is not a text file, because it contains zero bytes: give a text file in UTF-8")
    if not inputs.tokenize(content):
        raise InputError(f"{text} contains no words: give a text file with at least one")
    return content


def _words(text: str, length: int, count: int, vocabulary: int, special: set[int], seed: int) -> _Chosen:
    """Return sequences in which tokens repeat as the words of a text do."""
    words = inputs.tokenize(text)[: count * length]
    free = [one for one in range(min(vocabulary, 2**20)) if one not in special] or [0]
    distinct = list(dict.fromkeys(words))
    drawn = np.random.default_rng(seed).permutation(free)
    numbers = {word: int(drawn[i % len(drawn)]) for i, word in enumerate(distinct)}
    return _Chosen(
        _cut([numbers[word] for word in words], length, count),
        "one random token for each different word, without a tokenizer",
    )


def _tokenized(text: str, tokenizer: Any, length: int, count: int, vocabulary: int) -> _Chosen:
    """Return sequences of a tokenizer's tokens, each with the tokens that it adds at the start and the end."""
    try:
        plain = list(tokenizer("word", add_special_tokens=False)["input_ids"])
        whole = list(tokenizer("word")["input_ids"])
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except Exception as error:  # a tokenizer may raise anything
        raise InputError(f"the tokenizer fails on the text: {type(error).__name__}: {first_line(error)}") from error
    at = next((i for i in range(len(whole)) if plain and whole[i : i + len(plain)] == plain), None)
    start, end = ([], []) if at is None else (whole[:at], whole[at + len(plain) :])
    room = length - len(start) - len(end)
    if room < 1:
        raise InputError(f"--tokens must be at least {1 + length - room} with this tokenizer (got {length})")
    sequences = [start + part + end for part in _cut(ids, room, count)]
    if (largest := max(map(max, sequences))) >= vocabulary:
        raise InputError(
            f"the tokenizer gives token {largest}, and the model's vocabulary has {vocabulary}: they do not belong "
            "together"
        )
    return _Chosen(sequences, "tokens of the model's tokenizer")


def _cut(ids: list[int], length: int, count: int) -> list[list[int]]:
    """Return the first sequences of a length; a single shorter one where there are too few tokens."""
    if len(ids) < length:
        return [ids]
    return [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)][:count]


def _special(config: Any) -> set[int]:
    """Return the tokens of a configuration that stand for no word."""
    values = [value for name, value in config.to_dict().items() if name.endswith("token_id")]
    return {one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)}


def _fitting(config: Any, tokens: int | None, usual: int) -> int:
    """Return the length of a sequence: what was asked for, else what is usual, at most the number of positions.

    **Raises:** `InputError` where more was asked for than the model has positions.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    most = positions if isinstance(positions, int) and positions > 0 else None
    if tokens is None:
        return usual if most is None else min(usual, most)
    if most is not None and tokens > most:
        raise InputError(f"--tokens must be at most {most}, the number of the model's positions (got {tokens})")
    return tokens


def _images(config: Any, count: int, generator: torch.Generator) -> Tensor:
    """Return standard normal images of a configuration's size."""
    parts = [config, getattr(config, "vision_config", None)]
    size = next((one.image_size for one in parts if getattr(one, "image_size", None) is not None), 224)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    channels = next((one.num_channels for one in parts if getattr(one, "num_channels", None) is not None), 3)
    return torch.randn(count, channels, height, width, generator=generator)
