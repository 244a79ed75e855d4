"""The exceptions of the library, one family: `except st.ShapedTransformerError` catches them all.

Each message says what was expected, what was given, and how to fix it.
"""


class ShapedTransformerError(Exception):
    """Base class of every error that the library raises on purpose.

    ```python
    try:
        st.inputs.equicorrelated(tokens=3, correlation=2.0)
    except st.ShapedTransformerError as error:
        print(error)  # correlation must lie in [-0.5, 1] for 3 tokens (got 2): …
    ```
    """


class DefinitionError(ShapedTransformerError, ValueError):
    """A layer, activation or architecture that cannot be built with these values.

    ```python
    try:
        st.Residual(st.ShapedAttention(), scale=1.5)
    except st.DefinitionError as error:
        print(error)  # Residual: scale (gamma) must lie in (0, 1], got 1.5: …
    ```
    """


class InputError(ShapedTransformerError, ValueError):
    """An argument of a function, or the content of a file, that cannot be used.

    ```python
    try:
        st.inputs.from_covariance([[1.0, 2.0], [2.0, 1.0]])
    except st.InputError as error:
        print(error)  # the covariance must be positive semi-definite, but its smallest eigenvalue is -1: …
    ```
    """


class NoProportionalLimit(ShapedTransformerError, ValueError):  # noqa: N818 - the name says what is missing
    """An architecture whose covariance has no limit of proportional depth and width; the message gives the reason.

    ```python
    try:
        st.sde.sample(st.skipless_transformer(8, 2), np.eye(3), samples=1, seed=0)
    except st.NoProportionalLimit as error:
        print(error)  # layer 0 of the block has no proportional limit: …
    ```
    """


class NotConverged(ShapedTransformerError, RuntimeError):  # noqa: N818 - the name says what did not happen
    """A posterior that neither draws of the prior nor moves of networks reach; the message says how far it is.

    ```python
    try:
        model = st.bayes.Regressor(st.deep_linear(2, 2), noise=1e-9, samples=32, min_effective_samples=30)
        model.fit([[1.0], [2.0], [3.0], [4.0]], [1.0, -1.0, 1.0, 1.0])
    except st.NotConverged as error:
        print(error)  # the posterior was not reached: …
    except st.MissingExtra:
        pass
    ```
    """


class StorageError(ShapedTransformerError, OSError):
    """A file or folder that is missing, cannot be read or cannot be written.

    ```python
    try:
        st.Ensemble.load("missing.zarr")
    except st.StorageError as error:
        print(error)  # no such store: missing.zarr
    ```
    """


class MissingExtra(ShapedTransformerError, ImportError):  # noqa: N818 - the name says what is missing
    """A part of the library that needs packages which are not installed.

    ```python
    try:
        st.training
    except st.MissingExtra as error:
        print(error)  # … pip install 'shaped-transformer[training]'
    ```

    **Arguments:**

    - `extra`: name of the extra that installs the packages.
    - `what`: the part of the library that needs them.
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs more packages: pip install 'shaped-transformer[{extra}]'")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun for a message, such as "1 head" or "8 heads"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
