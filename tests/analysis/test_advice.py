"""Advice: the advised γ is stable on fresh samples, a larger one is not, and `None` means that no γ is."""

from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM
from scipy.stats import binom

import shaped_transformer as st
from shaped_transformer.views.stopping import WINDOW

SIZE: dict[str, Any] = {"depth": 32, "width": 32, "tokens": 4}


def healthy(gamma: float, tau0: float, samples: int) -> int:
    """Return how many fresh networks stay in the window with half of the input's effective rank."""
    v0 = st.inputs.equicorrelated(4, 0.2)
    e = st.chain.sample(st.shaped_transformer(32, 32, gamma=gamma, tau0=tau0), v0, samples, 77, record=1, stop=WINDOW)
    rank = st.statistics.effective_rank(np.array(np.linalg.eigvalsh(v0)[::-1], dtype=np.float64))
    return int(np.sum((e.stopped > 32) & (e.effective_rank()[:, -1] >= 0.5 * rank)))


@pytest.fixture(scope="module")
def advice() -> st.Advice:
    return st.advise(**SIZE, samples=2048, taus=(1.0,))


def test_the_advised_gamma_is_stable_on_fresh_samples(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert binom.cdf(healthy(advice.gamma, 1.0, 8192), 8192, 0.95) > FALSE_ALARM
    assert advice.frontier[0].healthy.low >= 0.95


def test_a_gamma_fifteen_percent_larger_is_not_stable(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert binom.cdf(healthy(1.15 * advice.gamma, 1.0, 8192), 8192, 0.95) < FALSE_ALARM


def test_the_advised_network_and_the_sentence_have_the_advised_gamma(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert advice.architecture == st.shaped_transformer(32, 32, gamma=advice.gamma)
    assert f"gamma = {advice.gamma:.3g}" in advice.sentence


def test_cooler_logits_allow_stronger_branches() -> None:
    advice = st.advise(16, 128, 8, tau0=0.07, taus=(2.0, 0.5), samples=512)
    assert [p.tau0 for p in advice.frontier] == [0.07, 0.5, 2.0]
    cold, _, hot = (p.gamma for p in reversed(advice.frontier))
    assert cold is not None
    assert hot is not None
    assert hot < 0.95 * cold
    assert advice.gamma == hot


def test_no_stable_gamma_means_no_network() -> None:
    advice = st.advise(**SIZE, rank_share=0.99999, taus=(), samples=256)
    assert advice.gamma is None
    assert advice.architecture is None
    assert "no such gamma" in advice.sentence


def test_the_largest_gamma_is_one() -> None:
    assert st.advise(1, 512, 2, tau0=4.0, taus=(), samples=128, probability=0.9).gamma == 1.0


def test_the_advice_depends_on_the_seed_and_not_on_the_workers() -> None:
    one, two = (st.advise(**SIZE, taus=(), samples=256, workers=k) for k in (1, 2))
    assert one == two
    assert one.to_dict() == two.to_dict()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probability": 1.0}, "probability must lie in"),
        ({"rank_share": 0.0}, "rank_share must lie in"),
        ({"confidence": 2.0}, "confidence must lie in"),
        ({"samples": 16}, "draw more"),
        ({"v0": np.eye(3)}, "v0 is for 3 tokens"),
        ({"heads": 5}, "heads"),
        ({"tau0": -1.0}, "tau0"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        st.advise(**(SIZE | wrong))
