"""What is read off covariances: correlation, effective rank, quantiles, two-sample distances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError
from .inputs import rank as rank_of
from .numerics.arrays import Floats

if TYPE_CHECKING:
    from .views.ensemble import Ensemble


def correlation(covariance: Floats) -> Floats:
    """Return ρ^{αβ} = V^{αβ}/√(V^{αα}V^{ββ}), (…, m, m), inside [−1, 1]; 0 for a token of norm 0 (theory §1)."""
    norm = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0))
    first = np.divide(covariance, norm[..., :, None], out=np.zeros_like(covariance), where=norm[..., :, None] > 0)
    rho = np.divide(first, norm[..., None, :], out=np.zeros_like(covariance), where=norm[..., None, :] > 0)
    return np.clip(rho, -1, 1)


def mean_token_norm(covariance: Floats) -> Floats:
    """Return tr V / m, the mean over tokens of ‖x‖²/n, (…)."""
    return np.asarray(np.mean(np.diagonal(covariance, axis1=-2, axis2=-1), axis=-1))


def mean_absolute_correlation(covariance: Floats) -> Floats:
    """Return the mean of |ρ^{αβ}| over pairs α ≠ β, (…); 0 for one token."""
    m = covariance.shape[-1]
    if m == 1:
        return np.zeros(covariance.shape[:-2])
    pairs = np.tril_indices(m, -1)
    return np.asarray(np.mean(np.abs(correlation(covariance)[..., *pairs]), axis=-1))


def effective_rank(eigenvalues: Floats) -> Floats:
    """Return exp(−Σ p log p), p = eigenvalues / their sum, (…): 1 when all tokens are parallel, m when orthonormal.

    A covariance of zero has effective rank 1.
    """
    total = np.sum(eigenvalues, axis=-1, keepdims=True)
    p = np.divide(eigenvalues, total, out=np.zeros_like(eigenvalues), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(np.exp(-np.sum(p * logs, axis=-1)))


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Quantiles with bootstrap intervals: `q`, and `value`, `low`, `high`, each (quantiles, …)."""

    q: Floats
    value: Floats
    low: Floats
    high: Floats


def quantiles(values: ArrayLike, q: Sequence[float] = (0.05, 0.5, 0.95), *, confidence: float = 0.95) -> Quantiles:
    """Return quantiles over the first axis, with percentile bootstrap intervals.

    The quantile of a resample is an order statistic of the data whose rank has a known law, P(rank ≤ j) =
    P(Binomial(N, j/N) ≥ k), k = ⌈qN⌉: so no resampling is needed, and no seed. The value itself is interpolated between
    order statistics, as by `numpy.quantile`, and the interval is made to hold it.

    **Arguments:**

    - `values`: (samples, …).
    - `q`: the quantiles, in [0, 1].
    - `confidence`: of the intervals, in (0, 1), default 0.95.

    **Returns:** `Quantiles`.

    **Raises:** `InputError` for numbers out of range or no samples.
    """
    from scipy.special import betaincinv

    try:
        x, levels = np.asarray(values, dtype=np.float64), np.asarray(q, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"values and quantiles must be numbers (quantiles: {q!r})") from None
    if x.ndim == 0 or len(x) == 0:
        raise InputError("quantiles need at least one sample along the first axis")
    if levels.ndim != 1 or not ((levels >= 0) & (levels <= 1)).all():
        raise InputError(f"quantiles must be numbers in [0, 1] (got {q!r})")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie in (0, 1) (got {confidence:g})")
    ordered, count = np.sort(x, axis=0), len(x)
    k = np.clip(np.ceil(levels * count), 1, count)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    ranks = [np.clip(np.ceil(count * betaincinv(k, count - k + 1, tail)), 1, count).astype(int) for tail in tails]
    low, high = (ordered[rank - 1] for rank in ranks)
    value = np.quantile(ordered, levels, axis=0)
    return Quantiles(levels, value, np.minimum(low, value), np.maximum(high, value))


@dataclass(frozen=True)
class Distance:
    """Two-sample Kolmogorov–Smirnov distance between two laws, and its p-value if they are the same."""

    distance: float
    p_value: float


def two_sample(first: ArrayLike, second: ArrayLike) -> Distance:
    """Return the Kolmogorov–Smirnov distance of two samples of one number each.

    Numbers that agree to ten digits count as equal, so that rounding errors around a fixed value are no difference.
    """
    from scipy.stats import ks_2samp

    result = ks_2samp(_ten_digits(first), _ten_digits(second), method="auto")
    return Distance(float(result.statistic), float(result.pvalue))


def _ten_digits(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa, 10), exponent)


@dataclass(frozen=True)
class Share:
    """A proportion with its Wilson interval."""

    value: float
    low: float
    high: float


def share(events: ArrayLike, confidence: float = 0.95) -> Share:
    """Return the share of true entries with its Wilson interval.

    **Raises:** `InputError` if there are no entries.
    """
    from scipy.stats import binomtest

    flags = np.asarray(events, dtype=bool)
    if flags.size == 0:
        raise InputError("a share needs at least one event")
    test = binomtest(int(flags.sum()), flags.size)
    interval = test.proportion_ci(confidence, method="wilson")
    return Share(float(test.statistic), float(interval.low), float(interval.high))


EXPLODED = 1e4
"""A path has exploded when an eigenvalue of V exceeds this many times the mean token norm of the input."""
VANISHED = 1e-4
"""Norms have vanished when the mean token norm is below this share of the input's."""
TOLERATED = 0.05
"""Share of exploded paths above which a network is called exploding."""
PARALLEL = 0.9
"""Mean |ρ| above which the tokens count as collapsed into one direction."""


@dataclass(frozen=True)
class Verdict:
    """What an ensemble says of a design, in one word and one sentence, with the numbers that decide it.

    **Attributes:**

    - `word`: `"stable"`, `"collapsing"` or `"exploding"`.
    - `certain`: whether the intervals that decide the word lie on one side of their thresholds.
    - `sentence`: the reason in plain words.
    - `exploded`: share of paths that exploded. `correlation`, `rank`, `growth`: median mean |ρ|, median effective rank
      and median ratio of the mean token norm to the input's, at the last layer, each (value, low, high) at 95 %.
    """

    word: str
    certain: bool
    sentence: str
    exploded: Share
    correlation: tuple[float, float, float]
    rank: tuple[float, float, float]
    growth: tuple[float, float, float]


def verdict(ensemble: "Ensemble") -> Verdict:
    """Judge whether the tokens keep their norms and their differences up to the last layer (ours, not the paper's).

    Meant for the chain or networks. In the SDE's Euler scheme a path that loses positivity counts as exploded.

    - exploding: more than 5 % of paths have an eigenvalue of V above 1e4 times the input's mean token norm, the upper
      end of the window of [ST], or left the window `stop` upwards;
    - collapsing: the median of the mean |ρ| over pairs is above 0.9 at the last layer, or the median norm is below 1e-4
      of the input's;
    - stable: neither.

    **Raises:** `InputError` if the last layer was not recorded.
    """
    depth, tokens = ensemble.architecture.depth, ensemble.tokens
    if ensemble.depth[-1] != depth:
        raise InputError(
            f"a verdict needs the last layer: record it (layer {depth}; the last record is {ensemble.depth[-1]})"
        )
    start = float(mean_token_norm(ensemble.initial)) or 1.0
    below = ensemble.eigenvalues[:, -1, rank_of(ensemble.initial) - 1] < ensemble.settings["stop"][0]
    stopped_above = (ensemble.stopped <= depth) & ~below
    exploded = share(stopped_above | np.any(ensemble.eigenvalues[..., 0] > EXPLODED * start, axis=1))
    last = ensemble.covariance[:, -1]
    correlation = median(mean_absolute_correlation(last))
    rank = median(effective_rank(ensemble.eigenvalues[:, -1]))
    growth = median(mean_token_norm(last) / start)
    words = {
        "exploding": (exploded.value > TOLERATED, exploded.low <= TOLERATED < exploded.high),
        "collapsing": (
            correlation[0] > PARALLEL or growth[0] < VANISHED,
            correlation[1] <= PARALLEL < correlation[2] or growth[1] <= VANISHED < growth[2],
        ),
    }
    word = next((name for name, (holds, _) in words.items() if holds), "stable")
    deciding = words.values() if word == "stable" else [words[word]]
    certain = not any(straddles for _, straddles in deciding)
    sentence = (
        f"after {depth} layers the median mean |rho| is {_interval(correlation)} (collapse: above {PARALLEL:g}), the "
        f"median effective rank {_interval(rank)} of {tokens}, the median token norm {_interval(growth)} times the "
        f"input's, and {_interval((exploded.value, exploded.low, exploded.high), 100)} % of paths have exploded "
        f"(tolerated: {100 * TOLERATED:g} %)"
    )
    return Verdict(word, certain, sentence, exploded, correlation, rank, growth)


def median(values: Floats) -> tuple[float, float, float]:
    """Return the median over samples, (value, low, high) at 95 %."""
    found = quantiles(values, (0.5,))
    return float(found.value[0]), float(found.low[0]), float(found.high[0])


def _interval(numbers: tuple[float, float, float], factor: float = 1.0) -> str:
    value, low, high = (factor * x for x in numbers)
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
