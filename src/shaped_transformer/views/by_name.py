"""The three views by name, for what takes a view as an argument."""

from typing import Any

from . import chain, network, sde

VIEWS: dict[str, Any] = {"network": network, "chain": chain, "sde": sde}
