"""The four tasks: data as numbered examples, model classes, and reference values for the losses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ViTImageProcessorPil

from .. import hf
from ..errors import InputError
from . import completep
from .examples import Table, Windows, pad
from .images import CLASSES, read_images
from .initial import load_model, read_tokenizer
from .recipe import IMAGE_SIZE, Recipe
from .text import ERAS, Text, read_text
from .variants import VARIANTS
from .vocabulary import END, PAD, Tokens, encode, tokenize, unigram_entropy

ENTROPY = "unigram entropy of the held-out text"
MIN_PARAGRAPH_TOKENS = 8
"""Shorter paragraphs are left out: they are headings and greetings."""


@dataclass(frozen=True)
class Task:
    """The data and the kind of model of a recipe.

    **Arguments:**

    - `train`, `held_out`: examples.
    - `validation`: examples of the third split, default none.
    - `model`, `options`: model class, and the options of its configuration that the data determine.
    - `processor`: the tokenizer of text, or what turns images into the model's input; it is saved with the model.
    - `tokens`: length of an example, in tokens or patches.
    - `source`, `sha256`: of the data.
    - `size`: of the data, in words.
    - `facts`: reference values for the losses by name, such as the unigram entropy.
    - `accuracy`: whether the accuracy is measured, default no.
    """

    train: Windows | Table
    held_out: Windows | Table
    model: Any
    options: dict[str, Any]
    processor: Any
    tokens: int
    source: str
    sha256: str
    size: str
    facts: dict[str, float]
    accuracy: bool = False
    validation: Windows | None = None


def prepare(recipe: Recipe) -> Task:
    """Read the data of a recipe as numbered examples.

    **Raises:** `StorageError` or `InputError` if the data are missing or do not fit.
    """
    make = {"classification": _classification_task, "images": _image_task}
    return make.get(recipe.task, _language_task)(recipe)


def build(recipe: Recipe, task: Task) -> Any:
    """Return a recipe's network, initialised with the recipe's seed; the state of PyTorch's generator is kept.

    **Raises:** `MemoryError` if it does not fit; `InputError` or `StorageError` if the saved model to start from has
    other sizes or cannot be read.
    """
    variant = VARIANTS[recipe.variant]
    chosen: dict[str, Any] = {
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.depth,
        "num_attention_heads": recipe.heads,
        "intermediate_size": recipe.hidden or 4 * recipe.width,
        "tau0": recipe.tau0,
    }
    options = dict(variant.options)
    if variant.branches:
        chosen["gamma"] = recipe.branch_scale
    if variant.alpha is not None:
        options["gamma"] = completep.branch_scale(recipe.depth, variant.alpha)
    if variant.recovers:
        chosen["recover_steps"] = max(1, recipe.steps // 2)
    config = hf.ShapedTransformerConfig(**chosen, **options, **task.options)
    with torch.random.fork_rng(), translate_out_of_memory():
        torch.manual_seed(recipe.seed)
        if recipe.initial is not None:
            return load_model(recipe.initial, task.model, config)
        model = task.model(config)
        if variant.alpha is not None:
            completep.initialise_(model, variant.alpha)
        return model


@contextmanager
def translate_out_of_memory() -> Iterator[None]:
    """Raise a `MemoryError` in place of the `RuntimeError` that PyTorch raises when memory runs out."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise MemoryError(str(error)) from error


def in_words(count: int, noun: str) -> str:
    """Return a number of things in words, such as "1 file" or "1,024 tokens"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _language_task(recipe: Recipe) -> Task:
    text = read_text(recipe.data, validation=recipe.validation > 0)
    tokens = _tokens(recipe, text)
    causal = recipe.task == "causal-lm"
    shared: dict[str, Any] = {"vocabulary": recipe.vocabulary, "masking": None if causal else recipe.masking}

    def evenly_spaced(documents: tuple[NDArray[np.int64], ...], wanted: int) -> Windows:
        disjoint = sum(map(len, documents)) // recipe.tokens  # number of windows that do not overlap
        count = _whole_batches(min(wanted, disjoint), recipe)
        return Windows(documents, recipe.tokens, count, 0, even=True, **shared)

    train = Windows(tokens.train, recipe.tokens, recipe.steps * recipe.batch, recipe.seed, **shared)
    held_out = evenly_spaced(tokens.held_out, recipe.held_out)
    validation = evenly_spaced(tokens.validation, recipe.validation) if recipe.validation else None
    return Task(
        train=train,
        held_out=held_out,
        model=hf.ShapedTransformerForCausalLM if causal else hf.ShapedTransformerForMaskedLM,
        options=_text_options(recipe),
        processor=tokens.tokenizer,
        tokens=recipe.tokens,
        source=text.source,
        sha256=text.sha256,
        size=(
            f"{in_words(text.files, 'file')}, {in_words(len(train.stream), 'token')} to train on, "
            f"{len(held_out.stream):,} held out"
            + (f", {len(validation.stream):,} for validation" if validation else "")
        ),
        facts={ENTROPY: unigram_entropy(tokens.held_out, recipe.vocabulary)},
        validation=validation,
    )


def _tokens(recipe: Recipe, text: Text) -> Tokens:
    """Return the tokens of a text, by the tokenizer of the model to start from if there is one."""
    return tokenize(text, recipe.vocabulary, None if recipe.initial is None else read_tokenizer(recipe.initial))


def _classification_task(recipe: Recipe) -> Task:
    text = read_text(recipe.data)
    if any(d.year is None for d in (*text.train, *text.held_out)):
        raise InputError(f"data: names of files must begin with a year, as in 1863-address.txt (see {text.source})")
    tokens = _tokens(recipe, text)
    sides, sizes = [], []
    for documents in (text.train, text.held_out):
        paragraphs = [(p, d.era) for d in documents for p in d.paragraphs()]
        ids = encode(tokens, [p for p, _ in paragraphs])
        kept = [(i, era) for i, (_, era) in zip(ids, paragraphs, strict=True) if len(i) >= MIN_PARAGRAPH_TOKENS]
        if not kept:
            raise InputError(
                f"data: no paragraph of {MIN_PARAGRAPH_TOKENS} tokens or more in the training or the held-out texts: "
                f"give more texts (see {text.source})"
            )
        labels = np.array([era for _, era in kept])
        sides.append(pad([i for i, _ in kept], recipe.tokens) | {"labels": labels})
        read = int(sides[-1]["attention_mask"].sum())
        sizes.append(f"{in_words(read, 'token')} in {in_words(len(kept), 'paragraph')}")
    train, held_out = sides
    measured = _evenly_spaced(held_out, recipe)
    return Task(
        train=Table(train, recipe.steps * recipe.batch, recipe.seed),
        held_out=measured,
        model=hf.ShapedTransformerForSequenceClassification,
        options=_text_options(recipe) | {"num_labels": len(ERAS), "id2label": dict(enumerate(ERAS))},
        processor=tokens.tokenizer,
        tokens=recipe.tokens,
        source=text.source,
        sha256=text.sha256,
        size=f"{in_words(text.files, 'file')}, {sizes[0]} to train on, {sizes[1]} held out",
        facts=_majority_baseline(measured),
        accuracy=True,
    )


def _image_task(recipe: Recipe) -> Task:
    images = read_images(recipe.data)
    train, held_out = ({"pixel_values": x, "labels": y} for x, y in (images.train, images.held_out))
    measured = _evenly_spaced(held_out, recipe)
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
        processor=ViTImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            do_rescale=False,
            image_mean=[images.mean],
            image_std=[images.std],
        ),
        tokens=(IMAGE_SIZE // recipe.patch) ** 2,
        source=images.source,
        sha256=images.sha256,
        size=f"{in_words(len(images.train[1]), 'image')} to train on, {len(images.held_out[1]):,} held out",
        facts=_majority_baseline(measured),
        accuracy=True,
    )


def _text_options(recipe: Recipe) -> dict[str, Any]:
    """Options of the configuration of a model that reads text."""
    return {
        "vocab_size": recipe.vocabulary,
        "max_position_embeddings": recipe.tokens,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": END,
    }


def _whole_batches(count: int, recipe: Recipe) -> int:
    """Round down to whole batches, at least one, so that the loss does not depend on the number of processes."""
    return max(1, count // recipe.batch) * recipe.batch


def _evenly_spaced(columns: dict[str, Any], recipe: Recipe) -> Table:
    """Evenly spaced rows, so that all classes and years are among them; rows repeat if there are fewer than a batch."""
    rows = len(columns["labels"])
    wanted = _whole_batches(min(recipe.held_out, rows), recipe)
    chosen = np.unique(np.linspace(0, rows - 1, min(wanted, rows)).astype(int))
    return Table({name: column[chosen] for name, column in columns.items()}, wanted, None)


def _majority_baseline(table: Table) -> dict[str, float]:
    """The accuracy of a classifier that always names the largest class."""
    labels = table.columns["labels"]
    return {"accuracy of naming the largest class": float(np.bincount(labels).max() / len(labels))}
