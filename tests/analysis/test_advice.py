"""Advice: the advised γ is stable on fresh samples, a larger one is not, and `None` means that no γ is."""

from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM
from scipy.stats import binom

import shaped_transformer as st
from shaped_transformer.analysis.advice import with_gamma
from shaped_transformer.statistics import verdict
from shaped_transformer.views.stopping import WINDOW

ARCH = st.shaped_transformer(32, 32)
V0 = st.inputs.equicorrelated(4, 0.2)


def healthy(gamma: float, tau0: float, samples: int) -> int:
    """Return how many fresh networks stay in the window with half of the input's effective rank."""
    e = st.chain.sample(st.shaped_transformer(32, 32, gamma=gamma, tau0=tau0), V0, samples, 77, record=1, stop=WINDOW)
    rank = st.statistics.effective_rank(np.array(np.linalg.eigvalsh(V0)[::-1], dtype=np.float64))
    return int(np.sum((e.stopped > 32) & (e.effective_rank()[:, -1] >= 0.5 * rank)))


@pytest.fixture(scope="module")
def advice() -> st.Advice:
    return st.advise(ARCH, V0)


def test_the_advised_gamma_is_stable_on_fresh_samples(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert binom.cdf(healthy(advice.gamma, 1.0, 8192), 8192, 0.95) > FALSE_ALARM


def test_a_gamma_fifteen_percent_larger_is_not_stable(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert binom.cdf(healthy(1.15 * advice.gamma, 1.0, 8192), 8192, 0.95) < FALSE_ALARM


DESIGNS = {
    "full": (ARCH, 4),
    "causal": (st.shaped_transformer(64, 48, heads=4, mask="causal"), 8),
    "pre-norm": (st.pre_norm_transformer(32, 12), 6),
}


@pytest.mark.parametrize(
    "name", ["full", pytest.param("causal", marks=pytest.mark.slow), pytest.param("pre-norm", marks=pytest.mark.slow)]
)
def test_predict_calls_the_advised_gamma_stable_and_a_quarter_more_losing_rank(name: str) -> None:
    arch, tokens = DESIGNS[name]
    v0 = st.inputs.from_text(max_tokens=tokens, embedding_width=arch.width)
    advice = st.advise(arch, v0)
    assert advice.gamma is not None
    words = {
        factor: verdict(st.chain.sample(with_gamma(arch, factor * advice.gamma), v0, 4096, 5, record=33)).word
        for factor in (1.0, 1.25)
    }
    assert words == {1.0: "stable", 1.25: "losing rank"}


def test_the_advised_network_and_the_sentence_have_the_advised_gamma(advice: st.Advice) -> None:
    assert advice.gamma is not None
    assert advice.architecture == st.shaped_transformer(32, 32, gamma=advice.gamma)
    assert f"gamma = {advice.gamma:.3g}" in advice.sentence


def test_cooler_logits_allow_stronger_branches() -> None:
    arch = st.shaped_transformer(128, 16)
    advice = st.advise(arch, st.inputs.equicorrelated(8, 0.2), taus=(2.0, 0.07), samples=512)
    assert [point.tau0 for point in advice.frontier] == [0.07, 2.0]
    hot, cold = (point.gamma for point in advice.frontier)
    assert cold is not None
    assert hot is not None
    assert hot < 0.95 * cold


def test_gamma_keeps_the_ratio_of_the_layers() -> None:
    attention = st.Residual(st.ShapedAttention(), scale=0.2)
    mlp = st.Residual(st.MLP(st.ShapedReLU(0.0, -1.0)), scale=0.4)
    advised = with_gamma(st.Architecture(16, 4, (attention, mlp)), 0.1)
    scales = [layer.scale for layer in advised.block if isinstance(layer, st.Residual)]
    assert scales == [0.05, 0.1]


def test_no_stable_gamma_means_no_network() -> None:
    advice = st.advise(ARCH, V0, criterion=st.Criterion(rank_share=0.99999), samples=256)
    assert advice.gamma is None
    assert advice.architecture is None
    assert "is surely stable" in advice.sentence


def test_the_largest_gamma_is_one() -> None:
    calm = st.shaped_transformer(512, 1, tau0=4.0)
    wanted = st.Criterion(probability=0.9)
    assert st.advise(calm, st.inputs.equicorrelated(2, 0.2), criterion=wanted, samples=128).gamma == 1.0


def test_the_advice_depends_on_the_seed_and_not_on_the_workers() -> None:
    one, two = (st.advise(ARCH, V0, samples=256, workers=k) for k in (1, 2))
    assert one == two
    assert one.to_dict() == two.to_dict()
    assert st.advise(ARCH, V0, samples=256, seed=1).trials != one.trials


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples": 16}, "draw at least 74 samples"),
        ({"v0": np.ones((2, 3))}, "must be square"),
        ({"taus": (-1.0,)}, "tau0"),
        ({"architecture": st.deep_linear(8, 2)}, "this network has none: add Residual"),
        ({"architecture": st.skipless_transformer(8, 2)}, "this network has no skip"),
        ({"architecture": st.pre_norm_transformer(8, 2), "taus": (1.0,)}, "leave out taus"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"architecture": ARCH, "v0": V0} | wrong
    with pytest.raises(st.ShapedTransformerError, match=message):
        st.advise(given.pop("architecture"), given.pop("v0"), **given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probability": 1.0}, "probability must lie in"),
        ({"rank_share": 0.0}, "rank_share must lie in"),
        ({"confidence": 0.5}, "confidence must lie in"),
        ({"window": (2.0, 3.0)}, "must contain 1"),
    ],
)
def test_a_criterion_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        st.Criterion(**wrong)
