"""One definition, its views side by side: the work behind the commands `compare` and `predict`."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import InputError, NoProportionalLimit
from ..estimates import LEVELS, two_sample
from ..numerics import compilation
from ..numerics.arrays import Floats
from ..observables import OBSERVABLES, RESOLUTION, smallest_eigenvalue
from ..views import chain, network, sampling, sde
from ..views.ensemble import Ensemble
from ..views.stopping import DEFAULT_WINDOW
from .verdict import Verdict, verdict

if TYPE_CHECKING:
    import xarray


RECORDS = 33
"""Layers kept for the curves against depth."""
COMPARED = ("mean_token_norm", "V11", "V12", "rho12", "smallest_eigenvalue", "effective_rank")
"""Observables that are compared."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Ensembles of several views of one network, with the time each took.

    **Attributes:**

    - `ensembles`: by view, in the order network, chain, sde; without those not drawn.
    - `seconds`: by view.
    - `no_limit`: why there is no `sde` view, or `None`.
    """

    ensembles: dict[str, Ensemble]
    seconds: dict[str, float]
    no_limit: str | None

    @property
    def compared(self) -> list[str]:
        """Names of the observables that exist: a correlation needs two tokens."""
        tokens = self.ensembles["chain"].tokens
        return [name for name in COMPARED if OBSERVABLES[name].tokens <= tokens]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per statistic at the last layer.

        **Returns:** dictionaries with `statistic`; `views`: median, 5 % and 95 % quantile by view; `pairs`:
        Kolmogorov–Smirnov distance and p-value by pair of views.
        """
        rows = []
        for name in self.compared:
            last = {view: e.observe(name)[:, -1] for view, e in self.ensembles.items()}
            bands = {view: np.quantile(x, LEVELS) for view, x in last.items()}
            rows.append(
                {
                    "statistic": name.replace("_", " "),
                    "views": {v: {"median": b[1], "low": b[0], "high": b[2]} for v, b in bands.items()},
                    "pairs": {
                        f"{a}-{b}": asdict(two_sample(*self._comparable(name, a, b))) for a, b in combinations(last, 2)
                    },
                }
            )
        return rows

    def _comparable(self, name: str, *views: str) -> list[Floats]:
        """Return an observable at the last layer in two views, with the resolution of the coarser one."""
        ensembles = [self.ensembles[view] for view in views]
        if name == "smallest_eigenvalue":
            coarser = max(RESOLUTION[view] for view in views)
            return [smallest_eigenvalue(e.eigenvalues[:, -1], coarser) for e in ensembles]
        return [e.observe(name)[:, -1] for e in ensembles]

    def verdict(self) -> Verdict:
        """Return the verdict of the chain, whose distribution is the network's."""
        return verdict(self.ensembles["chain"])

    def speed_up(self) -> float | None:
        """Return seconds per draw of the network over those of the chain, or `None` without networks."""
        if "network" not in self.ensembles:
            return None
        per_draw = {view: self.seconds[view] / e.samples for view, e in self.ensembles.items()}
        return per_draw["network"] / per_draw["chain"]

    def to_datatree(self) -> "xarray.DataTree":
        """Return the observables of every sample and record, one group per view, to be saved and plotted."""
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
    """Draw the views of one network from the same input.

    **Arguments:**

    - `architecture`, `v0`: the network and its initial covariance, (m, m).
    - `samples`: draws of the chain and of the SDE.
    - `network_samples`: real networks, which cost far more; `None` leaves them out.
    - `seed`: of all views; each has its own stream.
    - `steps`: of the SDE; `None` for a safe choice.
    - `workers`: threads, default all cores.

    **Returns:** a `Comparison`; without the SDE where the architecture has no limit.

    **Raises:** `InputError` for arguments out of range, an input beyond the window in which paths are followed, or
    draws that would fill the memory.
    """
    check_count(samples, "samples")
    if network_samples is not None:
        check_count(network_samples, "network_samples")
    v0 = sampling.check_covariance(architecture, v0)
    largest = float(np.linalg.eigvalsh(v0)[-1])
    if largest > DEFAULT_WINDOW[1]:
        raise InputError(
            f"the input's largest eigenvalue {largest:.3g} is beyond {DEFAULT_WINDOW[1]:g}, where paths are stopped: "
            "rescale"
        )
    common: dict[str, Any] = {"seed": seed, "record": RECORDS, "workers": workers, "stop": DEFAULT_WINDOW}
    no_limit = None
    try:
        sde.check_limit(architecture)
        sde.check_steps(architecture, len(v0), steps)
    except NoProportionalLimit as error:
        no_limit = str(error)
        if steps is not None:
            raise InputError(f"steps are the SDE's, and there is none: {error}") from None
    draws: dict[str, Callable[[], Ensemble]] = {}
    draws["chain"] = lambda: chain.sample(architecture, v0, samples, **common)
    if no_limit is None:
        draws["sde"] = lambda: sde.sample(architecture, v0, samples, steps=steps, **common)
    drawn = samples * len(draws) + (network_samples or 0)
    sampling.check_memory(drawn, min(RECORDS, architecture.depth + 1), len(v0))
    if network_samples is not None:
        draws["network"] = lambda: network.sample(architecture, v0, network_samples, **common)
    ensembles, seconds = {}, {}
    compilation.load_all()
    for view, run in draws.items():
        start = time.perf_counter()
        ensembles[view] = run()
        seconds[view] = time.perf_counter() - start
    order = [view for view in sampling.VIEWS if view in ensembles]
    return Comparison({v: ensembles[v] for v in order}, {v: seconds[v] for v in order}, no_limit)
