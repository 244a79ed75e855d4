"""Initial covariances V0, (m, m) float64: by formula, from text, from vectors, from a matrix."""

import math
import re
import warnings
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import check_count, check_number, check_seed
from .errors import InputError, StorageError

Covariance = NDArray[np.float64]

PASSAGE = Path(__file__).parent / "data" / "passage.txt"


def equicorrelated(tokens: int, correlation: float, variance: float = 1.0) -> Covariance:
    """Return the covariance of tokens of equal norm that are all equally correlated.

    **Arguments:**

    - `tokens`: m.
    - `correlation`: ρ of every pair, in [−1/(m−1), 1].
    - `variance`: V^{αα} = ‖x‖²/n, default 1, the scale at which the activations are normalised.

    **Raises:** `InputError` if no vectors can have these correlations.
    """
    tokens = check_count(tokens, "tokens")
    correlation, variance = check_number(correlation, "correlation"), check_number(variance, "variance")
    lowest = -1 / (tokens - 1) if tokens > 1 else -1.0
    if not lowest - 1e-12 <= correlation <= 1:
        raise InputError(
            f"correlation must lie in [{lowest:.4g}, 1] for {tokens} tokens (got {correlation:g}): no vectors are "
            "further from each other than that"
        )
    if not (variance > 0 and math.isfinite(variance)):
        raise InputError(f"variance must be a positive number (got {variance:g})")
    return variance * ((1 - correlation) * np.eye(tokens) + correlation)


def passage() -> str:
    """Return the English passage that ships with the library (Dickens, 1859, public domain)."""
    return PASSAGE.read_text(encoding="utf-8")


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks."""
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", text.lower())


def from_text(
    file: str | PathLike[str] | None = None,
    *,
    max_tokens: int = 8,
    position_weight: float = 0.5,
    embedding_width: int = 512,
    seed: int = 0,
) -> Covariance:
    """Return the covariance of a text's first tokens under random Gaussian token and position embeddings.

    Token α has the vector √(1 − w)·e(word) + √w·p(α), so that its expected variance is 1 and the same word in two
    places has expected correlation 1 − w.

    **Arguments:**

    - `file`: a UTF-8 text file; `None` reads the passage that ships with the library.
    - `max_tokens`: how many tokens to take; a shorter text gives fewer.
    - `position_weight`: w in [0, 1]. At 0, repeated words are equal vectors and V0 is singular, which is legal.
    - `embedding_width`: coordinates of an embedding. The rank of V0 is at most this; use the network's width or less
      when there are more tokens than width.
    - `seed`: of the embeddings.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it holds no token or an argument is out of
    range.
    """
    max_tokens, embedding_width = check_count(max_tokens, "max_tokens"), check_count(embedding_width, "embedding_width")
    position_weight = check_number(position_weight, "position_weight")
    if not 0 <= position_weight <= 1:
        raise InputError(f"position_weight must lie in [0, 1] (got {position_weight:g})")
    text = passage() if file is None else _read(Path(file), lambda p: p.read_text(encoding="utf-8"))
    words = tokenize(text)[:max_tokens]
    if not words:
        raise InputError(f"{file} has no words: give a text file with at least one")
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    generator = np.random.default_rng(check_seed(seed))
    positions = generator.standard_normal((len(words), embedding_width))
    embeddings = generator.standard_normal((len(vocabulary), embedding_width))
    chosen = embeddings[[vocabulary[word] for word in words]]
    return from_vectors(math.sqrt(1 - position_weight) * chosen + math.sqrt(position_weight) * positions)


def from_vectors(vectors: ArrayLike | str | PathLike[str]) -> Covariance:
    """Return V = X Xᵀ/k of m vectors with k coordinates.

    **Arguments:** `vectors`: an (m, k) array, or the path of a `.npy` file that holds one.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not a finite (m, k) array.
    """
    x = _matrix(vectors, "vectors")
    scale = float(np.max(np.abs(x))) or 1.0
    unit = x / scale
    v = unit @ unit.T / x.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        v = (v + v.T) / 2 * np.square(scale)
    if not np.isfinite(v).all():
        raise InputError(
            f"the vectors are so long (entries up to {scale:.3g}) that their covariance overflows: rescale"
        )
    return v


def from_covariance(covariance: ArrayLike | str | PathLike[str]) -> Covariance:
    """Return a checked covariance.

    **Arguments:** `covariance`: an (m, m) array, symmetric and positive semi-definite to 1e-8 of its largest entry, or
    the path of a `.npy` file that holds one.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not such a matrix.
    """
    v = _matrix(covariance, "covariance")
    if v.shape[0] != v.shape[1]:
        raise InputError(
            f"the covariance must be square (got {v.shape[0]} x {v.shape[1]}): use vectors for an (m, k) array"
        )
    scale = float(np.max(np.abs(v)))
    if scale == 0:
        raise InputError("the covariance is zero: give tokens that are not all zero")
    unit = v / scale  # of order 1, so that nothing below overflows
    gap = np.abs(unit - unit.T)
    if gap.max() > 1e-8:
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise InputError(f"the covariance must be symmetric, but V[{i},{j}] = {v[i, j]:g} and V[{j},{i}] = {v[j, i]:g}")
    smallest = float(np.linalg.eigvalsh((unit + unit.T) / 2)[0])
    if smallest < -1e-8:
        raise InputError(
            f"the covariance must be positive semi-definite, but its smallest eigenvalue is {smallest * scale:.4g}: no "
            "vectors have these inner products"
        )
    return np.where(v == v.T, v, v / 2 + v.T / 2)


def resolved(eigenvalues: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which eigenvalues of a covariance, (m,), float64 resolves: those above 4·m·ε times the largest.

    What lies below is rounding, of the covariance's own entries or of its decomposition: all views start with 0 there.
    """
    return np.asarray(eigenvalues > 4 * len(eigenvalues) * np.finfo(np.float64).eps * np.max(eigenvalues))


def rank(covariance: Covariance) -> int:
    """Return the number of eigenvalues that are resolved, (m, m) → 1 … m."""
    return int(np.sum(resolved(np.linalg.eigvalsh(covariance))))


def read_array(path: Path) -> Any:
    """Return the array in a `.npy` file.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it holds no single array.
    """
    return np.array(_read(path, _load))


def _load(path: Path) -> Any:
    """The array in a file, mapped and not yet read, so that a false shape takes no memory."""
    with path.open("rb") as file:
        archive = file.read(2) == b"PK" and is_zipfile(file)
    if archive:
        raise InputError(f"{path} is an archive of arrays: write one array with numpy.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a damaged header looks like to Python's parser
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception:  # NumPy and its parser of headers have many words for what is damaged
        raise InputError(f"{path} is not a .npy array: write it with numpy.save") from None


def _matrix(source: Any, name: str) -> NDArray[np.float64]:
    if isinstance(source, str | PathLike):
        path = Path(source)
        source = read_array(path)
        name = f"{name} in {path}"
    try:
        array = np.asarray(source)
        if array.dtype.kind not in "biuf":
            raise ValueError
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float64 becomes infinite, and is told below
            array = array.astype(np.float64)
    except ValueError:
        found = f"{source.dtype} array" if isinstance(source, np.ndarray) else type(source).__name__
        raise InputError(f"the {name} must be a real matrix, rows of equal length (got {found})") from None
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"the {name} must be a matrix with at least one row and column (got shape {array.shape})")
    if not np.isfinite(array).all():
        i, j = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"the {name} must be finite, but entry [{i},{j}] is {array[i, j]}")
    return array


def _read(path: Path, reader: Any) -> Any:
    try:
        return reader(path)
    except FileNotFoundError:
        raise StorageError(f"no such file: {path}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: convert it first") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
