"""Where a measurement lies in what the initialisation would do: bands that hold for all layers at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ..errors import InputError, counted
from ..estimates import CONFIDENCE
from ..numerics.arrays import Floats
from .expectation import Expectation
from .measures import MEASURES, Measure
from .result import ProbeResult

if TYPE_CHECKING:
    import pandas

ALARM = 1e-4
"""Probability with which a network at initialisation is called unusual by one number, in any layer."""

DRAWS = 20_000
"""Number of multivariate t variables from which the width of a simultaneous band is found."""

SMALLEST = 1e-5
"""Least standard deviation of an expected number, relative to its size: less is rounding in single precision."""

NOTHING = 1e-300
"""Standard deviation that stands for none, so that nothing is divided by 0."""


@dataclass(frozen=True, eq=False)
class Band:
    """One number of all layers, beside its distribution at initialisation.

    The band is computed from logarithms where the number is positive (`MEASURES`). It is μ ± c·s·√(1 + 1/N), a
    prediction of one more network from N draws, with c the quantile of the maximum over layers of multivariate t
    variables that have the draws' correlations.

    **Attributes:**

    - `value`, `median`, `low`, `high`: measurement, median of the draws, ends of the band, (layers,).
    - `quantile`, `error`: share of the draws below the measurement, and its Monte-Carlo standard error, (layers,).
    - `score`: distance from μ in units of half the width of the band, (layers,); beyond 1 the measurement is outside.
    - `step`: the same for the change from the layer before, (layers,), 0 for the first.
    - `alarm`: score beyond which the chance is below `ALARM`, and all draws are nearer; `step_alarm` likewise.
    """

    value: Floats
    median: Floats
    low: Floats
    high: Floats
    quantile: Floats
    error: Floats
    score: Floats
    step: Floats
    alarm: float
    step_alarm: float

    @property
    def inside(self) -> Any:
        """Whether the measurement is in the band, (layers,)."""
        return np.abs(self.score) <= 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """A measurement beside what the initialisation would do.

    **Attributes:**

    - `layers`: names.
    - `bands`: by the name of the number.
    - `label`: whose initialisation it is.
    - `draws`: number of networks.
    """

    layers: list[str]
    bands: Mapping[str, Band]
    label: str
    draws: int

    def to_frame(self, measure: str) -> "pandas.DataFrame":
        """Return a table of one number: value, band, quantile and its error, by layer.

        **Raises:** `InputError` for a number that was not measured.
        """
        import pandas

        if measure not in self.bands:
            raise InputError(f"unknown measure {measure!r}: choose one of {', '.join(self.bands)}")
        band = self.bands[measure]
        columns = ("value", "low", "median", "high", "quantile", "error", "inside")
        return pandas.DataFrame(
            {name: getattr(band, name) for name in columns}, index=pandas.Index(self.layers, name="layer")
        )

    def unusual(self) -> dict[str, dict[str, float]]:
        """Return the layers at which a number changes as the initialisation hardly ever would (`ALARM`), by number.

        The values are scores of the change from the layer before, in units of the alarm. The first layer counts as
        itself, and so does every layer in a number that is not carried from layer to layer.
        """
        found: dict[str, dict[str, float]] = {}
        for name, band in self.bands.items():
            scores = np.abs(band.score) / band.alarm
            if MEASURES[name].carried:
                scores[1:] = np.abs(band.step[1:]) / band.step_alarm
            layers = {self.layers[i]: float(scores[i]) for i in np.flatnonzero(scores > 1)}
            if layers:
                found[name] = layers
        return found


def compare_with(result: ProbeResult, expectation: Expectation) -> Comparison:
    """Return where a measurement lies; layers that overflowed in the measurement are left out."""
    layers = result.layers
    if not isinstance(expectation, Expectation):
        raise InputError(f"compare takes what st.probe.expected returned (got {type(expectation).__name__})")
    if expectation.layers[: len(layers)] != layers:
        raise InputError(
            f"layers differ: the measurement has {', '.join(layers[:3])} …, the expectation "
            f"{', '.join(expectation.layers[:3])} …: give both the same layers= and models of one architecture"
        )
    if len(expectation.data.draw) < 3:
        raise InputError(f"at least 3 draws are needed for a band (got {len(expectation.data.draw)}): raise draws")
    tokens, others = result.data["tokens"].values, expectation.data["tokens"].isel(draw=0).values[: len(layers)]
    if not np.array_equal(tokens, others):
        raise InputError(
            f"batches differ: the measurement has {_sizes(tokens)}, the expectation {_sizes(others)}: give both the "
            "same batch"
        )
    names = [name for name in MEASURES if name in result.data and name in expectation.data]
    bands = {}
    for name in names:
        used = result.known(name) & expectation.known(name)[: len(layers)]
        if used.any():
            draws = expectation.draws(name)[:, : len(layers)]
            bands[name] = _spread(band(result.mean(name)[used], draws[:, used], MEASURES[name]), used)
    return Comparison(layers, bands, expectation.settings["label"], len(expectation.data.draw))


def _sizes(tokens: NDArray[np.int_]) -> str:
    """Return the sizes of a batch in words, from the numbers of tokens (layers, sequences)."""
    return f"{counted(tokens.shape[1], 'sequence')} of at most {counted(int(tokens.max()), 'token')}"


def _spread(found: Band, used: NDArray[np.bool_]) -> Band:
    """Return a band of some layers as one of all layers, with zeros in the others."""
    arrays: dict[str, Any] = {}
    for field in fields(found):
        values = getattr(found, field.name)
        if isinstance(values, np.ndarray):
            arrays[field.name] = np.zeros(len(used))
            arrays[field.name][used] = values
    return replace(found, **arrays)


def band(value: Floats, draws: Floats, measure: Measure) -> Band:
    """Return the band of one number.

    **Arguments:**

    - `value`: measurement, (layers,).
    - `draws`: the same number in each draw, (draws, layers).
    - `measure`: whether to take logarithms (not where a draw is 0), and the bounds of the number.
    """
    logarithm = measure.positive and bool((draws > 0).all())
    tiny = 1e-3 * float(draws.min()) if logarithm else 0.0
    f = (lambda x: np.log(np.maximum(x, tiny))) if logarithm else (lambda x: x)
    back = np.exp if logarithm else (lambda x: x)
    y, x = f(draws), f(value)
    size = 1.0 if logarithm else float(np.abs(y).max())  # a difference of logarithms is relative
    mean, width, alarm = _prediction(y, size)
    shown = np.where(width > NOTHING * 1e6, width, 0.0)  # where all draws are 0, so are the ends of the band
    steps, step = np.diff(y, axis=1), np.diff(x)
    step_scores, step_alarm = np.zeros(len(x)), 1.0
    if steps.shape[1]:
        middle, half, step_alarm = _prediction(steps, size)
        step_scores[1:] = (step - middle) / half
    below = ((draws < value).sum(0) + 0.5 * (draws == value).sum(0)) / len(draws)
    guarded = np.clip(below, 1 / (2 * len(draws)), 1 - 1 / (2 * len(draws)))
    return Band(
        value=value,
        median=np.median(draws, 0),
        low=np.clip(back(mean - shown), measure.least, measure.most),
        high=np.clip(back(mean + shown), measure.least, measure.most),
        quantile=below,
        error=np.sqrt(guarded * (1 - guarded) / len(draws)),
        score=(x - mean) / width,
        step=step_scores,
        alarm=alarm,
        step_alarm=step_alarm,
    )


def _prediction(y: Floats, size: float) -> tuple[Floats, Floats, float]:
    """Return the mean and half the width of the band, (layers,), and the score of an alarm, of numbers of a size."""
    count, layers = y.shape
    mean, spread = y.mean(0), y.std(0, ddof=1)
    spread = np.maximum(spread, max(SMALLEST * size, NOTHING))
    c = _simultaneous(y)
    farthest = float((np.abs(y - mean) / spread).max())
    alarm = max(float(student.isf(ALARM / (2 * layers), count - 1)), farthest)  # tails may be heavier than normal
    return mean, c * spread * np.sqrt(1 + 1 / count), alarm / c


def _simultaneous(y: Floats) -> float:
    """Return the quantile of the maximum over layers of |T|, T multivariate t with the draws' correlations."""
    count = len(y)
    random = np.random.default_rng(0)
    z = (y - y.mean(0)) / np.maximum(y.std(0, ddof=1), NOTHING)
    mixed = random.standard_normal((DRAWS, count)) @ z / np.sqrt(count - 1)
    t = mixed / np.sqrt(random.chisquare(count - 1, (DRAWS, 1)) / (count - 1))
    return max(float(np.quantile(np.abs(t).max(1), CONFIDENCE)), 1.0)
