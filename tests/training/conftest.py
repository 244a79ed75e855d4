"""Small real text, and recipes that take a second."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from shaped_transformer import inputs

if not all(find_spec(name) for name in ("torch", "transformers", "tokenizers", "tensorboard", "platformdirs")):
    collect_ignore_glob = ["test_*.py"]

YEARS = (1790, 1795, 1861, 1900, 1946, 1950)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of documents with years: the packaged passage, cut into words that differ from file to file."""
    folder, words = tmp_path_factory.mktemp("texts"), inputs.passage().split()
    for index, year in enumerate(YEARS):
        parts = [" ".join(words[(index + 7 * i) % 50 :][:40]) for i in range(12)]
        (folder / f"{year}-passage.txt").write_text("\n\n".join(parts), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="session")
def recipe(texts: str) -> Callable[..., Any]:
    """Make a small recipe; arguments replace its values."""
    from shaped_transformer.training import Recipe

    small: dict[str, Any] = {
        "task": "causal-lm",
        "data": texts,
        "vocabulary": 300,
        "tokens": 16,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "batch": 4,
        "steps": 12,
        "log": 1,
        "evaluate": 6,
        "save": 4,
        "watch": 4,
        "held_out": 8,
    }
    return lambda **changes: Recipe(**(small | changes))
