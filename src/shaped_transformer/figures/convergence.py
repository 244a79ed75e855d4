"""How near the exact chain is to its limit: distance and error of the SDE against width at fixed depth/width.

The left panel shows the largest difference between distribution functions. The right panel shows the error of the SDE
in the median of a statistic at width n, with the fitted rate n^(−r). It uses medians because the rare explosions of the
limit dominate means (theory §4).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..design.architecture import Architecture, shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..design.masks import Mask
from ..estimates import Estimate, from_array, median, normal, to_array, two_sample
from ..inputs import Covariance, equicorrelated
from ..numerics.arrays import Floats
from ..plotting.plots import add_legend_above
from ..plotting.style import SERIES
from ..views.by_name import VIEWS
from ..views.ensemble import Ensemble
from .observed import INTERVALS
from .pieces import Arrays, PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


Widths = Annotated[PositiveInts, Field(min_length=2)]
RATES = np.linspace(-1.0, 4.0, 5001)
"""Rates r among which the best is chosen: 1 in theory (§4), anywhere if the differences are noise."""

OBSERVED: dict[str, Callable[[Ensemble], Floats]] = {
    "log norm of token 1, log V₁₁": lambda e: np.log(e.observe("V11")[:, -1]),
    "correlation ρ₁₂": lambda e: e.observe("rho12")[:, -1],
    "effective rank": lambda e: e.observe("effective_rank")[:, -1],
}
"""The compared statistics of the last layer, by title."""


def compute(
    runner: PieceRunner,
    widths: Widths,
    time: PositiveFloat,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    c_plus: float,
    c_minus: float,
    mask: Mask,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    steps: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Compare chain and SDE at the last layer for several widths, the depth being `time` × width.

    **Arguments:**

    - `widths`: widths n, at least two.
    - `time`: depth over width.
    - `tau0`: temperature constant, large enough that the limit does not explode (theory §4).
    - `steps`: steps of the SDE, so many that its own error is small.
    - the others as in the figure `correlation`.

    **Returns:** over (width, statistic), the Kolmogorov–Smirnov `distance`, and the `difference` of the medians with
    its interval; the `rate` fitted to the differences, with its interval, and its `constant`; `noise`, the distance
    that two samples of the same distribution exceed with a probability of 5 %.
    """
    import xarray as xr
    from scipy.special import kolmogi

    v0 = equicorrelated(tokens, correlation)

    def design(width: int) -> Architecture:
        depth = max(1, round(time * width))
        return shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_plus=c_plus, c_minus=c_minus, mask=mask)

    tasks: dict[str, Task] = {f"chain {n}": partial(_draw, "chain", design(n), v0, samples, seed) for n in widths}
    tasks["sde"] = partial(_draw, "sde", design(max(widths)), v0, samples, seed, steps=steps)
    done = runner.run(tasks)
    limit = done["sde"]
    distance = [[two_sample(done[f"chain {n}"][s], limit[s]).distance for s in OBSERVED] for n in widths]
    differences = [[_difference(done[f"chain {n}"][s], limit[s]) for n in widths] for s in OBSERVED]
    fits = [fit_rate(np.asarray(widths), by_width) for by_width in differences]
    return xr.Dataset(
        {
            "distance": (("width", "statistic"), distance),
            "difference": (("statistic", "width", "bound"), to_array(differences)),
            "rate": (("statistic", "bound"), to_array(rate for rate, _ in fits)),
            "constant": ("statistic", [constant for _, constant in fits]),
            "noise": float(kolmogi(0.05) * np.sqrt(2 / samples)),
        },
        coords={"width": list(widths), "statistic": list(OBSERVED)} | INTERVALS,
        attrs={"time": time, "samples": samples},
    )


def _draw(view: str, arch: Architecture, v0: Covariance, samples: int, seed: int, **options: Any) -> Arrays:
    """Sample a view, and return the compared statistics."""
    ensemble = VIEWS[view].sample(arch, v0, samples, seed, record=1, **options)
    return {name: np.asarray(f(ensemble)) for name, f in OBSERVED.items()}


def _difference(first: Floats, second: Floats) -> Estimate[float]:
    """Return the difference of the medians of two samples, with an error from the widths of their intervals."""
    a, b = median(first), median(second)
    return normal(a.value - b.value, float(np.hypot(a.error, b.error)))


def fit_rate(widths: NDArray[Any], differences: Sequence[Estimate[float]]) -> tuple[Estimate[float], float]:
    """Fit difference = C·(n/n₀)^(−r), n₀ the smallest width, by weighted least squares.

    For each r of `RATES` the best C has a closed form. The standard error of r is half the width of the range in which
    χ² stays within 1 of its minimum. It is at most half the width of `RATES`, if the differences determine no rate.

    **Arguments:**

    - `widths`: widths n, (widths,).
    - `differences`: the difference at each width, with a normal interval.

    **Returns:** r with its interval, and C.
    """
    value, error = np.array([(d.value, d.error) for d in differences]).T
    shape = (widths / widths.min()) ** -RATES[:, None]
    constants = (shape * value / error**2).sum(1) / (shape**2 / error**2).sum(1)
    chi2 = (((value - constants[:, None] * shape) / error) ** 2).sum(1)
    best = int(chi2.argmin())
    near = RATES[chi2 <= chi2[best] + 1]
    return normal(float(RATES[best]), float(np.ptp(near)) / 2), float(constants[best])


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the fitted rates, and the error of the SDE at the largest width."""
    numbers = {}
    for name in OBSERVED:
        numbers[f"rate r of {name}, error ~ n^(−r)"] = from_array(data["rate"].sel(statistic=name))
    for name in OBSERVED:
        last = data["difference"].sel(statistic=name).isel(width=-1)
        numbers[f"median of {name}, chain of width {int(data['width'][-1])} minus SDE"] = from_array(last)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot distances and errors against width.

    How to read it: a distance below the dotted line cannot be distinguished from zero with this number of samples. The
    lines on the right are the fitted rates.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = data["width"].to_numpy()
    for name, colour, marker in zip(OBSERVED, SERIES, "os^", strict=False):
        value, low, high = data["difference"].sel(statistic=name).to_numpy().T
        right.errorbar(width, np.abs(value), (high - low) / 2, fmt=marker, color=colour, capsize=2)
        rate, constant = float(data["rate"].sel(statistic=name)[0]), float(data["constant"].sel(statistic=name))
        right.plot(width, np.abs(constant) * (width / width[0]) ** -rate, color=colour)
        label = f"{name}: error ~ n^(−{rate:.2f})"
        left.loglog(width, data["distance"].sel(statistic=name), color=colour, marker=marker, label=label)
    left.axhline(float(data["noise"]), color="#333333", linestyle=":", label="noise of the samples (5 %)")
    left.set_ylabel("Kolmogorov–Smirnov distance, chain to SDE")
    left.set_ylim(bottom=float(data["noise"]) / 3)
    left.set_title("distance of the distributions", loc="left")
    right.set(xscale="log", yscale="log", ylabel="|median of the chain − median of the SDE|")
    right.set_title("error of the SDE's medians, with 95 % bars", loc="left")
    smallest = np.abs(data["difference"].sel(bound="value")).min()
    right.set_ylim(bottom=max(float(smallest) / 3, 1e-5))
    for panel in (left, right):
        panel.set_xlabel(f"width n, at depth/width = {data.attrs['time']:g}")
        panel.set_xticks(width, [str(w) for w in width])
        panel.set_xticks([], minor=True)
    add_legend_above(figure, left, ncols=2)
    return figure
