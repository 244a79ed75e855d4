"""Stability: the numbers are those of the chain, and the effects those of the changed designs."""

from dataclasses import replace

import numpy as np
import pytest
from assertions import z_limit

import shaped_transformer as st
from shaped_transformer.analysis.stability import Effect, scaled
from shaped_transformer.views.stopping import WINDOW

ARCH = st.shaped_transformer(64, 48, gamma=0.6, tau0=0.3)
V0 = st.inputs.equicorrelated(4, 0.2)
RANK = float(st.statistics.effective_rank(np.array(np.linalg.eigvalsh(V0)[::-1], dtype=np.float64)))


def test_the_numbers_are_those_of_the_chain() -> None:
    found = st.stability(ARCH, V0, samples=1000, seed=2)
    chain = st.chain.sample(ARCH, V0, 1000, 2, record=1)
    kept = chain.effective_rank()[:, -1] >= 0.5 * RANK
    inside = (chain.eigenvalues[:, -1, -1] > WINDOW[0]) & (chain.eigenvalues[:, -1, 0] < WINDOW[1])
    apart = st.statistics.mean_absolute_correlation(chain.covariance[:, -1]) <= 0.9
    healthy = float(np.mean(kept & inside & apart))
    assert 0 < healthy < 1
    assert found.healthy.value == healthy
    assert found.healthy.low < healthy < found.healthy.high
    assert found.effective_rank.value == np.median(chain.effective_rank()[:, -1])
    assert found.mean_absolute_correlation.value == np.median(
        st.statistics.mean_absolute_correlation(chain.covariance[:, -1])
    )


def test_the_drift_is_that_of_the_sde_at_the_input() -> None:
    found = st.stability(ARCH, V0, samples=16)
    assert found.drift is not None
    np.testing.assert_array_equal(found.drift, st.sde.drift(ARCH, V0))
    assert found.growth == pytest.approx(float(np.mean(np.diagonal(found.drift))))


@pytest.fixture(scope="module")
def effects() -> dict[str, Effect]:
    return {e.parameter: e for e in st.stability(ARCH, V0, samples=4000, seed=1).effects}


def test_more_gamma_or_depth_makes_a_design_less_stable(effects: dict[str, Effect]) -> None:
    assert set(effects) == {"gamma", "tau0", "depth"}
    assert effects["gamma"].healthy.value < 0
    assert effects["depth"].healthy.value < 0
    assert effects["gamma"].effective_rank.value < 0


def test_cooler_logits_keep_rank_where_attention_is_hot() -> None:
    hot = st.shaped_transformer(128, 16, gamma=0.5, tau0=0.07)
    effects = {e.parameter: e for e in st.stability(hot, st.inputs.equicorrelated(8, 0.2), samples=512).effects}
    assert effects["tau0"].effective_rank.low > 0


def test_an_effect_agrees_with_one_from_other_random_numbers_and_is_known_better(effects: dict[str, Effect]) -> None:
    stronger = st.shaped_transformer(64, 48, gamma=0.66, tau0=0.3)
    ranks = [
        st.chain.sample(a, V0, 20_000, 9 + i, record=1).effective_rank()[:, -1] for i, a in enumerate((ARCH, stronger))
    ]
    expected = np.median(ranks[1]) - np.median(ranks[0])
    difference, error = effects["gamma"].effective_rank.value, effects["gamma"].effective_rank.error
    noise = np.hypot(error, 1.25 * np.hypot(ranks[0].std(), ranks[1].std()) / np.sqrt(20_000))
    assert abs(difference - expected) < z_limit() * noise
    assert abs(difference) > z_limit() * error
    unpaired = 1.25 * np.hypot(ranks[0].std(), ranks[1].std()) / np.sqrt(4000)
    assert error < unpaired  # thanks to common random numbers


def test_a_parameter_is_not_scaled_beyond_its_range() -> None:
    full = st.shaped_attention_only(32, 1, gamma=1.0)
    assert scaled(full, "gamma", 1.1) is None
    assert scaled(full, "depth", 1.1) is None


def test_a_parameter_that_cannot_grow_is_reduced_or_left_out() -> None:
    full = st.shaped_attention_only(32, 1, gamma=1.0)
    effects = {e.parameter: e.factor for e in st.stability(full, V0, samples=16).effects}
    assert effects == {"gamma": 1 / 1.1, "tau0": 1.1}


def test_a_parameter_that_a_design_lacks_has_no_effect() -> None:
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


def test_all_networks_of_a_calm_design_are_healthy() -> None:
    calm = replace(ARCH, depth=2)
    assert st.stability(calm, V0, samples=64).healthy.value == 1


def test_the_numbers_do_not_depend_on_the_scale_of_the_input() -> None:
    """Without MLPs and attention, whose logits grow with the input, the network is linear."""
    linear = st.Architecture(16, 30, (st.Residual(st.MLP(st.Activation("identity")), 0.5),))
    one, large = (st.stability(linear, scale * V0, samples=200) for scale in (1.0, 2.0**10))
    assert 0 < one.healthy.value < 1
    assert one.healthy == large.healthy
