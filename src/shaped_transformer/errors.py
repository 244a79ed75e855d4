"""The exceptions of the library: one family, so that one `except` catches them all.

Each message names what was expected, what came, and the way out.
"""


class ShapedTransformerError(Exception):
    """Root of every error this library raises on purpose."""


class DefinitionError(ShapedTransformerError, ValueError):
    """A layer, activation or architecture that cannot be built as asked."""


class InputError(ShapedTransformerError, ValueError):
    """An argument of a function, or the content of a file, that cannot be used."""


class NoProportionalLimit(ShapedTransformerError, ValueError):  # noqa: N818 - the name says what is missing
    """An architecture whose covariance has no depth-and-width limit; the message says why."""


class StorageError(ShapedTransformerError, OSError):
    """A file or folder that is missing, unreadable or cannot be written."""


class MissingExtra(ShapedTransformerError, ImportError):  # noqa: N818 - the name says what is missing
    """A part of the library needs packages that are not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs more packages: pip install 'shaped-transformer[{extra}]'")
