"""Rehearsals have the law of real training, step by step and layer by layer."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from marks import slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from assertions import FALSE_ALARM
from torch import nn
from weightless_families import GROUPED, IDS, SHALLOW, SIZES, VECTORS, gpt2_config
from weightless_laws import Samples, assert_other_statistics, assert_same_statistics, p_values

import shaped_transformer as st
from shaped_transformer.rehearse.updates import initial_norm
from shaped_transformer.weightless.optimisers.muon import newton_schulz

SAMPLES, REAL_SAMPLES, WRONG_SAMPLES = 100, 250, 100
CONSTANT = 1e-3
"""Scatter below which a number is a constant, up to ε and rounding: the norm of Adam's first update."""

TOKENS = {"input_ids": IDS, "labels": IDS}


@dataclass(frozen=True)
class Case:
    """A model and how it is trained.

    - `build`: builds a real one, which weightless models are recorded from too.
    - `batch`: what it is trained on.
    - `weights`: of which updates are compared.
    - `shown`: after which steps.
    - `settings`: of `st.rehearse.run`.
    """

    build: Callable[[], nn.Module]
    batch: Any
    weights: tuple[str, ...]
    shown: tuple[int, ...] = (1, 2, 5)
    settings: dict[str, Any] = field(default_factory=dict)


def causal(config: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: transformers.AutoModelForCausalLM.from_config(config())


LLAMA = causal(lambda: transformers.LlamaConfig(initializer_range=0.15, **SIZES, **GROUPED))
LLAMA_WEIGHTS = (
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
)


def distance(output: Any) -> Any:
    return (output - VECTORS.roll(1, 1)).square().mean()


GROUPS: dict[str, Any] = {"groups": st.nn.parameter_groups}
CASES = {
    "GPT-2": Case(
        causal(lambda: gpt2_config(1.0)),
        TOKENS,
        ("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_proj.weight"),
    ),
    "Llama": Case(LLAMA, TOKENS, LLAMA_WEIGHTS, settings={"lr": 1e-3}),  # at 3e-3 losses hardly tell rates apart
    "shaped": Case(
        lambda: st.nn.ShapedTransformer(width=64, depth=2, heads=4, gamma=0.5),
        VECTORS,
        ("blocks.0.attention.branch.key.weight", "blocks.1.mlp.branch.output.weight"),
        settings=GROUPS | {"loss": distance},
    ),
    "shaped, Hugging Face": Case(
        causal(lambda: st.hf.ShapedTransformerConfig(initializer_range=0.15, gamma=0.5, **SIZES)),
        TOKENS,
        ("head.weight", "model.layers.0.block.attention.branch.query.weight"),
        (1, 2),
        GROUPS | {"lr": 1e-3},
    ),
    "Llama, Muon": Case(
        causal(lambda: transformers.LlamaConfig(initializer_range=0.15, **SHALLOW, **GROUPED)),
        TOKENS,
        (*LLAMA_WEIGHTS[:3], "model.layers.0.mlp.down_proj.weight"),
        (1, 3),
        {"optimiser": "muon"},
    ),
}


class Sizes:
    """Builds real models, and keeps the norms of their weights.

    **Attributes:**

    - `norms`: norms of the weights of each model, (draws, weights).
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.norms: list[list[float]] = []

    def __call__(self) -> nn.Module:
        model = self.case.build()
        self.norms.append([float(model.get_parameter(name).detach().norm()) for name in self.case.weights])
        return model


@functools.cache
def expected_norms(name: str) -> Any:
    """Return the root mean square of the norms of a model's weights, (weights,)."""
    model = st.weightless.build(CASES[name].build)
    return [initial_norm(model.get_parameter(one).source.matrix(1)) for one in CASES[name].weights]


def rehearsed(name: str, draws: int, factor: float = 1.0, *, real: bool = False, shown: Any = None) -> Samples:
    """Return the statistics of networks that were trained with or without weights."""
    case = CASES[name]
    model: Any = Sizes(case) if real else case.build
    settings: dict[str, Any] = {"lr": 3e-3, "warmup": 3, "clip": 1.0, "weight_decay": 0.1} | case.settings
    settings["lr"] *= factor
    shown = shown or case.shown
    result = st.rehearse.run(model, case.batch, steps=shown[-1], draws=draws, real=real, **settings)
    assert result.settings["ended"] is None
    data = result.data
    found = {"loss": data["loss"].values[:, 0], "gradient": data["gradient_total"].values[:, 0]}
    first = data["loss"].values[:, 0] - data["loss"].values[:, 1]
    found["loss, first change over gradient"] = first / found["gradient"]  # scatters less than either
    for step in shown:
        now = data.sel(step=step)
        found[f"loss after {step}, relative"] = now["loss"].values / found["loss"]
        for layer in data.layer.values[1:]:
            found[f"stream change after {step}, {layer}"] = now["stream_change"].sel(layer=layer).values
        if "attention" in data:
            found[f"attention spread after {step}"] = now["attention_spread"].values[:, -1]
    # a weightless matrix is measured by the root mean square of its norm, so a real one is here too
    norms = np.array(model.norms) / expected_norms(name) if real else np.ones((draws, len(case.weights)))
    for update in shown:
        found[f"clipped in {update}"] = data["clipped"].sel(update=update).values
        for number, weight in enumerate(case.weights):
            of = data.sel(update=update, weight=weight)
            found[f"update {update} of {weight}"] = of["weight_update"].values * norms[:, number]
            found[f"effective update {update} of {weight}"] = of["effective_update"].values
    return found


@functools.cache
def real(name: str) -> Samples:
    """Return the statistics of real training; Muon iterates in double precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", newton_schulz)
        return rehearsed(name, REAL_SAMPLES, real=True)


@functools.cache
def weightless(name: str) -> Samples:
    return rehearsed(name, SAMPLES)


EACH = slow(CASES, long=("Llama, Muon", "shaped, Hugging Face"))
"""The models of the long ones are those of others."""


def only(samples: Samples, names: Iterable[str]) -> Samples:
    return {one: samples[one] for one in names}


def varying(samples: Samples) -> list[str]:
    """Return the statistics that are not the same for all networks."""
    return [name for name, x in samples.items() if np.std(x) > CONSTANT * np.mean(np.abs(x))]


@pytest.mark.parametrize("name", EACH)
def test_steps_have_the_law_of_real_training(name: str) -> None:
    ours, theirs = weightless(name), real(name)
    assert ours.keys() == theirs.keys()
    names = varying(theirs)
    for one in theirs.keys() - {*names}:
        np.testing.assert_allclose(ours[one], np.mean(theirs[one]), rtol=4 * CONSTANT, err_msg=one)
    assert_same_statistics(only(theirs, names), only(ours, names))


@pytest.mark.parametrize("name", EACH)
def test_a_rate_ten_percent_off_has_another_law(name: str) -> None:
    """It is found in losses and streams alone, in norms of updates, and in their effects."""
    theirs, wrong = real(name), rehearsed(name, WRONG_SAMPLES, 1.1, shown=CASES[name].shown[:2])
    names = [one for one in varying(theirs) if one in wrong]
    found = p_values(only(theirs, names), only(wrong, names))
    for kinds in ("loss", "stream"), ("update",), ("effective",):
        assert min(p for one, p in found.items() if one.startswith(kinds)) < FALSE_ALARM / len(theirs), kinds


@pytest.mark.long
def test_muon_in_16_bits_adds_noise_to_updates_that_hardly_acts() -> None:
    """PyTorch's Muon iterates in bfloat16. Rounding errors grow in directions that the gradient does not have."""
    name = "Llama, Muon"
    ours, theirs = weightless(name), rehearsed(name, REAL_SAMPLES, real=True)
    larger = [one for one in theirs if one.startswith("update") and "layers" in one]
    assert_same_statistics(
        *(only(some, [one for one in varying(theirs) if one not in larger]) for some in (theirs, ours))
    )
    for one in larger:
        assert 1 < np.median(theirs[one]) / np.median(ours[one]) < 1.3
    assert_other_statistics(only(theirs, larger), only(ours, larger))
