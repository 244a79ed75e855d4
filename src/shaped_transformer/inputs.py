"""Initial covariances V0, (m, m) in float64: from a formula, a text, token vectors or a given matrix."""

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
from .errors import InputError, counted
from .io.files import read_text, reading
from .numerics.arrays import Array, Floats

__all__ = [
    "Covariance",
    "equicorrelated",
    "from_covariance",
    "from_string",
    "from_text",
    "from_vectors",
    "passage",
    "rank",
    "read_array",
    "resolved",
    "tokenize",
]


def __dir__() -> list[str]:
    return sorted(__all__)


Covariance = Floats
"""A covariance of tokens, (m, m)."""

PASSAGE = Path(__file__).parent / "data" / "passage.txt"
"""The file of `passage`."""


def equicorrelated(tokens: int, correlation: float, variance: float = 1.0) -> Covariance:
    """Return the covariance of tokens with equal norms and equal correlations.

    ```python
    st.inputs.equicorrelated(tokens=2, correlation=0.2)  # [[1.0, 0.2], [0.2, 1.0]]
    ```

    **Arguments:**

    - `tokens`: their number m.
    - `correlation`: ρ of every pair, in [−1/(m−1), 1].
    - `variance`: V^{αα} = ‖x‖²/n, default 1, the scale at which the activations are normalised.

    **Returns:** V0, (m, m).

    **Raises:** `InputError` if a number is out of range; no vectors have correlations below −1/(m−1).
    """
    tokens = check_count(tokens, "tokens")
    correlation, variance = check_number(correlation, "correlation"), check_number(variance, "variance")
    lowest = -1 / (tokens - 1) if tokens > 1 else -1.0
    if not lowest - 1e-12 <= correlation <= 1:
        raise InputError(
            f"correlation must lie in [{lowest:.4g}, 1] for {counted(tokens, 'token')} (got {correlation:g}): "
            "no vectors are further apart than that"
        )
    if not (variance > 0 and math.isfinite(variance)):
        raise InputError(f"variance must be a positive number (got {variance:g})")
    return variance * ((1 - correlation) * np.eye(tokens) + correlation)


def passage() -> str:
    """Return the English passage that comes with the library (Dickens, 1859, public domain).

    ```python
    st.inputs.passage()[:8]  # "It was t"
    ```
    """
    return PASSAGE.read_text(encoding="utf-8")


def tokenize(text: str) -> list[str]:
    """Return the lower-case words and punctuation marks of a text.

    ```python
    st.inputs.tokenize("Isn't it?")  # ["isn't", "it", "?"]
    ```

    **Arguments:**

    - `text`: any text.

    **Returns:** the tokens, in order.
    """
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", text.lower())


def from_text(
    file: str | PathLike[str] | None = None,
    *,
    max_tokens: int = 8,
    position_weight: float = 0.5,
    embedding_width: int = 512,
    seed: int = 0,
) -> Covariance:
    """Return the covariance of the first tokens of a text, with random Gaussian word and position embeddings.

    Token α has the vector √(1 − w)·e(word) + √w·p(α). So its expected variance is 1, and the same word at two positions
    has expected correlation 1 − w.

    ```python
    v0 = st.inputs.from_text(max_tokens=4)  # of "It was the best"
    v0.shape  # (4, 4)
    ```

    **Arguments:**

    - `file`: a UTF-8 text file; `None` (the default) uses `passage`.
    - `max_tokens`: number of tokens, default 8; a shorter text gives fewer.
    - `position_weight`: w in [0, 1], default 0.5. At 0, repeated words are equal vectors and V0 is singular, which all
      views accept.
    - `embedding_width`: coordinates of an embedding, default 512. The rank of V0 is at most this; if there are more
      tokens than the network's width, use that width or less.
    - `seed`: seed of the embeddings, default 0.

    **Returns:** V0, (m, m), for m tokens.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it contains no token or an argument is out of
    range.
    """
    text = passage() if file is None else read_text(Path(file), "text")
    if not tokenize(text):
        raise InputError(f"{file} has no words: give a text file with at least one")
    return from_string(
        text, max_tokens=max_tokens, position_weight=position_weight, embedding_width=embedding_width, seed=seed
    )


def from_string(
    text: str,
    *,
    max_tokens: int = 8,
    position_weight: float = 0.5,
    embedding_width: int = 512,
    seed: int = 0,
) -> Covariance:
    """Return the covariance of the first tokens of a text, as `from_text` does of a file with this text.

    ```python
    st.inputs.from_string("the cat and the dog").shape  # (5, 5)
    ```

    **Arguments:** as in `from_text`, with

    - `text`: the text.

    **Returns:** V0, (m, m), for m tokens.

    **Raises:** `InputError` if the text contains no token or an argument is out of range.
    """
    max_tokens, embedding_width = check_count(max_tokens, "max_tokens"), check_count(embedding_width, "embedding_width")
    position_weight = check_number(position_weight, "position_weight")
    if not 0 <= position_weight <= 1:
        raise InputError(f"position_weight must lie in [0, 1] (got {position_weight:g})")
    words = tokenize(text)[:max_tokens]
    if not words:
        raise InputError("the text has no words: give at least one")
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    generator = np.random.default_rng(check_seed(seed))
    positions = generator.standard_normal((len(words), embedding_width))
    embeddings = generator.standard_normal((len(vocabulary), embedding_width))
    chosen = embeddings[[vocabulary[word] for word in words]]
    return from_vectors(math.sqrt(1 - position_weight) * chosen + math.sqrt(position_weight) * positions)


def from_vectors(vectors: ArrayLike | str | PathLike[str]) -> Covariance:
    """Return the covariance V = X Xᵀ/k of m token vectors with k coordinates.

    ```python
    st.inputs.from_vectors([[1.0, 1.0], [1.0, -1.0]])  # the identity: [[1.0, 0.0], [0.0, 1.0]]
    ```

    **Arguments:**

    - `vectors`: X, an (m, k) array, or the path of a `.npy` file with one.

    **Returns:** V, (m, m).

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not a finite (m, k) array or V would
    overflow.
    """
    x = as_matrix(vectors, "vectors")
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
    """Return a covariance, checked to be one and made exactly symmetric.

    ```python
    st.inputs.from_covariance([[1, 0.5], [0.5, 1]])
    ```

    **Arguments:**

    - `covariance`: an (m, m) array, symmetric and positive semi-definite to 1e-8 of its largest entry, or the path of a
      `.npy` file with one.

    **Returns:** V, (m, m) in float64.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not such a matrix.
    """
    v = as_matrix(covariance, "covariance")
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


def resolved(eigenvalues: Array) -> NDArray[np.bool_]:
    """Return which eigenvalues of a covariance float64 resolves: those above 4·m·ε times the largest.

    Smaller ones are rounding errors of the entries or of the decomposition. All views start with 0 in their place.

    ```python
    st.inputs.resolved(np.array([1.0, 1e-17]))  # [True, False]
    ```

    **Arguments:**

    - `eigenvalues`: of V, (m,).

    **Returns:** truth values, (m,).
    """
    return np.asarray(eigenvalues > 4 * len(eigenvalues) * np.finfo(np.float64).eps * np.max(eigenvalues))


def rank(covariance: Covariance) -> int:
    """Return the rank of a covariance: the number of its eigenvalues that float64 resolves.

    ```python
    st.inputs.rank(np.ones((3, 3)))  # 1
    ```

    **Arguments:**

    - `covariance`: V, (m, m).

    **Returns:** the rank, from 1 to m.
    """
    return int(np.sum(resolved(np.linalg.eigvalsh(covariance))))


def read_array(path: Path) -> Any:
    """Return the array in a `.npy` file.

    ```python
    from pathlib import Path

    np.save("v0.npy", np.eye(3))
    st.inputs.read_array(Path("v0.npy")).shape  # (3, 3)
    ```

    **Arguments:**

    - `path`: the file, as `numpy.save` writes it.

    **Returns:** the array, of the file's shape and type.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is not a single array.
    """
    with reading(path):
        return np.array(_map_array(path))


def _map_array(path: Path) -> Any:
    """Return the array in a file, mapped into memory but not yet read, so that a false shape takes no memory."""
    with path.open("rb") as file:
        archive = file.read(2) == b"PK" and is_zipfile(file)
    if archive:
        raise InputError(f"{path} is an archive of arrays: write one array with numpy.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of some damaged headers
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception:  # for a damaged header, NumPy and its parser raise exceptions of many types
        raise InputError(f"{path} is not a .npy array: write it with numpy.save") from None


def as_matrix(source: Any, name: str, columns: int | None = None) -> Floats:
    """Return an array, or the array in a file, as a finite matrix.

    **Arguments:**

    - `source`: the array, or the path of a `.npy` file.
    - `name`: what messages call it.
    - `columns`: how many it must have, if it matters.

    **Raises:** `StorageError` if the file cannot be read, `InputError` if it is no such matrix.
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        source = read_array(path)
        name = f"{name} in {path}"
    try:
        array = np.asarray(source)
        if array.dtype.kind not in "biuf":
            raise ValueError
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite, and is refused below
            array = array.astype(np.float64)
    except ValueError:
        found = f"{source.dtype} array" if isinstance(source, np.ndarray) else type(source).__name__
        raise InputError(f"the {name} must be a real matrix, rows of equal length (got {found})") from None
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"the {name} must be a matrix with at least one row and column (got shape {array.shape})")
    if not np.isfinite(array).all():
        i, j = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"the {name} must be finite, but entry [{i},{j}] is {array[i, j]}")
    if columns is not None and array.shape[1] != columns:
        raise InputError(f"the {name} must have {counted(columns, 'column')} (got {array.shape[1]})")
    return array
