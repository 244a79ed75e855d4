"""Comparison of the views of one network: the computation of the commands `compare` and `predict`."""

import time
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import InputError, NoProportionalLimit
from ..estimates import LEVELS, two_sample
from ..inputs import Covariance
from ..numerics import compilation
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES, RESOLUTION, smallest_eigenvalue
from ..views import sampling, sde
from ..views.by_name import VIEWS
from ..views.ensemble import Ensemble
from ..views.stopping import DEFAULT_WINDOW
from .criterion import Criterion
from .verdict import Verdict, verdict

if TYPE_CHECKING:
    import xarray


RECORDS = 33
"""Recorded layers, for the curves against depth."""
COMPARED = ("mean_token_norm", "V11", "V12", "rho12", "smallest_eigenvalue", "effective_rank")
"""Observables that are compared."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Ensembles of several views of one network, and their times.

    **Attributes:**

    - `ensembles`: the ensemble of each view that was sampled, in the order network, chain, sde.
    - `seconds`: time that each view took, s.
    - `no_limit`: the reason why there is no `sde` view, or `None`.
    """

    ensembles: dict[str, Ensemble]
    seconds: dict[str, float]
    no_limit: str | None

    @property
    def compared(self) -> list[str]:
        """Names of the observables that are defined for this number of tokens."""
        tokens = self.ensembles["chain"].tokens
        return [name for name in COMPARED if OBSERVABLES[name].tokens <= tokens]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each observable at the last layer.

        **Returns:** dictionaries with

        - `observable`: its name, as in `st.statistics.OBSERVABLES`.
        - `views`: median, 5 % and 95 % quantile (`median`, `low`, `high`) of each view.
        - `pairs`: Kolmogorov–Smirnov distance and p-value (`distance`, `p_value`) of each pair of views.
        """
        rows = []
        for name in self.compared:
            last = {view: e.observe(name)[:, -1] for view, e in self.ensembles.items()}
            bands = {view: np.quantile(x, LEVELS) for view, x in last.items()}
            rows.append(
                {
                    "observable": name,
                    "views": {v: {"median": b[1], "low": b[0], "high": b[2]} for v, b in bands.items()},
                    "pairs": {
                        f"{a}-{b}": asdict(two_sample(*self._comparable(name, a, b))) for a, b in combinations(last, 2)
                    },
                }
            )
        return rows

    def _comparable(self, name: str, *views: str) -> list[Floats]:
        """Return an observable at the last layer in two views, at the coarser of their resolutions."""
        ensembles = [self.ensembles[view] for view in views]
        if name == "smallest_eigenvalue":
            coarser = max(RESOLUTION[view] for view in views)
            return [smallest_eigenvalue(e.eigenvalues[:, -1], coarser) for e in ensembles]
        return [e.observe(name)[:, -1] for e in ensembles]

    def verdict(self, criterion: Criterion | None = None) -> Verdict:
        """Return the verdict on the chain, whose distribution is the network's."""
        return verdict(self.ensembles["chain"], criterion)

    def speed_up(self) -> float | None:
        """Return the time per sample of the network over that of the chain, or `None` without networks."""
        if "network" not in self.ensembles:
            return None
        per_draw = {view: self.seconds[view] / e.samples for view, e in self.ensembles.items()}
        return per_draw["network"] / per_draw["chain"]

    def to_datatree(self) -> "xarray.DataTree":
        """Return the observables of every sample and record, with one group per view."""
        import xarray as xr

        groups = {
            view: xr.Dataset(
                {name: (("sample", "record"), e.observe(name)) for name in self.compared},
                coords={"depth": ("record", e.depth), "time": ("record", e.time)},
                attrs=e.attributes(),
            )
            for view, e in self.ensembles.items()
        }
        return xr.DataTree.from_dict(groups)


def compare(
    architecture: Architecture,
    v0: ArrayLike,
    *,
    samples: int = 4096,
    network_samples: int | None = 512,
    seed: int = 0,
    steps: int | None = None,
    workers: int | None = None,
) -> Comparison:
    """Sample the views of one network from the same input.

    **Arguments:**

    - `architecture`: the network.
    - `v0`: its initial covariance, (m, m).
    - `samples`: samples of the chain and of the SDE, default 4096.
    - `network_samples`: number of real networks, which cost far more, default 512; `None` leaves them out.
    - `seed`: seed of all views, default 0; each view has its own random numbers.
    - `steps`: time steps of the SDE, default at least 100.
    - `workers`: number of threads, default all cores.

    **Returns:** a `Comparison`; without the SDE if the architecture has no limit.

    **Raises:** `InputError` if an argument is out of range, if the input is outside the window in which paths are
    followed, or if the samples do not fit into the memory.
    """
    check_count(samples, "samples")
    if network_samples is not None:
        check_count(network_samples, "network_samples")
    v0 = sampling.check_covariance(architecture, v0)
    largest = float(np.linalg.eigvalsh(v0)[-1])
    if largest > DEFAULT_WINDOW[1]:
        raise InputError(
            f"the input's largest eigenvalue {largest:.3g} is above {DEFAULT_WINDOW[1]:g}, where paths are stopped: "
            "rescale the input"
        )
    no_limit = _why_no_limit(architecture, len(v0), steps)
    counts = {"chain": samples}
    if no_limit is None:
        counts["sde"] = samples
    if network_samples is not None:
        counts["network"] = network_samples
    check_sizes(architecture, v0, *counts.values())
    ensembles, seconds = {}, {}
    compilation.load_all()
    for view, count in counts.items():
        options: dict[str, Any] = {"steps": steps} if view == "sde" else {}
        options |= {"seed": seed, "record": RECORDS, "workers": workers, "stop": DEFAULT_WINDOW}
        start = time.perf_counter()
        ensembles[view] = VIEWS[view].sample(architecture, v0, count, **options)
        seconds[view] = time.perf_counter() - start
    order = [view for view in VIEWS if view in ensembles]
    return Comparison({v: ensembles[v] for v in order}, {v: seconds[v] for v in order}, no_limit)


def check_sizes(architecture: Architecture, v0: Covariance, *samples: int) -> None:
    """Check that so many samples of the views fit into memory together.

    **Raises:** `InputError` if they do not.
    """
    sampling.check_memory(sum(samples), min(RECORDS, architecture.depth + 1), len(v0))


def _why_no_limit(architecture: Architecture, tokens: int, steps: int | None) -> str | None:
    """Return the reason why an architecture has no SDE, or `None` if it has one, after a check of `steps`."""
    try:
        sde.check_limit(architecture)
        sde.check_steps(architecture, tokens, steps)
    except NoProportionalLimit as error:
        if steps is not None:
            raise InputError(f"steps are for the SDE, and this network has none: leave them out ({error})") from None
        return str(error)
    return None
