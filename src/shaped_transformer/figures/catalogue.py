"""The figures by name: their modules, settings and datasets."""

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
from .pieces import PieceRunner

if TYPE_CHECKING:
    import xarray

FIGURES = (
    "collapse",
    "correlation",
    "density",
    "residual",
    "stability",
    "ablation",
    "convergence",
    "shaped-mlp",
    "spectrum",
    "deep-linear",
    "posterior",
    "masks",
    "context",
    "gradients",
    "weightless",
    "ntk",
    "zoo",
    "rehearsal",
    "training",
)
"""Names of the figures. Each is a module with `compute`, `headline` and `plot`, and a file of settings."""
LONG = ("training",)
"""Figures that take more than ten minutes with full settings, and are therefore not part of `--all`."""
PRESETS = Path(__file__).parent / "presets"
"""Folder of the settings."""


def load_module(name: str) -> ModuleType:
    """Import the module of a figure.

    **Raises:** `InputError` if there is no such figure.
    """
    if name not in FIGURES:
        raise InputError(f"unknown figure {name!r}: choose one of {', '.join(FIGURES)}")
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)


def description(name: str) -> str:
    """Return a line that says what a figure shows."""
    return (load_module(name).__doc__ or "").strip().splitlines()[0]


def settings(name: str, *, quick: bool = False, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a figure.

    **Arguments:**

    - `name`: the figure.
    - `quick`: whether to return the settings that take seconds, default the full ones.
    - `changes`: settings to replace, default none.

    **Returns:** the checked keyword arguments of the figure's `compute`.

    **Raises:** `InputError` with the setting that is wrong.
    """
    load_module(name)
    preset = read_yaml(PRESETS / f"{name}.yaml")
    return check(name, preset["quick" if quick else "full"] | (changes or {}))


def check(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Check settings against the signature of a figure's `compute`.

    **Raises:** `InputError` with the setting that is unknown, missing or of the wrong type.
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
    """Return the pydantic model of a figure's settings, made from the signature of its `compute`."""
    from pydantic import ConfigDict, create_model

    parameters = list(inspect.signature(load_module(name).compute).parameters.values())[1:]  # without the piece runner
    fields: Any = {p.name: (p.annotation, ...) for p in parameters}
    return create_model(f"settings of {name}", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def piece_runner(name: str, chosen: dict[str, Any], folder: Path) -> PieceRunner:
    """Return the runner of a figure's pieces, which stores them in a folder.

    It reads pieces that an earlier run with the same settings and version has left there.
    """
    key = json.dumps([name, chosen, __version__], sort_keys=True)
    return PieceRunner(folder / f".pieces-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}")


def compute(name: str, chosen: dict[str, Any], runner: PieceRunner | None = None) -> "xarray.Dataset":
    """Compute the dataset of a figure.

    **Arguments:**

    - `name`: the figure.
    - `chosen`: its settings.
    - `runner`: runner of its pieces; `None` (default) stores none.

    **Returns:** the dataset, with the figure, its settings and the version as attributes.
    """
    data: xarray.Dataset = load_module(name).compute(runner or PieceRunner(), **chosen)
    return data.assign_attrs(figure=name, settings=json.dumps(chosen), version=__version__)


def load(name: str, path: Path) -> "xarray.Dataset":
    """Read the dataset of a figure.

    **Raises:** `StorageError` if it cannot be read; `InputError` if it is the dataset of another figure.
    """
    data = read_store(path)
    if (found := data.attrs.get("figure")) != name:
        raise InputError(f"{path} holds {f'the figure {found!r}' if found else 'no figure'}, not {name!r}")
    return data
