"""The law of the chain tends to that of the SDE as width and depth grow at a fixed ratio."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.figures import catalogue, convergence

WIDTHS = (4, 12, 36)
DESIGN = {
    "time": 0.5,
    "gamma": 0.7,
    "tau0": 4.0,
    "c_plus": 0.5,
    "c_minus": -1.0,
    "mask": "causal",
    "tokens": 4,
    "correlation": 0.2,
    "samples": 40_000,
    "steps": 100,
    "seed": 1,
}


@pytest.mark.slow
def test_distance_between_chain_and_limit_falls_with_width() -> None:
    """At this temperature hardly any path of the limit explodes. Chains never do, because their softmax saturates."""
    data = catalogue.compute("convergence", DESIGN | {"widths": WIDTHS})
    noise = float(data["noise"])
    worst = data["distance"].max("statistic").to_numpy()
    assert worst[0] > 2 * worst[1] > 2 * noise, worst
    assert worst[1] > 1.5 * worst[2], worst
    rate = -np.polyfit(np.log(WIDTHS[:2]), np.log(worst[:2]), 1)[0]
    assert rate > 0.5, worst


@pytest.mark.slow
def test_distance_to_a_wrong_limit_does_not_fall() -> None:
    """The companion of the test above: a limit with γ 10 % off is far from the widest chain."""
    v0 = st.inputs.equicorrelated(4, 0.2)
    right = st.shaped_transformer(36, 18, gamma=0.7, tau0=4.0, c_plus=0.5, c_minus=-1.0, mask="causal")
    wrong = st.shaped_transformer(36, 18, gamma=0.77, tau0=4.0, c_plus=0.5, c_minus=-1.0, mask="causal")
    chain = st.chain.sample(right, v0, samples=40_000, seed=1, record=1)
    distances = []
    for arch in (right, wrong):
        limit = st.sde.sample(arch, v0, samples=40_000, seed=1, steps=100, record=1)
        distances.append(
            max(st.statistics.two_sample(f(chain), f(limit)).distance for f in convergence.OBSERVED.values())
        )
    assert distances[1] > 3 * distances[0], distances
