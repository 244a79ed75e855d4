"""The SDE and the chain have the laws of the implementations with which the benchmarks compare their speed."""

from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM
from scipy.stats import ks_2samp

import shaped_transformer as st

pytest.importorskip("torchsde")
pytest.importorskip("diffrax")
peers: Any = pytest.importorskip("peers")

SAMPLES, STEPS, TIME = 25_000, 40, 0.1
V0 = st.inputs.equicorrelated(3, 0.2)
STATISTICS = ((0, 0), (0, 1), (1, 2))


def ours(block: str, gamma: float) -> Any:
    preset: Any = st.shaped_transformer if block == "full block" else st.shaped_attention_only
    slopes = {"c_plus": peers.C_PLUS, "c_minus": peers.C_MINUS} if block == "full block" else {}
    arch = preset(1000, 100, gamma=gamma, tau0=peers.TAU0, **slopes)
    return st.sde.sample(arch, V0, SAMPLES, 1, steps=STEPS, record=1).covariance[:, 0]


def smallest_p(a: Any, b: Any) -> float:
    return min(float(ks_2samp(a[:, i, j], b[:, i, j]).pvalue) for i, j in STATISTICS)


@pytest.mark.long
@pytest.mark.parametrize("noise", ["factored", "matrix", "root"])
@pytest.mark.parametrize("block", ["attention only", "full block"])
def test_the_sde_has_the_law_of_torchsde_and_diffrax(block: str, noise: str) -> None:
    full = block == "full block"
    right, wrong = ours(block, peers.GAMMA), ours(block, 1.1 * peers.GAMMA)
    solvers = {
        "torchsde": peers.torchsde_paths(V0, TIME, STEPS, SAMPLES, 0, full, noise),
        "diffrax": peers.diffrax_solver(V0, TIME, STEPS, SAMPLES, full, noise)(0),
    }
    for name, theirs in solvers.items():
        assert np.isfinite(theirs).all(), name
        assert smallest_p(right, theirs) > FALSE_ALARM / len(STATISTICS) / 2, name
        assert smallest_p(wrong, theirs) < FALSE_ALARM / len(STATISTICS) / 2, name


@pytest.mark.parametrize("block", ["attention only", "full block"])
def test_the_chain_has_the_law_of_plain_networks_in_numpy_and_pytorch(block: str) -> None:
    import torch

    n, samples = 16, 20_000
    preset: Any = st.shaped_transformer if block == "full block" else st.shaped_attention_only
    slopes = {"c_plus": peers.C_PLUS, "c_minus": peers.C_MINUS} if block == "full block" else {}
    arch = preset(n, 1, gamma=peers.GAMMA, tau0=peers.TAU0, **slopes)
    right = st.chain.sample(arch, V0, samples, 1, record=1).covariance[:, 0]
    x = np.zeros((samples, 3, n))
    x[..., :3] = np.sqrt(n) * np.linalg.cholesky(V0)
    torch.manual_seed(0)
    full = block == "full block"
    for y in (
        peers.numpy_block(x, full, np.random.default_rng(0)),
        peers.torch_block(torch.from_numpy(x), full).numpy(),
    ):
        assert smallest_p(right, y @ y.swapaxes(1, 2) / n) > FALSE_ALARM / len(STATISTICS) / 2
        assert smallest_p(right, 1.1 * y @ y.swapaxes(1, 2) / n) < FALSE_ALARM / len(STATISTICS) / 2
