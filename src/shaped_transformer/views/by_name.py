"""The three views by name, for functions whose argument is the name of a view."""

from typing import Any

from . import chain, network, sampling, sde

VIEWS: dict[str, Any] = dict(zip(sampling.VIEWS, (network, chain, sde), strict=True))
"""The module of each view."""
