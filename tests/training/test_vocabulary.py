"""Tokens: what the tokenizer learns from, and its cache."""

from pathlib import Path

import numpy as np
import pytest

from shaped_transformer.training import text, vocabulary

SIZE = 270
TRAIN, HELD_OUT = text.Document("banana " * 50, 1), text.Document("quixotic " * 50, 10)
TEXT = text.Text((TRAIN,), (HELD_OUT,), 2, "a" * 64, "")


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> vocabulary.Tokens:
    """The tokens of `TEXT`, with a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return vocabulary.tokenize(TEXT, SIZE)


def test_the_tokenizer_learns_from_the_training_text_alone(tokens: vocabulary.Tokens) -> None:
    assert len(tokens.train[0]) < 110  # banana is one token, or nearly
    assert len(tokens.held_out[0]) > 300


def test_every_text_can_be_decoded(tokens: vocabulary.Tokens) -> None:
    assert tokens.tokenizer.decode(tokens.held_out[0]) == HELD_OUT.text
    assert tokens.tokenizer.decode(vocabulary.encode(tokens, ["über ¿ 漢"])[0]) == "über ¿ 漢"


def test_the_cache_folder_follows_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert vocabulary.cache_folder() == tmp_path / "shaped-transformer"


def test_the_tokenizer_is_trained_once(tokens: vocabulary.Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizers.trainers.BpeTrainer", lambda **_: pytest.fail("trained again"))
    np.testing.assert_array_equal(vocabulary.tokenize(TEXT, SIZE).held_out[0], tokens.held_out[0])


def test_a_damaged_cache_file_is_replaced(tokens: vocabulary.Tokens) -> None:
    (file,) = vocabulary.cache_folder().iterdir()
    whole = file.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole) - 200, len(whole), 3)]
    for damaged in (whole[: len(whole) // 2], b"", whole[:100] + b"damage" + whole[106:], *flipped):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(vocabulary.tokenize(TEXT, SIZE).held_out[0], tokens.held_out[0])


def test_without_a_cache_the_tokenizer_is_trained_in_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [len(vocabulary.tokenize(TEXT, SIZE).train) for _ in range(2)] == [1, 1]


def test_the_unigram_entropy_is_that_of_the_frequencies() -> None:
    documents = (np.array([0, 0]), np.array([1, 2]))
    assert vocabulary.unigram_entropy(documents, 5) == pytest.approx(1.5 * np.log(2))
