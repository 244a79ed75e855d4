"""The result of every view: covariances of many samples at the recorded layers, with what made them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..design.architecture import Architecture
from ..errors import DefinitionError, InputError, StorageError
from ..estimates import CONFIDENCE, LEVELS, Estimate, quantiles
from ..io.files import read_store, replacing
from ..io.provenance import command_line
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES
from ..version import __version__

if TYPE_CHECKING:
    import xarray

    from .sampling import Drawn, Walk


ARRAYS = ("initial", "covariance", "eigenvalues", "depth", "stopped")
ATTRIBUTES = ("view", "architecture", "seed", "settings", "version", "command")
"""What a store must hold to be an ensemble."""


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """Draws of the token covariance V through depth.

    **Attributes:**

    - `view`: `"network"`, `"chain"` or `"sde"`.
    - `architecture`: the definition that was drawn.
    - `initial`: V0, (m, m).
    - `covariance`: V, (samples, records, m, m). After a path has stopped, its last V.
    - `eigenvalues`: of V, (samples, records, m), largest first, from the factor: exact far below the rounding of V.
    - `depth`: recorded layers, (records,); whole numbers unless a step of the SDE falls between layers.
    - `stopped`: first layer at which an eigenvalue left the window, (samples,); depth + 1 if none did. Downwards only
      the rank(V0) largest eigenvalues count.
    - `seed`, `settings`: what was asked for; `version`, `command`: what made it.
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
        cls, drawn: "Drawn", walk: "Walk", records: NDArray[np.int64], v0: Floats, seed: int, settings: dict[str, Any]
    ) -> Self:
        """Wrap the draws of a walk, whose steps are turned into layers."""
        depth = walk.architecture.depth
        layers = records * depth / walk.steps
        whole = np.rint(layers).astype(np.int64)
        stopped = np.ceil(drawn.stopped * depth / walk.steps - 1e-9).astype(np.int64)
        return cls(
            view=walk.view,
            architecture=walk.architecture,
            initial=v0,
            covariance=drawn.covariance,
            eigenvalues=drawn.eigenvalues,
            depth=whole if np.allclose(layers, whole, rtol=0, atol=1e-9) else layers,
            stopped=np.where(drawn.stopped > walk.steps, depth + 1, stopped),
            seed=int(seed),
            settings=settings,
            version=__version__,
            command=command_line(),
        )

    def __repr__(self) -> str:
        n, d = self.architecture.width, self.architecture.depth
        frozen = int(np.sum(self.stopped <= d))
        return (
            f"Ensemble({self.view}: {self.samples} samples of {self.tokens} tokens, width {n}, depth {d}, "
            f"{len(self.depth)} records, {frozen} stopped, seed {self.seed})"
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
        """Return ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}), (samples, records, m, m); 0 for a token of norm 0."""
        return OBSERVABLES["correlation"].of(self)

    def mean_token_norm(self) -> Floats:
        """Return tr V / m, the mean over tokens of ‖x‖²/n, (samples, records)."""
        return OBSERVABLES["mean_token_norm"].of(self)

    def effective_rank(self) -> Floats:
        """Return exp of the entropy of the normalised eigenvalues, between 1 and m, (samples, records)."""
        return OBSERVABLES["effective_rank"].of(self)

    def log_determinant(self) -> Floats:
        """Return log det V, (samples, records).

        **Raises:** `InputError` where V is singular as far as float64 factors can tell.
        """
        return OBSERVABLES["log_determinant"].of(self)

    def quantiles(
        self,
        statistic: str,
        q: Sequence[float] = LEVELS,
        *,
        confidence: float = CONFIDENCE,
    ) -> Estimate[Floats]:
        """Return quantiles over the samples at each record, with bootstrap intervals.

        **Arguments:**

        - `statistic`: name of an observable, such as `"effective_rank"`; `st.statistics.OBSERVABLES` has all.
        - `q`: the quantiles, in [0, 1].
        - `confidence`: of the intervals, default 0.95.

        **Returns:** an `Estimate` whose `value`, `low`, `high` are (quantiles, records, …).

        **Raises:** `InputError` for an unknown statistic or a number out of range.
        """
        return quantiles(self.observe(statistic), q, confidence=confidence)

    def observe(self, name: str) -> Floats:
        """Return an observable of every sample at each record, (samples, records, …).

        **Arguments:**

        - `name`: one of `st.statistics.OBSERVABLES`.

        **Raises:** `InputError` for an unknown name, or an observable of pairs where there is one token.
        """
        if name not in OBSERVABLES:
            raise InputError(f"statistic must be one of {', '.join(OBSERVABLES)} (got {name!r})")
        observable = OBSERVABLES[name]
        if self.tokens < observable.tokens:
            raise InputError(f"{name} needs at least {observable.tokens} tokens (got {self.tokens})")
        return observable.of(self)

    def to_xarray(self) -> "xarray.Dataset":
        """Return the ensemble as an `xarray.Dataset` with dimensions sample, record, token and other_token."""
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
        """Return what made the ensemble, as plain values; definition and settings are JSON."""
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
        """Return the ensemble that `to_xarray` described.

        **Arguments:** `data`: the dataset; `trust`: whether functions that the architecture names may be of any module,
        as in `Architecture.from_dict`.

        **Raises:** `InputError` if something is missing or damaged; `DefinitionError` for an architecture that cannot
        be, or a function that needs trust.
        """
        try:
            made: dict[str, Any] = {name: data[name].to_numpy() for name in ARRAYS}
            made |= {name: data.attrs[name] for name in ("view", "version", "command")}
            made |= {
                "architecture": Architecture.from_dict(json.loads(data.attrs["architecture"]), trust=trust),
                "settings": json.loads(data.attrs["settings"]),
                "seed": int(data.attrs["seed"]),
            }
            _see_whole(made)
        except DefinitionError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"the dataset is not an ensemble ({reason}): it must come from Ensemble.save") from None
        return cls(**{field.name: made[field.name] for field in fields(cls)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ensemble as a zarr store: a folder with definition, seed, version and command inside.

        An older ensemble at the same place is replaced at once when the new one is complete; anything else is left
        alone.

        **Raises:** `StorageError` if it cannot be written, or if there is something else at this place.
        """
        place = Path(path)
        with replacing(place) as temporary:
            if place.exists() and not _is_ensemble(place):
                raise StorageError(f"{place} exists and is no ensemble: choose another place, or remove it first")
            self.to_xarray().to_zarr(temporary, mode="w", zarr_format=2)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Self:
        """Read what `save` wrote.

        **Arguments:** `path`: the store; `trust`: whether functions that the architecture names may be of any module,
        as in `Architecture.from_dict`.

        **Raises:** `StorageError` if there is no store that can be read, `InputError` if it is not an ensemble,
        `DefinitionError` if its architecture cannot be, or a function needs trust.
        """
        return cls.of_xarray(read_store(Path(path)), trust=trust)


def _is_ensemble(place: Path) -> bool:
    """Whether `Ensemble.save` wrote what is at this place, whole or damaged."""
    try:
        attributes = json.loads((place / ".zattrs").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    whole = all((place / name / ".zarray").is_file() for name in ARRAYS)
    return whole and isinstance(attributes, dict) and set(ATTRIBUTES) <= attributes.keys()


def _see_whole(made: dict[str, Any]) -> None:
    """Raise `ValueError` unless shapes agree and all numbers are numbers: a chunk that is lost reads as NaN or 0."""
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
            raise ValueError(f"{name} holds what is no number")
    if (np.diff(made["depth"]) <= 0).any():
        raise ValueError("depth does not grow")
