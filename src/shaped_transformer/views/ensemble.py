"""The result of every view: covariances of many samples at the recorded layers, with the settings that made them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..design.architecture import Architecture
from ..errors import DefinitionError, InputError, StorageError, counted
from ..estimates import CONFIDENCE, LEVELS, Estimate, quantiles
from ..io.files import read_store, replacing
from ..io.provenance import command_line
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES
from ..version import __version__

if TYPE_CHECKING:
    import xarray

    from .sampling import Paths, Walk


ARRAYS = ("initial", "covariance", "eigenvalues", "depth", "stopped")
"""Arrays that a store must contain to be an ensemble."""

ATTRIBUTES = ("view", "architecture", "seed", "settings", "version", "command")
"""Attributes that a store must have to be an ensemble."""


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """Samples of the token covariance V at the recorded layers.

    ```python
    v0 = st.inputs.equicorrelated(tokens=4, correlation=0.2)
    chain = st.chain.sample(st.shaped_transformer(width=64, depth=8), v0, samples=16, seed=0)
    chain.depth  # [0, 1, …, 8]
    chain.covariance.shape  # (16, 9, 4, 4)
    ```

    **Attributes:**

    - `view`: `"network"`, `"chain"` or `"sde"`.
    - `architecture`: the definition of the network.
    - `initial`: V0, (m, m).
    - `covariance`: V, (samples, records, m, m); after a path has stopped, its last V.
    - `eigenvalues`: eigenvalues of V, (samples, records, m), largest first. They are computed from the factor, and
      accurate far below the rounding error of V.
    - `depth`: recorded layers, (records,); whole numbers, unless a recorded step of the SDE is between two layers.
    - `stopped`: first layer at which an eigenvalue was outside the window, (samples,); depth + 1 if none was. Only the
      rank(V0) largest eigenvalues are compared with the lower end.
    - `seed`, `settings`: arguments of `sample`.
    - `version`, `command`: version of the library, and command line of the process.
    """

    view: str
    architecture: Architecture
    initial: Floats
    covariance: Floats
    eigenvalues: Floats
    depth: NDArray[Any]
    stopped: NDArray[np.int64]
    seed: int
    settings: dict[str, Any]
    version: str
    command: str

    @classmethod
    def of_draws(
        cls, paths: "Paths", walk: "Walk", records: NDArray[np.int64], v0: Floats, seed: int, settings: dict[str, Any]
    ) -> Self:
        """Return the ensemble of the paths of a walk, with steps converted to layers."""
        depth = walk.architecture.depth
        layers = records * depth / walk.steps
        whole = np.rint(layers).astype(np.int64)
        stopped = np.ceil(paths.stopped * depth / walk.steps - 1e-9).astype(np.int64)
        return cls(
            view=walk.view,
            architecture=walk.architecture,
            initial=v0,
            covariance=paths.covariance,
            eigenvalues=paths.eigenvalues,
            depth=whole if np.allclose(layers, whole, rtol=0, atol=1e-9) else layers,
            stopped=np.where(paths.stopped > walk.steps, depth + 1, stopped),
            seed=int(seed),
            settings=settings,
            version=__version__,
            command=command_line(),
        )

    def __repr__(self) -> str:
        n, d = self.architecture.width, self.architecture.depth
        frozen = int(np.sum(self.stopped <= d))
        return (
            f"Ensemble({self.view}: {counted(self.samples, 'sample')} of {counted(self.tokens, 'token')}, "
            f"width {n}, depth {d}, {counted(len(self.depth), 'record')}, {frozen} stopped, seed {self.seed})"
        )

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.covariance)

    @property
    def tokens(self) -> int:
        """Number of tokens m."""
        return int(self.covariance.shape[-1])

    @property
    def time(self) -> Floats:
        """Time of the limit at each record, depth / width, (records,)."""
        return np.asarray(self.depth / self.architecture.width)

    def correlation(self) -> Floats:
        """Return the correlations of tokens, ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}).

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.correlation().shape  # (2, 5, 3, 3)
        ```

        **Returns:** ρ, (samples, records, m, m); 0 for a token of norm 0.
        """
        return OBSERVABLES["correlation"].of(self)

    def mean_token_norm(self) -> Floats:
        """Return tr V / m, the mean over tokens of ‖x‖²/n.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.mean_token_norm()[:, 0]  # [1.0, 1.0], that of the input
        ```

        **Returns:** (samples, records).
        """
        return OBSERVABLES["mean_token_norm"].of(self)

    def effective_rank(self) -> Floats:
        """Return the effective rank: exp of the entropy of the eigenvalues, normalised to sum 1.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.effective_rank()[:, 0]  # [3.0, 3.0], that of the input
        ```

        **Returns:** numbers between 1 and m, (samples, records).
        """
        return OBSERVABLES["effective_rank"].of(self)

    def log_determinant(self) -> Floats:
        """Return log det V.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.log_determinant()[:, 0]  # [0.0, 0.0], that of the input
        ```

        **Returns:** (samples, records).

        **Raises:** `InputError` if V is singular, as far as factors in float64 resolve it.
        """
        return OBSERVABLES["log_determinant"].of(self)

    def quantiles(
        self,
        statistic: str,
        q: Sequence[float] = LEVELS,
        *,
        confidence: float = CONFIDENCE,
    ) -> Estimate[Floats]:
        """Return quantiles of an observable over the samples, at each recorded layer, with bootstrap intervals.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=16, seed=0)
        chain.quantiles("effective_rank", (0.5,)).value.shape  # (1, 5): the median at each recorded layer
        ```

        **Arguments:**

        - `statistic`: name of an observable, one of `st.statistics.OBSERVABLES`.
        - `q`: the quantiles, in [0, 1]; default 5, 50 and 95 %.
        - `confidence`: of the intervals, default 0.95.

        **Returns:** an `Estimate` whose `value`, `low`, `high` are (quantiles, records, …).

        **Raises:** `InputError` for an unknown name or a number out of range.
        """
        return quantiles(self.observe(statistic), q, confidence=confidence)

    def observe(self, name: str) -> Floats:
        """Return an observable of every sample at each recorded layer.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.observe("rho12").shape  # (2, 5)
        ```

        **Arguments:**

        - `name`: one of `st.statistics.OBSERVABLES`.

        **Returns:** (samples, records, …).

        **Raises:** `InputError` for an unknown name, or an observable that needs more tokens.
        """
        if name not in OBSERVABLES:
            raise InputError(f"statistic must be one of {', '.join(OBSERVABLES)} (got {name!r})")
        observable = OBSERVABLES[name]
        if self.tokens < observable.tokens:
            raise InputError(f"{name} needs at least {counted(observable.tokens, 'token')} (got {self.tokens})")
        return observable.of(self)

    def to_xarray(self) -> "xarray.Dataset":
        """Return the ensemble as an `xarray.Dataset`.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.to_xarray()["covariance"].mean("sample")
        ```

        **Returns:** a dataset with the dimensions sample, record, token and other_token.
        """
        import xarray as xr

        tokens = ("token", "other_token")
        return xr.Dataset(
            {
                "covariance": (("sample", "record", *tokens), self.covariance),
                "eigenvalues": (("sample", "record", "token"), self.eigenvalues),
                "stopped": (("sample",), self.stopped),
                "initial": (tokens, self.initial),
            },
            coords={"depth": ("record", self.depth), "time": ("record", self.time)},
            attrs=self.attributes(),
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of `to_xarray`, from which the ensemble can be drawn again.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.attributes()["view"]  # "chain"
        ```

        **Returns:** view, architecture (JSON), seed, settings (JSON), version and command.
        """
        return {
            "view": self.view,
            "architecture": json.dumps(self.architecture.to_dict()),
            "seed": self.seed,
            "settings": json.dumps(self.settings),
            "version": self.version,
            "command": self.command,
        }

    @classmethod
    def of_xarray(cls, data: "xarray.Dataset", *, trust: bool = False) -> Self:
        """Return the ensemble that `to_xarray` converted to a dataset.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        st.Ensemble.of_xarray(chain.to_xarray())
        ```

        **Arguments:**

        - `data`: the dataset.
        - `trust`: whether a function that the architecture names may come from any module, as in
          `Architecture.from_dict`; default no.

        **Returns:** the ensemble.

        **Raises:** `InputError` if something is missing or damaged; `DefinitionError` if the architecture is invalid or
        names a function that needs trust.
        """
        try:
            made: dict[str, Any] = {name: data[name].to_numpy() for name in ARRAYS}
            made |= {name: data.attrs[name] for name in ("view", "version", "command")}
            made |= {
                "architecture": Architecture.from_dict(json.loads(data.attrs["architecture"]), trust=trust),
                "settings": json.loads(data.attrs["settings"]),
                "seed": int(data.attrs["seed"]),
            }
            _check_arrays(made)
        except DefinitionError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"the dataset is not an ensemble ({reason}): it must come from Ensemble.save") from None
        return cls(**{field.name: made[field.name] for field in fields(cls)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ensemble as a zarr store, a folder that includes the definition, seed, version and command.

        An older ensemble at `path` is replaced when the new one is complete. Anything else there is left alone.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.save("chain.zarr")
        ```

        **Arguments:**

        - `path`: the folder.

        **Raises:** `StorageError` if it cannot be written, or if there is something else at `path`.
        """
        place = Path(path)
        with replacing(place) as temporary:
            if place.exists() and not _is_ensemble(place):
                raise StorageError(f"{place} exists and is not an ensemble: choose another place, or remove it first")
            self.to_xarray().to_zarr(temporary, mode="w", zarr_format=2)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Self:
        """Return the ensemble that `save` wrote.

        ```python
        chain = st.chain.sample(st.deep_linear(8, 4), np.eye(3), samples=2, seed=0)
        chain.save("chain.zarr")
        st.Ensemble.load("chain.zarr").samples  # 2
        ```

        **Arguments:**

        - `path`: the folder.
        - `trust`: whether a function that the architecture names may come from any module, as in
          `Architecture.from_dict`; default no.

        **Returns:** the ensemble.

        **Raises:** `StorageError` if there is no store that can be read, `InputError` if it is not an ensemble (it
        names what reads the library's other stores), `DefinitionError` if its architecture is invalid or names a
        function that needs trust.
        """
        place = Path(path)
        data = read_store(place)
        if other := _other_content(place, data):
            raise InputError(f"{place} is not an ensemble, but holds {other}")
        return cls.of_xarray(data, trust=trust)


def joined(parts: Sequence[Ensemble]) -> Ensemble:
    """Return one ensemble of the samples of several, which differ in nothing else."""
    arrays = ("covariance", "eigenvalues", "stopped")
    together: dict[str, Any] = {name: np.concatenate([getattr(e, name) for e in parts]) for name in arrays}
    return replace(parts[0], **together)


def _is_ensemble(place: Path) -> bool:
    """Whether the store at `place` was written by `Ensemble.save`, even if its numbers are damaged."""
    try:
        attributes = json.loads((place / ".zattrs").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    whole = all((place / name / ".zarray").is_file() for name in ARRAYS)
    return whole and isinstance(attributes, dict) and set(ATTRIBUTES) <= attributes.keys()


def _other_content(place: Path, data: "xarray.Dataset") -> str | None:
    """Return what a store of the library holds instead of an ensemble and what reads it, or `None`."""
    if "covariance" in data:
        return None
    if views := sorted(group.parent.name for group in place.glob("*/.zgroup")):
        return (
            f"observables of the views {', '.join(views)}, and no covariances: open it with "
            f"xarray.open_datatree({str(place)!r}, engine='zarr')"
        )
    kinds = {
        "specification": "the results of a sweep",
        "figure": f"the data of the figure {data.attrs.get('figure')}",
        "view": f"observables of the view {data.attrs.get('view')}, and no covariances",
    }
    found = [kind for attribute, kind in kinds.items() if attribute in data.attrs]
    return f"{found[0]}: open it with xarray.open_zarr({str(place)!r}, consolidated=False)" if found else None


def _check_arrays(made: dict[str, Any]) -> None:
    """Check that shapes agree and all numbers are finite: a missing chunk of a store is read as NaN or 0.

    **Raises:** `ValueError` otherwise.
    """
    samples, records, tokens = made["eigenvalues"].shape
    shapes = {
        "initial": (tokens, tokens),
        "covariance": (samples, records, tokens, tokens),
        "depth": (records,),
        "stopped": (samples,),
    }
    for name, shape in shapes.items():
        if made[name].shape != shape:
            raise ValueError(f"{name} has the shape {made[name].shape}, not {shape}")
    for name in ARRAYS:
        if made[name].dtype.kind not in "iuf" or not np.isfinite(made[name]).all():
            raise ValueError(f"{name} contains values that are not finite numbers")
    if (np.diff(made["depth"]) <= 0).any():
        raise ValueError("depth does not increase")
