"""Reading of a sweep's specification: a grid or a list of designs in a YAML file, checked before any is sampled."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...design.architecture import Architecture
from ...errors import InputError
from ...io.files import reading
from ...io.yaml import read_yaml
from .points import Sweep, value_as_specified
from .schema import DESIGN, check


def read(path: Path, *, trust: bool = False) -> Sweep:
    """Read a specification from a YAML file.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    Path("sweep.yaml").write_text("base: {width: 16, depth: 4}\\ngrid: {gamma: [0.3, 0.6]}")
    print(sweeps.read(Path("sweep.yaml")).axes)
    ```

    **Arguments:**

    - `path`: the file. Architectures and texts that it names are relative to it.
    - `trust`: whether functions that architectures name may be imported from any module, see `Definition.from_dict`;
      default no.

    **Returns:** the `Sweep`.

    **Raises:** `StorageError` if a file cannot be read; `InputError` with the key that is wrong.
    """
    return from_dict(read_yaml(path), Path(path).parent, trust=trust)


def architecture_files(path: Path) -> list[Path]:
    """Return the files of architectures that a specification names, without a check of its form.

    ```python
    from pathlib import Path
    from shaped_transformer.analysis import sweeps

    Path("sweep.yaml").write_text("grid: {architecture: [a.json, b.json]}")
    print(sweeps.architecture_files(Path("sweep.yaml")))
    ```

    **Arguments:**

    - `path`: the YAML file.

    **Returns:** the files, which may not exist.

    **Raises:** `StorageError` if the YAML file cannot be read; `InputError` if it is not YAML.
    """
    spec = read_yaml(path)
    values = [spec.get(key) for key in ("base", "grid", "list")] if isinstance(spec, dict) else []
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    named = [part.get("architecture") for part in parts if isinstance(part, dict)]
    files = [file for value in named for file in (value if isinstance(value, list) else [value])]
    return [Path(path).parent / file for file in files if isinstance(file, str)]


def from_dict(spec: Any, folder: Path = Path(), *, trust: bool = False) -> Sweep:
    """Check a specification: `base` (optional), one of `grid` and `list`, and `keep` (default: all of `KEPT`).

    ```python
    from shaped_transformer.analysis import sweeps

    spec = {"base": {"width": 16, "depth": 4}, "list": [{"gamma": 0.3}, {"preset": "deep_linear"}]}
    print(sweeps.from_dict(spec).points)
    ```

    **Arguments:**

    - `spec`: the values of the YAML file.
    - `folder`: folder of architectures and texts, default the current one. Their content becomes part of the sweep, so
      that the store records it and a changed file is noticed.
    - `trust`: as in `read`.

    **Returns:** the `Sweep`.

    **Raises:** `InputError` with the key that is wrong, the expected and the given value; `StorageError` if a file
    cannot be read.
    """
    given = check(spec)
    if bool(given.grid) == bool(given.points):
        raise InputError("give either grid (values of each parameter) or list (points), with at least one entry")
    if both := [name for name in given.grid if name in given.base]:
        raise InputError(f"{both[0]} is in both base and grid: leave one out")
    _check_whole_definitions(given.base, given.grid, given.points)
    files = _Files(folder, trust)
    base, *points = ({name: files.resolve(name, v) for name, v in part.items()} for part in (given.base, *given.points))
    axes = {name: tuple(files.resolve(name, value) for value in values) for name, values in given.grid.items()}
    for name, axis in axes.items():
        if (at := _first_repeated(axis)) is not None:
            raise InputError(f"grid.{name} has {value_as_specified(axis[at])!r} twice: leave one out")
    if (at := _first_repeated(points)) is not None:
        raise InputError(f"list[{at}] appears twice: leave one out")
    return Sweep(base, axes, tuple(points), given.keep, folder)


@dataclass(frozen=True)
class _Files:
    """The folder of the files that a specification names, and whether functions in them may be imported."""

    folder: Path
    trust: bool

    def resolve(self, name: str, value: Any) -> Any:
        """Return the complete value of a parameter: of a file its name and content."""
        if value is None or name not in ("architecture", "text"):
            return value
        file = self.folder / value
        if name == "architecture":
            return {"file": value, "definition": Architecture.read(file, trust=self.trust).to_dict()}
        with reading(file):
            return {"file": value, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _first_repeated(values: Any) -> int | None:
    """Return the position of the first value that appears a second time."""
    return next((i for i, value in enumerate(values) if value in values[:i]), None)


def _check_whole_definitions(base: dict[str, Any], grid: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """Refuse design parameters beside an architecture, which already contains them."""
    groups = [("base and grid", [*base, *grid]), *((f"list[{i}]", [*base, *p]) for i, p in enumerate(points))]
    for group, names in groups:
        extra = [name for name in ("preset", "width", "depth", *DESIGN) if name in names]
        if "architecture" in names and extra:
            raise InputError(f"{group}: architecture is a whole definition: leave out {', '.join(extra)}")
