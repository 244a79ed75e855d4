"""Explorer: a local page in the browser, on which designs are changed by sliders and seen at once (extra `explore`)."""

from ..errors import MissingExtra

try:
    import dash as _dash  # noqa: F401
except ImportError:
    raise MissingExtra("explore", "shaped_transformer.explore") from None

from .server import Server, start

__all__ = ["Server", "start"]


def __dir__() -> list[str]:
    return sorted(__all__)
