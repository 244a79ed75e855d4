"""The four tasks: their data as numbered examples, their model class, and what is measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .. import hf
from ..errors import InputError
from .examples import Table, Windows, padded
from .pictures import CLASSES, read_pictures
from .recipe import IMAGE_SIZE, Recipe
from .text import ERAS, read_text
from .variants import VARIANTS
from .vocabulary import END, PAD, encode, tokenize, unigram_entropy

ENTROPY = "unigram entropy of the held-out text"
SHORTEST = 8
"""Tokens that a paragraph must have: shorter ones are headings and greetings."""


@dataclass(frozen=True)
class Task:
    """What a recipe's run needs: examples, model class and its options, tokenizer, where the data came from.

    `facts` are numbers that a reader wants beside the losses, such as the unigram entropy.
    """

    train: Windows | Table
    held_out: Windows | Table
    model: Any
    options: dict[str, Any]
    tokenizer: PreTrainedTokenizerFast | None
    tokens: int
    source: str
    sha256: str
    facts: dict[str, float]
    accuracy: bool = False


def prepare(recipe: Recipe) -> Task:
    """Read the data of a recipe and number its examples.

    **Raises:** `StorageError` or `InputError` for data that is missing or does not fit.
    """
    make = {"classification": _classification, "images": _images}
    return make.get(recipe.task, _language)(recipe)


def build(recipe: Recipe, task: Task) -> Any:
    """Return a recipe's network, drawn with the recipe's seed; PyTorch's generator is left as it was.

    **Raises:** `MemoryError` if it does not fit.
    """
    variant = VARIANTS[recipe.variant]
    chosen: dict[str, Any] = {
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.depth,
        "num_attention_heads": recipe.heads,
        "intermediate_size": recipe.hidden or 4 * recipe.width,
        "tau0": recipe.tau0,
    }
    if variant.branches:
        chosen["gamma"] = recipe.branch_scale
    if variant.recovers:
        chosen["recover_steps"] = max(1, recipe.steps // 2)
    config = hf.ShapedTransformerConfig(**chosen, **variant.options, **task.options)
    with torch.random.fork_rng(), memory_told():
        torch.manual_seed(recipe.seed)
        return task.model(config)


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise `MemoryError` where PyTorch raises a `RuntimeError` that is no more than that."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise MemoryError(str(error)) from error


def _language(recipe: Recipe) -> Task:
    text = read_text(recipe.data)
    tokens = tokenize(text, recipe.vocabulary)
    causal = recipe.task == "causal-lm"
    shared: dict[str, Any] = {"vocabulary": recipe.vocabulary, "masking": None if causal else recipe.masking}
    apart = sum(map(len, tokens.held_out)) // recipe.tokens  # windows that do not overlap
    held_out = _whole(min(recipe.held_out, apart), recipe)
    return Task(
        train=Windows(tokens.train, recipe.tokens, recipe.steps * recipe.batch, recipe.seed, **shared),
        held_out=Windows(tokens.held_out, recipe.tokens, held_out, 0, even=True, **shared),
        model=hf.ShapedTransformerForCausalLM if causal else hf.ShapedTransformerForMaskedLM,
        options=_reading(recipe),
        tokenizer=tokens.tokenizer,
        tokens=recipe.tokens,
        source=text.source,
        sha256=text.sha256,
        facts={ENTROPY: unigram_entropy(tokens.held_out, recipe.vocabulary)},
    )


def _classification(recipe: Recipe) -> Task:
    text = read_text(recipe.data)
    if any(d.year is None for d in (*text.train, *text.held_out)):
        raise InputError(f"data: names of files must begin with a year, as in 1863-address.txt (see {text.source})")
    tokens = tokenize(text, recipe.vocabulary)
    sides = []
    for documents in (text.train, text.held_out):
        paragraphs = [(p, d.era) for d in documents for p in d.paragraphs()]
        ids = encode(tokens, [p for p, _ in paragraphs])
        kept = [(i, era) for i, (_, era) in zip(ids, paragraphs, strict=True) if len(i) >= SHORTEST]
        if not kept:
            raise InputError(
                f"data: no paragraph of {SHORTEST} tokens or more on one side of training and held-out texts: "
                f"give more of them (see {text.source})"
            )
        labels = np.array([era for _, era in kept])
        sides.append(padded([i for i, _ in kept], recipe.tokens) | {"labels": labels})
    train, held_out = sides
    measured = _some(held_out, recipe)
    return Task(
        train=Table(train, recipe.steps * recipe.batch, recipe.seed),
        held_out=measured,
        model=hf.ShapedTransformerForSequenceClassification,
        options=_reading(recipe) | {"num_labels": len(ERAS), "id2label": dict(enumerate(ERAS))},
        tokenizer=tokens.tokenizer,
        tokens=recipe.tokens,
        source=text.source,
        sha256=text.sha256,
        facts=_majority(measured),
        accuracy=True,
    )


def _images(recipe: Recipe) -> Task:
    pictures = read_pictures(recipe.data)
    train, held_out = ({"pixel_values": x, "labels": y} for x, y in (pictures.train, pictures.held_out))
    measured = _some(held_out, recipe)
    return Task(
        train=Table(train, recipe.steps * recipe.batch, recipe.seed),
        held_out=measured,
        model=hf.ShapedTransformerForImageClassification,
        options={
            "image_size": IMAGE_SIZE,
            "patch_size": recipe.patch,
            "num_labels": CLASSES,
            "position_embedding": "learned",
            "position_std": 1.0,
            "max_position_embeddings": (IMAGE_SIZE // recipe.patch) ** 2,
            "vocab_size": 1,
        },
        tokenizer=None,
        tokens=(IMAGE_SIZE // recipe.patch) ** 2,
        source=pictures.source,
        sha256=pictures.sha256,
        facts=_majority(measured),
        accuracy=True,
    )


def _reading(recipe: Recipe) -> dict[str, Any]:
    return {
        "vocab_size": recipe.vocabulary,
        "max_position_embeddings": recipe.tokens,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": END,
    }


def _whole(count: int, recipe: Recipe) -> int:
    """So many examples as fill whole batches, at least one: then the loss does not depend on who measures which."""
    return max(1, count // recipe.batch) * recipe.batch


def _some(columns: dict[str, Any], recipe: Recipe) -> Table:
    """Rows that lie evenly, so that all classes and times are among them; fewer than a batch are gone through again."""
    rows = len(columns["labels"])
    wanted = _whole(min(recipe.held_out, rows), recipe)
    chosen = np.unique(np.linspace(0, rows - 1, min(wanted, rows)).astype(int))
    return Table({name: column[chosen] for name, column in columns.items()}, wanted, None)


def _majority(table: Table) -> dict[str, float]:
    labels = table.columns["labels"]
    return {"accuracy of naming the largest class": float(np.bincount(labels).max() / len(labels))}
