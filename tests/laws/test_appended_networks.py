"""Networks known only by what inputs have met, with test points appended, have the distribution of real ones.

Each comes with companions that the same tests refuse: 10 to 20 % wrong parameters, and further normals 10 % too large.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM
from numpy.typing import NDArray
from scipy.stats import ks_2samp

import shaped_transformer as st
from shaped_transformer.bayes import rows

Build = Callable[..., st.Architecture]
relu = st.Activation("relu")


def dense(width: int = 16) -> st.Architecture:
    return st.Architecture(width, 3, (st.Dense(relu),))


def residual(gamma: float = 0.7) -> st.Architecture:
    return st.Architecture(16, 3, (st.Residual(st.MLP(st.ShapedReLU(0.0, -2.0), hidden_width=11), gamma),))


def pre_layer(scale: float = 1.0) -> st.Architecture:
    mlp = st.Residual(st.MLP(st.Activation("gelu"), hidden_width=5), scale, 1.0, "pre", "layer")
    return st.Architecture(16, 2, (mlp,))


def post_rms(scale: float = 1.0) -> st.Architecture:
    return st.Architecture(16, 2, (st.Residual(st.MLP(st.Activation("tanh"), input_gain=1.5), scale, 1.0, "post"),))


def dense_among_layer_norms(scale: float = 0.8) -> st.Architecture:
    first = st.Residual(st.MLP(relu), scale, 1.0, "pre", "layer")
    last = st.Residual(st.MLP(relu), scale, 1.0, "post", "layer")
    return st.Architecture(16, 1, (first, st.Dense(relu), last))


def linear(width: int = 16) -> st.Architecture:
    return st.deep_linear(width, 3)


RNG = np.random.default_rng(3)
FEW, MANY = RNG.standard_normal((3, 4)), RNG.standard_normal((6, 4))  # weights known in part, and drawn whole
TESTS = RNG.standard_normal((2, 4))

CASES: list[tuple[Build, NDArray[Any], dict[str, Any]]] = [
    (dense, FEW, {"width": 20}),
    (dense, MANY, {"width": 20}),
    (residual, FEW, {"gamma": 0.8}),
    (residual, MANY, {"gamma": 0.8}),
    (pre_layer, FEW, {"scale": 0.9}),
    (post_rms, FEW, {"scale": 0.85}),
    (dense_among_layer_norms, FEW, {"scale": 0.95}),
    (linear, FEW, {"width": 20}),
]


def appended(arch: st.Architecture, inputs: Any, samples: int) -> dict[str, Any]:
    """V_d of training inputs and test points, by the numbers of two of them."""
    alone = st.bayes.sample(arch, inputs, samples, seed=1, tests=TESTS)
    joint = st.bayes.sample(arch, inputs, samples, seed=2, tests=TESTS, joint=True)
    return {
        "training input": alone.covariance[:, 0, 0],
        "training inputs": alone.covariance[:, 0, -1],
        "test point": alone.tests[:, 1],
        "test point, training input": alone.cross[:, 1, 0],
        "conditional variance": conditional(alone.covariance, alone.cross[:, 1], alone.tests[:, 1]),
        "test points drawn jointly": joint.tests[:, 0, 1],
    }


def real(arch: st.Architecture, inputs: Any, samples: int) -> dict[str, Any]:
    """The same of real networks."""
    v0 = st.inputs.from_vectors(np.vstack([inputs, TESTS]))
    v, p = st.network.sample(arch, v0, samples, seed=1, record=1).covariance[:, -1], len(inputs)
    return {
        "training input": v[:, 0, 0],
        "training inputs": v[:, 0, p - 1],
        "test point": v[:, p + 1, p + 1],
        "test point, training input": v[:, p + 1, 0],
        "conditional variance": conditional(v[:, :p, :p], v[:, p + 1, :p], v[:, p + 1, p + 1]),
        "test points drawn jointly": v[:, p, p + 1],
    }


def conditional(covariance: Any, cross: Any, own: Any) -> Any:
    """What the training inputs, with noise 0.1, leave of the variance at a test point."""
    noisy = covariance + 0.1 * np.eye(covariance.shape[-1])
    return own - np.einsum("sp,sp->s", cross, np.linalg.solve(noisy, cross[..., None])[..., 0])


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """The p-values of statistics that differ, at the joint level `FALSE_ALARM`; constants are left out."""
    p = {
        name: ks_2samp(first[name], second[name], method="asymp").pvalue for name in first if np.ptp(first[name]) > 1e-9
    }
    assert len(p) >= 4
    return {name: float(value) for name, value in p.items() if value < FALSE_ALARM / len(p)}


@pytest.mark.slow
@pytest.mark.parametrize(("build", "inputs", "wrong"), CASES, ids=[f"{c[0].__name__}-{len(c[1])}" for c in CASES])
def test_only_the_right_networks_have_the_law(build: Build, inputs: Any, wrong: dict[str, Any]) -> None:
    networks = real(build(), inputs, 30_000)
    assert differences(networks, appended(build(), inputs, 30_000)) == {}
    assert differences(networks, appended(build(**wrong), inputs, 30_000))


def test_appended_points_have_the_law_of_real_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer samples than the test above, so that it is quick, and a companion in which appending is wrong."""
    networks = real(residual(), FEW, 6000)
    assert differences(networks, appended(residual(), FEW, 6000)) == {}
    assert differences(networks, appended(residual(gamma=0.85), FEW, 6000))
    original = rows.RowDraws._appended

    def too_long(self: Any, asked: Any, basis: Any, images: Any, source: Any) -> Any:
        inside = asked @ basis.swapaxes(-1, -2) @ images
        return inside + 1.2 * (original(self, asked, basis, images, source) - inside)

    monkeypatch.setattr(rows.RowDraws, "_appended", too_long)
    found = differences(networks, appended(residual(), FEW, 6000))
    assert "test point" in found
    assert "training input" not in found
