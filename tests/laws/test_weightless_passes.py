"""Weightless models have the law of real ones where passes are repeated, in other precisions, and for layers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import assert_not_the_law, assert_same_law
from marks import slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn
from weightless_families import GPT2, IDS, gpt2_config
from weightless_laws import (
    WRONG_SAMPLES,
    Family,
    Source,
    assert_other_statistics,
    assert_same_statistics,
    assert_unseen,
    gradient_norms,
    hugging_face,
    measure,
    module,
    real_samples,
    weightless_samples,
)

import shaped_transformer as st

SAMPLES = 400
OTHER_IDS = torch.tensor([[42, 17, 5, 9, 250, 5]])


def changed(source: Source, change: Callable[[Any], object]) -> Source:
    """Return a model with a change after it is built."""

    def apply(model: Any) -> Any:
        change(model)
        return model

    def fresh(scale: float) -> Callable[[], Any]:
        draw = source.fresh(scale)
        return lambda: apply(draw())

    return Source(fresh, lambda scale: apply(source.weightless(scale)))


def two_losses(model: Any) -> Any:
    return tuple(model(input_ids=ids, labels=ids).loss for ids in (IDS, OTHER_IDS))


def freeze(model: Any) -> None:
    for part in (model.transformer.h[1], model.transformer.wpe):
        part.requires_grad_(requires_grad=False)


def checkpoint(model: Any) -> None:
    model.train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


FROZEN = dataclasses.replace(
    GPT2,
    source=changed(GPT2.source, freeze),
    parameters=tuple(name for name in GPT2.parameters if ".h.1." not in name),
)
FAMILIES: dict[str, Family] = {
    "two passes": dataclasses.replace(GPT2, losses=two_losses),
    "frozen": FROZEN,
}
EACH = slow(FAMILIES, long=["two passes"])


@pytest.mark.parametrize("name", EACH)
def test_such_passes_have_the_law_of_real_ones(name: str) -> None:
    assert_same_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name], SAMPLES))


@pytest.mark.parametrize("name", EACH)
def test_such_passes_of_other_weights_have_another_law(name: str) -> None:
    assert_other_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name], WRONG_SAMPLES, scale=1.1))


def test_frozen_weights_have_no_gradient() -> None:
    model = FROZEN.source.weightless(1.0)
    measure(FROZEN, model)
    assert not any(".h.1." in name or ".wpe." in name for name in gradient_norms(model))


def test_checkpointing_changes_rounding_only() -> None:
    plain, checkpointed = GPT2.source.weightless(1.0), changed(GPT2.source, checkpoint).weightless(1.0)
    for seed in range(3):
        for model in (plain, checkpointed):
            st.weightless.redraw(model, seed=seed)
        first, second = measure(GPT2, plain), measure(GPT2, checkpointed)
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


SOURCES = {
    "checkpointed": changed(GPT2.source, checkpoint),
    "double precision": hugging_face(gpt2_config, transformers.AutoModelForCausalLM, dtype=torch.float64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_such_models_have_the_law_of_real_ones_in_single_precision(name: str) -> None:
    family = dataclasses.replace(GPT2, source=SOURCES[name])
    assert_same_statistics(real_samples(GPT2), weightless_samples(family, SAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_such_models_of_other_weights_have_another_law(name: str) -> None:
    family = dataclasses.replace(GPT2, source=SOURCES[name])
    assert_other_statistics(real_samples(GPT2), weightless_samples(family, WRONG_SAMPLES, scale=1.1))


WIDTH, DRAWS = 512, 400
V0 = st.inputs.equicorrelated(4, 0.2)
ARCHITECTURE = st.shaped_transformer(WIDTH, 3, gamma=0.6, tau0=0.7, heads=4, mask="causal")


def weightless_ensemble(arch: st.Architecture) -> st.Ensemble:
    """Return V of weightless modules as an ensemble; each has its input rotated, on which LayerNorm depends."""
    rng = np.random.default_rng(0)
    model = st.weightless.build(lambda: st.nn.from_architecture(arch).eval())
    factor = np.linalg.cholesky(V0)
    covariance = []
    for seed in range(DRAWS):
        st.weightless.redraw(model, seed=seed)
        frame = np.linalg.qr(rng.standard_normal((arch.width, 4)))[0].T * arch.width**0.5
        with torch.no_grad():
            x = model(torch.as_tensor(factor @ frame, dtype=torch.float32)[None])[0].double().numpy()
        covariance.append(x @ x.T / arch.width)
    assert_unseen(model)
    v = np.stack(covariance)[:, None]
    like = st.chain.sample(arch, V0, 1, 0, record=1)
    eigenvalues = np.maximum(np.linalg.eigvalsh(v)[..., ::-1], 0)
    return dataclasses.replace(like, covariance=v, eigenvalues=eigenvalues, stopped=np.full(DRAWS, arch.depth + 1))


@pytest.mark.slow
def test_a_wide_weightless_definition_has_the_law_of_the_chain() -> None:
    chain = st.chain.sample(ARCHITECTURE, V0, 5000, 1, record=1)
    assert_same_law(weightless_ensemble(ARCHITECTURE), chain)
    other = st.shaped_transformer(WIDTH, 3, gamma=0.66, tau0=0.7, heads=4, mask="causal")
    assert_not_the_law(weightless_ensemble(other), chain)


def encoder_layer(vectors: Any) -> Family:
    """Return PyTorch's own layer, whose weights are uniform, with Gaussian ones in their place."""
    width = vectors.shape[-1]

    def losses(model: Any) -> Any:
        return ((model(vectors) - vectors.roll(1, 1)).square().mean(),)

    def factory() -> nn.Module:
        return nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)

    names = ("self_attn.in_proj_weight", "linear1.weight", "linear2.weight")
    return Family(module(factory, approximate=True), losses, "linear2", "self_attn", names)


@pytest.mark.slow
def test_gaussian_in_place_of_uniform_weights_cannot_be_told_apart_on_dense_vectors() -> None:
    dense = encoder_layer(torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(2)))
    assert_same_statistics(real_samples(dense), weightless_samples(dense))
    assert_other_statistics(real_samples(dense), weightless_samples(dense, WRONG_SAMPLES, scale=1.1))


@pytest.mark.slow
def test_gaussian_in_place_of_uniform_weights_differ_on_vectors_with_one_large_coordinate() -> None:
    sparse = encoder_layer(8 * torch.eye(64)[None, :4])
    assert_other_statistics(real_samples(sparse), weightless_samples(sparse, 400))
