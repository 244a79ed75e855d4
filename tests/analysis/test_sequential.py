"""The sequential test errs no more often than it says, however often one looks, and it decides."""

from statistics import NormalDist

import numpy as np
import pytest
from assertions import FALSE_ALARM
from scipy.stats import binom

from shaped_transformer.analysis.sequential import SequentialTest, log_evidence
from shaped_transformer.estimates import share_of_counts

REPETITIONS, LOOKS, BOUND = 2000, 600, 0.95


def draws(probability: float) -> np.ndarray:
    """Return healthy networks among the first k draws, for many repetitions."""
    healthy = np.random.default_rng(0).random((REPETITIONS, LOOKS)) < probability
    return np.cumsum(healthy, axis=1)


def accepted_at_some_look(counts: np.ndarray, accepts: np.ndarray) -> int:
    """Return in how many repetitions some look accepts; `accepts[k, s]` says so for s successes in k + 1 draws."""
    return int(np.sum(np.any(accepts[np.arange(LOOKS), counts], axis=1)))


@pytest.fixture(scope="module")
def decisions() -> np.ndarray:
    test = SequentialTest(BOUND)
    table = np.full((LOOKS, LOOKS + 1), "open", dtype="<U5")
    for k in range(LOOKS):
        for failures in range(min(k + 1, 120) + 1):
            table[k, k + 1 - failures] = test.decide(k + 1 - failures, failures)
    return table


def test_a_share_at_the_bound_is_accepted_or_refused_as_rarely_as_the_confidence_says(decisions: np.ndarray) -> None:
    counts = draws(BOUND)
    for word in ("above", "below"):
        wrong = accepted_at_some_look(counts, decisions == word)
        assert binom.sf(wrong - 1, REPETITIONS, 0.05) > FALSE_ALARM


def test_a_wilson_bound_that_is_looked_at_as_often_errs_far_more_often() -> None:
    """The companion: the rule that was tempting is wrong."""
    looks = np.arange(1, LOOKS + 1)[:, None]
    shares = np.arange(LOOKS + 1) / looks
    z = NormalDist().inv_cdf(0.95)
    spread = np.sqrt(np.maximum(shares * (1 - shares), 0) / looks + (z / (2 * looks)) ** 2)
    lower = (shares + z**2 / (2 * looks) - z * spread) / (1 + z**2 / looks)
    assert lower[99, 98] == pytest.approx(share_of_counts(98, 100, 0.9).low)
    wrong = accepted_at_some_look(draws(BOUND), lower > BOUND)
    assert binom.sf(wrong - 1, REPETITIONS, 0.05) < FALSE_ALARM


def test_clear_shares_are_decided(decisions: np.ndarray) -> None:
    assert accepted_at_some_look(draws(0.995), decisions == "above") > 0.95 * REPETITIONS
    assert accepted_at_some_look(draws(0.85), decisions == "below") > 0.95 * REPETITIONS


def test_the_fewest_draws_that_accept_do_so_only_without_a_failure() -> None:
    test = SequentialTest(BOUND)
    assert test.decide(test.fewest, 0) == "above"
    assert test.decide(test.fewest - 1, 0) == "open"
    assert test.decide(test.fewest - 1, 1) == "open"


def test_the_evidence_begins_at_one_and_its_mean_stays_there() -> None:
    """Under the bound, the mean of the evidence over the next draw is the evidence: a martingale."""
    assert log_evidence(0, 0, BOUND) == pytest.approx(0, abs=1e-12)
    for successes, failures in ((0, 0), (40, 1), (300, 12)):
        after = (log_evidence(successes + 1, failures, BOUND), log_evidence(successes, failures + 1, BOUND))
        mean = BOUND * np.exp(after[0]) + (1 - BOUND) * np.exp(after[1])
        assert mean == pytest.approx(np.exp(log_evidence(successes, failures, BOUND)), rel=1e-9)
