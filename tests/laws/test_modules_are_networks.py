"""At initialisation, a PyTorch module made from a definition has the law of the networks and of the exact chain."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from assertions import assert_not_the_law, assert_same_law

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn

SAMPLES = 3000
ARCHITECTURES = {
    "shaped": st.shaped_transformer(12, 6, gamma=0.6, tau0=0.7, heads=3, mask="causal"),
    "shaped, one head": st.shaped_transformer(12, 6, gamma=0.6, tau0=0.7),
    "pre-norm": st.pre_norm_transformer(12, 6, heads=2),
    "post-norm": st.post_norm_transformer(12, 6, hidden_width=24),
    "gains, gelu, rms": st.Architecture(
        12,
        4,
        (
            st.Residual(st.ShapedAttention(heads=2, identity_gain=(1.0, 0.5), uniform_gain=0.5), 0.6, norm="pre"),
            st.Residual(st.MLP(st.Activation("gelu"), input_gain=0.8, normalise=False), 0.6),
        ),
    ),
    "dense tanh": st.shaped_mlp(12, 6, activation=st.ShapedSmooth("tanh", 0.5)),
    "masked": st.Architecture(
        12, 4, (st.Residual(st.SoftmaxAttention(mask=np.tri(4, k=1), key_width=5, logit_gain=1.5), 0.5),)
    ),
}
V0 = st.inputs.equicorrelated(4, 0.2)


def module_ensemble(arch: st.Architecture, samples: int = SAMPLES) -> st.Ensemble:
    """Return V of modules with fresh weights as an ensemble; each has its input rotated, on which LayerNorm depends."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = nn.from_architecture(arch).double().eval()
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    factor = np.linalg.cholesky(V0)
    covariance = []
    for _ in range(samples):
        for linear in linears:
            torch.nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        frame = np.linalg.qr(rng.standard_normal((arch.width, 4)))[0].T * arch.width**0.5
        with torch.no_grad():
            x = module(torch.as_tensor(factor @ frame)[None])[0].numpy()
        covariance.append(x @ x.T / arch.width)
    v = np.stack(covariance)[:, None]
    like = st.chain.sample(arch, V0, 1, 0, record=1)
    eigenvalues = np.maximum(np.linalg.eigvalsh(v)[..., ::-1], 0)
    return dataclasses.replace(like, covariance=v, eigenvalues=eigenvalues, stopped=np.full(samples, arch.depth + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_modules_have_the_law_of_network_and_chain(name: str) -> None:
    arch: Any = ARCHITECTURES[name]
    modules = module_ensemble(arch)
    assert_same_law(modules, st.chain.sample(arch, V0, 20_000, 1, record=1))
    assert_same_law(modules, st.network.sample(arch, V0, 20_000, 1, record=1))


@pytest.mark.slow
def test_modules_of_another_gamma_have_another_law() -> None:
    arch = st.shaped_transformer(12, 6, gamma=0.6, tau0=0.7, heads=3, mask="causal")
    other = st.shaped_transformer(12, 6, gamma=0.72, tau0=0.7, heads=3, mask="causal")
    assert_not_the_law(module_ensemble(other), st.chain.sample(arch, V0, 20_000, 1, record=1))
