"""The three views by name, for functions that take a view as an argument."""

from typing import Any

from . import chain, network, sampling, sde

VIEWS: dict[str, Any] = dict(zip(sampling.VIEWS, (network, chain, sde), strict=True))
