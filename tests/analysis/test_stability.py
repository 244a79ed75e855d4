"""Stability: the numbers are those of the chain, and the effects those of a changed design."""

from dataclasses import replace

import numpy as np
import pytest
from assertions import z_limit

import shaped_transformer as st
from shaped_transformer.analysis.stability import scaled
from shaped_transformer.views.stopping import WINDOW

ARCH = st.shaped_transformer(64, 48, gamma=0.6, tau0=0.3)
V0 = st.inputs.equicorrelated(4, 0.2)


def test_numbers_are_those_of_the_chain() -> None:
    found = st.stability(ARCH, V0, samples=1000, seed=2)
    chain = st.chain.sample(ARCH, V0, 1000, 2, record=1, stop=WINDOW)
    left = float(np.mean(chain.stopped <= ARCH.depth))
    assert 0 < left < 1
    assert found.left.value == left
    assert found.left.low < left < found.left.high
    assert found.rank.value == np.median(chain.effective_rank()[:, -1])
    assert found.correlation.value == np.median(st.statistics.mean_absolute_correlation(chain.covariance[:, -1]))
    assert found.drift is not None
    np.testing.assert_array_equal(found.drift, st.sde.drift(ARCH, V0))
    assert found.growth == pytest.approx(float(np.mean(np.diagonal(found.drift))))


def test_effects_are_those_of_a_changed_design() -> None:
    """More γ, more depth or less τ0 collapse the tokens; an effect agrees with one from other random numbers."""
    found = {e.parameter: e for e in st.stability(ARCH, V0, samples=4000, seed=1).effects}
    assert set(found) == {"gamma", "tau0", "depth"}
    assert found["gamma"].left.value > 0
    assert found["depth"].left.value > 0
    assert found["gamma"].rank.value < 0
    assert found["tau0"].left.value < 0
    stronger = st.shaped_transformer(64, 48, gamma=0.66, tau0=0.3)
    ranks = [
        st.chain.sample(a, V0, 20_000, 9 + i, record=1, stop=WINDOW).effective_rank()[:, -1]
        for i, a in enumerate((ARCH, stronger))
    ]
    apart = np.median(ranks[1]) - np.median(ranks[0])
    difference, error = found["gamma"].rank.value, found["gamma"].rank.error
    noise = np.hypot(error, 1.25 * np.hypot(ranks[0].std(), ranks[1].std()) / np.sqrt(20_000))
    assert abs(difference - apart) < z_limit() * noise
    assert abs(difference) > z_limit() * error
    unpaired = 1.25 * np.hypot(ranks[0].std(), ranks[1].std()) / np.sqrt(4000)
    assert error < unpaired  # what common random numbers are for


def test_what_cannot_be_changed_is_left_out() -> None:
    full = st.shaped_attention_only(32, 1, gamma=1.0)
    assert scaled(full, "gamma", 1.1) is None
    assert scaled(full, "depth", 1.1) is None
    effects = {e.parameter: e.factor for e in st.stability(full, V0, samples=16).effects}
    assert effects == {"gamma": 1 / 1.1, "tau0": 1.1}
    assert [e.parameter for e in st.stability(st.deep_linear(16, 20), V0, samples=16).effects] == ["depth"]


def test_a_design_without_a_limit_has_no_drift() -> None:
    found = st.stability(st.pre_norm_transformer(16, 4), V0, samples=64)
    assert found.drift is None
    assert found.growth is None
    assert found.to_dict()["drift"] is None


@pytest.mark.parametrize("samples", [15, 0, 2.5, True])
def test_too_few_samples_are_refused(samples: object) -> None:
    with pytest.raises(st.InputError, match="at least 16"):
        st.stability(ARCH, V0, samples=samples)  # type: ignore[arg-type]


def test_a_window_that_is_never_left() -> None:
    calm = replace(ARCH, depth=2)
    assert st.stability(calm, V0, samples=64).left.value == 0
