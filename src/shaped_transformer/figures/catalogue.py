"""The figures by name: their settings, from files beside this one, and the way from settings to a finished picture."""

import hashlib
import importlib
import inspect
import json
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..design.definition import describe_problem
from ..errors import InputError
from ..io.files import read_store
from ..io.yaml import read_yaml
from ..version import __version__
from .pieces import Pieces

if TYPE_CHECKING:
    import xarray

FIGURES = (
    "correlation",
    "density",
    "residual",
    "stability",
    "ablation",
    "convergence",
    "shaped-mlp",
    "spectrum",
    "masks",
    "context",
    "gradients",
    "training",
)
"""In the order of the documentation. Each is a module with `compute`, `draw`, `headline`, and a file of settings."""
LONG = ("training",)
"""Figures whose full settings take more than ten minutes: `--all` leaves these to be made by their names."""
PRESETS = Path(__file__).parent / "presets"


def module(name: str) -> ModuleType:
    """Return the module of a figure.

    **Raises:** `InputError` if there is no such figure.
    """
    if name not in FIGURES:
        raise InputError(f"no figure {name!r}: choose one of {', '.join(FIGURES)}")
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)


def description(name: str) -> str:
    """Return in one line what a figure shows."""
    return (module(name).__doc__ or "").strip().splitlines()[0]


def settings(name: str, *, quick: bool = False, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a figure.

    **Arguments:** `quick`: those that take seconds instead of the full ones; `changes`: what to set otherwise.

    **Returns:** the keyword arguments of the figure's `compute`, checked.

    **Raises:** `InputError` naming the setting that is wrong.
    """
    module(name)
    preset = read_yaml(PRESETS / f"{name}.yaml")
    return check(name, preset["quick" if quick else "full"] | (changes or {}))


def check(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Check settings against the signature of a figure's `compute`.

    **Raises:** `InputError` naming the setting that is unknown, missing or of the wrong type.
    """
    from pydantic import ValidationError

    model = _model(name)
    try:
        return dict(model(**values))
    except ValidationError as error:
        first = error.errors()[0]
        key, known = ".".join(map(str, first["loc"])), ", ".join(model.model_fields)
        if first["type"] == "extra_forbidden":
            raise InputError(f"figure {name} has no setting {key!r}: choose from {known}") from None
        raise InputError(f"figure {name}: {describe_problem(first, key)}") from None


@lru_cache
def _model(name: str) -> Any:
    from pydantic import ConfigDict, create_model

    parameters = list(inspect.signature(module(name).compute).parameters.values())[1:]  # the first takes the pieces
    fields: Any = {p.name: (p.annotation, ...) for p in parameters}
    return create_model(f"settings of {name}", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def unfinished(name: str, chosen: dict[str, Any], folder: Path) -> Pieces:
    """Return the pieces of a figure with these settings that an earlier run may have left in a folder."""
    made = json.dumps([name, chosen, __version__], sort_keys=True)
    return Pieces(folder / f".pieces-{name}-{hashlib.sha256(made.encode()).hexdigest()[:12]}")


def compute(name: str, chosen: dict[str, Any], pieces: Pieces | None = None) -> "xarray.Dataset":
    """Compute the dataset of a figure.

    **Arguments:** `chosen`: its settings; `pieces`: where finished pieces are kept.

    **Returns:** the dataset, which knows its figure, settings and version.
    """
    data: xarray.Dataset = module(name).compute(pieces or Pieces(), **chosen)
    return data.assign_attrs(figure=name, settings=json.dumps(chosen), version=__version__)


def load(name: str, path: Path) -> "xarray.Dataset":
    """Read the dataset of a figure.

    **Raises:** `StorageError` if it cannot be read; `InputError` if it is another figure's.
    """
    data = read_store(path)
    if (found := data.attrs.get("figure")) != name:
        raise InputError(f"{path} holds {f'the figure {found!r}' if found else 'no figure'}, not {name!r}")
    return data
