"""Initial covariances: their values, and the refusal of input that is not a covariance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import shaped_transformer as st
from shaped_transformer.inputs import (
    equicorrelated,
    from_covariance,
    from_string,
    from_text,
    from_vectors,
    passage,
    tokenize,
)


def test_equicorrelated_tokens_have_the_given_variance_and_correlation() -> None:
    v = equicorrelated(4, 0.2, 3.0)
    np.testing.assert_allclose(np.diagonal(v), 3)
    np.testing.assert_allclose(v[0, 1:], 0.6)


def test_the_lowest_correlation_gives_a_singular_covariance() -> None:
    assert np.linalg.eigvalsh(equicorrelated(5, -0.25))[0] > -1e-12


@given(some.integers(1, 12), some.integers(1, 12), some.integers(0, 5))
def test_vectors_give_a_covariance_from_which_the_chain_starts(m: int, k: int, seed: int) -> None:
    v = from_vectors(np.random.default_rng(seed).standard_normal((m, k)))
    np.testing.assert_array_equal(v, from_covariance(v))
    drawn = st.chain.sample(st.deep_linear(k, 1), v, 1, seed=0, record=[0])
    np.testing.assert_allclose(drawn.covariance[0, 0], v, atol=1e-12 * np.abs(v).max())


def test_tokens_are_lower_case_words_and_punctuation() -> None:
    assert tokenize("It was the best of times, isn't it?") == [
        *("it", "was", "the", "best", "of", "times", ",", "isn't", "it", "?")
    ]
    assert tokenize(passage())[:3] == ["it", "was", "the"]


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """A text whose first and fourth words are the same."""
    text = tmp_path / "words.txt"
    text.write_text("the cat and the dog", encoding="utf-8")
    return text


def test_repeated_words_are_correlated_and_different_words_are_not(repeating: Path) -> None:
    mixed = from_text(repeating, position_weight=0.5, embedding_width=200_000, seed=1)
    assert mixed.shape == (5, 5)
    assert abs(mixed[0, 3] - 0.5) < 0.02
    assert abs(mixed[0, 1]) < 0.02


def test_repeated_words_are_equal_without_positions(repeating: Path) -> None:
    words_only = from_text(repeating, position_weight=0.0)
    np.testing.assert_array_equal(words_only[0], words_only[3])
    assert np.linalg.matrix_rank(words_only) == 4


def test_a_singular_input_works_in_all_views() -> None:
    v0 = from_text(max_tokens=10, position_weight=0)
    arch = st.shaped_transformer(32, 8)
    for view in (st.network, st.chain, st.sde):
        ensemble = view.sample(arch, v0, 8, seed=0)
        assert np.isfinite(ensemble.covariance).all()
        assert np.isfinite(ensemble.effective_rank()).all()
        np.testing.assert_allclose(ensemble.correlation()[..., 0, 7], 1, atol=1e-6)  # the same word twice
        with pytest.raises(st.InputError, match="singular"):
            ensemble.log_determinant()


def test_the_text_decides_the_covariance_and_the_seed_the_embedding() -> None:
    np.testing.assert_array_equal(from_text(seed=3), from_text(seed=3))
    assert not np.array_equal(from_text(seed=3), from_text(seed=4))


def test_a_string_is_read_as_a_file_with_it() -> None:
    options: dict[str, Any] = {"max_tokens": 5, "position_weight": 0.2, "embedding_width": 32, "seed": 3}
    np.testing.assert_array_equal(from_string(passage(), **options), from_text(**options))


def test_matrices_from_files(tmp_path: Path) -> None:
    file = tmp_path / "v.npy"
    np.save(file, np.eye(3))
    np.testing.assert_array_equal(from_covariance(file), np.eye(3))
    np.testing.assert_allclose(from_vectors(str(file)), np.eye(3) / 3)


def mistakes(tmp: Path) -> list[tuple[str, Any]]:
    (tmp / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp / "latin.txt").write_bytes(b"caf\xe9")
    (tmp / "text.npy").write_text("not numpy", encoding="utf-8")
    np.save(tmp / "objects.npy", np.array([None]), allow_pickle=True)
    return [
        ("correlation must lie in", lambda: equicorrelated(3, -0.6)),
        ("correlation must lie in", lambda: equicorrelated(3, float("nan"))),
        ("tokens must be", lambda: equicorrelated(0, 0.1)),
        ("variance must be", lambda: equicorrelated(3, 0.1, 0.0)),
        ("has no words", lambda: from_text(tmp / "empty.txt")),
        ("the text has no words", lambda: from_string("  ")),
        ("is not text in UTF-8: convert it", lambda: from_text(tmp / "latin.txt")),
        ("max_tokens must be", lambda: from_text(max_tokens=0)),
        ("position_weight must lie", lambda: from_text(position_weight=1.5)),
        ("seed must be", lambda: from_text(seed=-1)),
        ("entry .0,1. is nan", lambda: from_vectors([[1.0, float("nan")]])),
        ("must be a matrix", lambda: from_vectors([1.0, 2.0])),
        ("must be a real matrix", lambda: from_vectors([["a"]])),
        ("must be a real matrix", lambda: from_vectors([[1.0], [2.0, 3.0]])),
        ("overflows", lambda: from_vectors([[1e200, 0.0]])),
        ("must be square", lambda: from_covariance(np.ones((2, 3)))),
        ("must be symmetric, but V.0,1. = 1", lambda: from_covariance([[1.0, 1.0], [0.5, 1.0]])),
        ("smallest eigenvalue is -1", lambda: from_covariance([[1.0, 2.0], [2.0, 1.0]])),
        ("is zero", lambda: from_covariance(np.zeros((2, 2)))),
        ("not a .npy array", lambda: from_covariance(tmp / "text.npy")),
        ("not a .npy array", lambda: from_covariance(tmp / "objects.npy")),
        ("rank 3 cannot come from vectors of width 2", lambda: st.chain.sample(st.deep_linear(2, 1), np.eye(3), 1, 0)),
    ]


@pytest.mark.parametrize("case", range(22))
def test_mistakes_name_the_way_out(tmp_path: Path, case: int) -> None:
    cases = mistakes(tmp_path)
    assert len(cases) == 22
    message, call = cases[case]
    with pytest.raises(st.InputError, match=message):
        call()


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match=r"cannot read .*nowhere.txt: No such file"):
        from_text(tmp_path / "nowhere.txt")
    with pytest.raises(st.StorageError, match="cannot read"):
        from_covariance(tmp_path)
