"""The points of a sweep: their parameters, their places in the store, and the design that each one samples."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import inputs
from ...checks import check_count, check_seed
from ...design.architecture import PRESETS, Architecture
from ...errors import InputError, ShapedTransformerError
from ...numerics.arrays import Floats
from ...views import sampling, sde
from ...views.by_name import VIEWS
from .schema import DEFAULTS, DESIGN

Index = tuple[int, ...]
"""The place of a point in the store, one number for each dimension."""


@dataclass(frozen=True, eq=False)
class Point:
    """A checked design, with everything that is needed to sample it, in any process.

    **Attributes:** `view`: name of the view; `architecture`, `v0`, `samples`, `seed`: arguments of its `sample`.
    """

    view: str
    architecture: Architecture
    v0: Floats
    samples: int
    seed: int


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep, and the observables that are stored for each.

    ```python
    from shaped_transformer.analysis import sweeps

    sweep = sweeps.from_dict({"base": {"width": 16, "depth": 4}, "grid": {"gamma": [0.3, 0.6], "seed": [0, 1]}})
    print(sweep.shape, [sweep.label(index) for index in sweep.indices()])
    ```

    **Attributes:**

    - `base`: parameters that all points share.
    - `axes`: name and values of each axis of a grid; empty for a list of points.
    - `points`: parameters of each point of a list; empty for a grid.
    - `keep`: names of the stored observables.
    - `folder`: folder of the texts that the parameters name, default the current one.
    """

    base: dict[str, Any]
    axes: dict[str, tuple[Any, ...]]
    points: tuple[dict[str, Any], ...]
    keep: tuple[str, ...]
    folder: Path = Path()

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the store's dimensions."""
        return tuple(self.axes) or ("point",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the store's dimensions."""
        return tuple(len(values) for values in self.axes.values()) or (len(self.points),)

    @property
    def layout(self) -> tuple[Any, ...]:
        """The axes and points in order: sweeps with the same layout give each point the same index."""
        return tuple(self.axes.items()), self.points

    def indices(self) -> Iterator[Index]:
        """Return the indices of all points, in order."""
        return itertools.product(*(range(n) for n in self.shape))

    def parameters(self, index: Index) -> dict[str, Any]:
        """Return the parameters of a point that `base` does not give."""
        if not self.axes:
            return self.points[index[0]]
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}

    def label(self, index: Index) -> str:
        """Return these parameters as text, such as `gamma=0.2, width=8`."""
        return ", ".join(f"{name}={value_as_specified(value)}" for name, value in self.parameters(index).items())

    def point(self, index: Index) -> Point:
        """Return the checked design of a point.

        **Raises:** `ShapedTransformerError` if it cannot be sampled.
        """
        values = DEFAULTS | self.base | self.parameters(index)
        if values["view"] not in VIEWS:
            raise InputError(f"unknown view {values['view']!r}: choose one of {', '.join(VIEWS)}")
        samples, seed = check_count(values["samples"], "samples"), check_seed(values["seed"])
        arch = _architecture(values)
        if values["text"] is None:
            v0 = inputs.equicorrelated(values["tokens"], values["correlation"])
        else:
            v0 = inputs.from_text(self.folder / values["text"]["file"], max_tokens=values["tokens"])
        v0 = sampling.check_covariance(arch, v0)
        sampling.initial_factor(v0, arch.width)  # its rank must fit the width
        sampling.check_memory(samples, 1, len(v0))
        if values["view"] == "sde":
            sde.check_limit(arch)
            sde.check_steps(arch, len(v0))
        return Point(values["view"], arch, v0, samples, seed)

    def to_dict(self) -> dict[str, Any]:
        """Return the complete specification as JSON values."""
        return {
            "base": dict(sorted(self.base.items())),
            "grid": {name: list(values) for name, values in self.axes.items()},
            "list": list(self.points),
            "keep": list(self.keep),
        }


def value_as_specified(value: Any) -> Any:
    """Return the value of a parameter as the specification gives it: of a file its name, without its content.

    ```python
    from shaped_transformer.analysis import sweeps

    print(sweeps.value_as_specified({"file": "my.txt", "sha256": "…"}), sweeps.value_as_specified(0.3))  # my.txt 0.3
    ```

    **Arguments:**

    - `value`: the value, as a `Sweep` contains it.

    **Returns:** the value, or the file's name.
    """
    return value["file"] if isinstance(value, dict) else value


def _architecture(values: dict[str, Any]) -> Architecture:
    """Return the definition of a point, from its file or from its preset."""
    if values["architecture"] is not None:  # `trust` was checked when the file was read
        return Architecture.from_dict(values["architecture"]["definition"], trust=True)
    preset, design = values["preset"], {name: values[name] for name in DESIGN if name in values}
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    try:
        return PRESETS[preset](values["width"], values["depth"], **design)
    except TypeError:
        raise InputError(f"preset {preset} does not take all of {', '.join(design)}") from None


def check_points(sweep: Sweep) -> tuple[dict[Index, Point], dict[Index, str]]:
    """Check all points of a sweep.

    **Arguments:**

    - `sweep`: the sweep.

    **Returns:** the points that can be sampled, and for each other point the reason why it cannot.

    **Raises:** `InputError` if no point can be sampled, as when `base` is wrong.
    """
    points, failures = {}, {}
    for index in sweep.indices():
        try:
            points[index] = sweep.point(index)
        except (ShapedTransformerError, TypeError, ValueError) as error:
            failures[index] = describe_error(error)
    if not points:
        index, message = next(iter(failures.items()))
        raise InputError(f"no point of the sweep can be drawn. The first, {sweep.label(index)}: {message}")
    return points, failures


def describe_error(error: BaseException) -> str:
    """Return the kind and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
