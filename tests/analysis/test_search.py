"""The search for the largest γ, on a known share of healthy networks in place of the chain."""

from collections.abc import Generator

import numpy as np
import pytest
from assertions import FALSE_ALARM
from scipy.stats import binom

import shaped_transformer as st
from shaped_transformer.analysis.search import Counts, Plan, Stage, Trial, plan_for, search
from shaped_transformer.analysis.sequential import SequentialTest

TEST = SequentialTest(0.95)
LARGE = st.shaped_transformer(256, 500, heads=8, mask="causal")


def run(plan: Plan, limit: float, steepness: float, seed: int) -> list[Trial]:
    """Return the trials of networks of which exactly 95 % are healthy at γ = `limit`, and fewer above."""
    rng = {stage: np.random.SeedSequence((seed, k)) for k, stage in enumerate(("bracket", "test"))}

    def draw(gamma: float, stage: Stage, most: int) -> Generator[Counts, None, None]:
        """As the chain does, each γ takes the same random numbers: network i is healthy up to a γ of its own."""
        healthy = np.random.default_rng(rng[stage]).random(most) > 0.05 * (gamma / limit) ** steepness
        for start in range(0, most, plan.batch[stage]):
            batch = healthy[start : start + plan.batch[stage]]
            yield int(batch.sum()), int((~batch).sum())

    return list(search(draw, TEST, plan))


def largest(trials: list[Trial]) -> float:
    return max((t.gamma for t in trials if t.stage == "test" and t.decision == "above"), default=0.0)


@pytest.mark.parametrize("plan", [Plan(141, 1.1), Plan(4096, 1.02)])
def test_a_gamma_that_is_too_large_is_advised_as_rarely_as_the_confidence_says(plan: Plan) -> None:
    wrong = sum(largest(run(plan, 0.2, 12.0, seed)) > 0.2 for seed in range(200))
    assert binom.sf(wrong - 1, 200, 0.05) > FALSE_ALARM


def test_with_a_weaker_test_too_large_a_gamma_is_advised_far_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The companion: with a confidence of 60 % the same count exceeds 5 %."""
    monkeypatch.setattr(f"{__name__}.TEST", SequentialTest(0.95, 0.6))
    wrong = sum(largest(run(Plan(141, 1.1), 0.2, 12.0, seed)) > 0.2 for seed in range(200))
    assert binom.sf(wrong - 1, 200, 0.05) < FALSE_ALARM


@pytest.mark.parametrize("limit", [0.015, 0.065, 0.4, 0.9])
def test_the_largest_gamma_is_found_to_the_precision_of_the_plan(limit: float) -> None:
    """Steep, as with many tokens: within 10 % of the limit nearly all networks are healthy, or few are."""
    found = [largest(run(Plan(141, 1.1), limit, 40.0, seed)) for seed in range(20)]
    assert np.median(found) > limit / 1.1
    assert np.max(found) < 1.1 * limit


def test_the_search_ends_at_the_ends_of_the_range() -> None:
    assert largest(run(Plan(141, 1.1), 5.0, 12.0, 0)) == 1.0
    trials = run(Plan(141, 1.1), 0.001, 12.0, 0)
    assert largest(trials) == 0
    assert min(trial.gamma for trial in trials) == 0.01


def test_a_search_takes_few_paths() -> None:
    counts = [
        sum(trial.healthy + trial.unhealthy for trial in run(Plan(141, 1.1), 0.065, 40.0, seed)) for seed in range(40)
    ]
    assert np.mean(counts) < 200
    assert np.max(counts) < 350


def test_a_large_problem_gets_few_paths_and_a_small_one_many() -> None:
    assert plan_for(LARGE, 64, TEST) == Plan(141, 1.1)
    assert plan_for(st.shaped_transformer(64, 16), 4, TEST) == Plan(4096, 1.02)


def test_a_test_always_has_paths_enough_to_decide() -> None:
    strict = SequentialTest(0.999)
    assert plan_for(LARGE, 64, strict).samples > strict.fewest
