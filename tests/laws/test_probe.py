"""The probe's bands: healthy networks lie in them as often as they should, and a wrong layer is found and named."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM
from marks import slow
from scipy.stats import binom, ks_2samp

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch
from torch import nn
from transformers.utils import logging

import shaped_transformer as st
from shaped_transformer.estimates import CONFIDENCE
from shaped_transformer.numerics.arrays import Floats
from shaped_transformer.probe.comparison import band

logging.set_verbosity_error()  # type: ignore[no-untyped-call]

MEASURES = ("token_norm", "mean_absolute_correlation", "effective_rank", "gradient_norm")
LEVEL = 1e-3
HEALTHY, WRONG, DRAWS, DEPTH = 20, 80, 200, 4
IDS = torch.tensor([[5, 17, 5, 200, 17, 42, 3, 9]])
IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
SIZES["intermediate_size"] = 96
WIDER: dict[str, Any] = {**SIZES, "hidden_size": 192, "intermediate_size": 288}
OFF: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
GPT2_SIZES: dict[str, Any] = {"vocab_size": 300, "n_positions": 16, "n_embd": 64, "n_layer": DEPTH, "n_head": 4}


@dataclass(frozen=True)
class Family:
    """A model: its configuration by the standard deviation of its weights, its class, a batch, and that deviation."""

    config: Callable[[float], Any]
    cls: Any
    batch: Any
    std: float = 0.1

    def real(self, factor: float = 1.0, *, grown: int | None = None) -> st.probe.ProbeResult:
        """Return the probe of a fresh network, the matrices of one of whose blocks may be 30 % larger."""
        model = self.cls(self.config(factor * self.std)).eval()
        if grown is not None:
            block = next(one for one in model.modules() if isinstance(one, nn.ModuleList))[grown]
            with torch.no_grad():
                for parameter in block.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(1.3)
        return st.probe.run(model, self.batch)


FAMILIES = {
    "GPT-2": Family(
        lambda std: transformers.GPT2Config(initializer_range=std, **GPT2_SIZES, **OFF),
        transformers.GPT2LMHeadModel,
        {"input_ids": IDS},
    ),
    "BERT": Family(
        lambda std: transformers.BertConfig(vocab_size=300, initializer_range=std, **WIDER),
        transformers.BertForMaskedLM,
        {"input_ids": IDS},
        std=0.04,  # as 0.02 is to BERT's own width: the norms after larger branches would hide their size
    ),
    "ViT": Family(
        lambda std: transformers.ViTConfig(image_size=12, patch_size=4, initializer_range=std, **SIZES),
        transformers.ViTModel,
        {"pixel_values": IMAGE},
    ),
    "Llama": Family(
        lambda std: transformers.LlamaConfig(vocab_size=300, num_key_value_heads=2, initializer_range=std, **SIZES),
        transformers.LlamaForCausalLM,
        {"input_ids": IDS},
    ),
}


@functools.cache
def expectation(name: str) -> st.probe.Expectation:
    family = FAMILIES[name]
    return st.probe.expected(family.config(family.std), family.batch, draws=DRAWS, cls=family.cls)


@functools.cache
def healthy(name: str) -> list[st.probe.ProbeResult]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return [FAMILIES[name].real() for _ in range(HEALTHY)]


def smallest_p_value(results: list[st.probe.ProbeResult], expected: st.probe.Expectation) -> float:
    """Return the smallest p-value of Kolmogorov–Smirnov tests, times their number."""
    found = []
    for measure in MEASURES:
        draws, values = expected.draws(measure), np.array([result.mean(measure) for result in results])
        for layer in (0, DEPTH // 2, DEPTH):
            if np.ptp(draws[:, layer]) < 1e-5 * abs(draws[0, layer]):  # a normalisation makes it a constant
                np.testing.assert_allclose(values[:, layer], draws[0, layer], rtol=1e-4)
            else:
                found.append(float(ks_2samp(values[:, layer], draws[:, layer], method="asymp").pvalue))
    return min(found) * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_real_networks_have_the_expected_distribution(name: str) -> None:
    assert smallest_p_value(healthy(name), expectation(name)) > LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_other_weights_have_another_distribution(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        wrong = [FAMILIES[name].real(1.1) for _ in range(WRONG)]
    assert smallest_p_value(wrong, expectation(name)) < LEVEL


@pytest.mark.parametrize("name", slow(FAMILIES, long=("BERT", "ViT")))
def test_healthy_networks_raise_no_alarm(name: str) -> None:
    alarms = [result.compare(expectation(name)).unusual() for result in healthy(name)]
    assert not any(alarms), alarms


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_block_of_larger_weights_is_named(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for grown in range(DEPTH):
            found = FAMILIES[name].real(grown=grown).compare(expectation(name)).unusual()
            scores = [(score, layer) for layers in found.values() for layer, score in layers.items()]
            assert scores, f"block {grown} is not found"
            assert max(scores)[1].endswith(f".{grown}"), (grown, found)


@functools.cache
def pool(count: int = 2200) -> dict[str, Floats]:
    """Return the numbers of many networks, (count, layers)."""
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        results = []
        for _ in range(count):
            layers = nn.ModuleList(
                nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in range(3)
            )
            results.append(st.probe.run(nn.Sequential(*layers), x, layers="*"))
    return {name: np.array([one.mean(name) for one in results]) for name in (*MEASURES, "branch_share")}


@pytest.mark.slow
@pytest.mark.parametrize(("draws", "fresh"), [(20, 2), (100, 10)])
@pytest.mark.parametrize("name", [*MEASURES, "branch_share"])
def test_bands_hold_for_all_layers_at_once(name: str, draws: int, fresh: int) -> None:
    values = pool()[name][:, 1 if name == "branch_share" else 0 :]
    groups = values[: len(values) // (draws + fresh) * (draws + fresh)].reshape(-1, draws + fresh, values.shape[1])
    whole = [
        bool(band(one, group[:draws], st.probe.MEASURES[name]).inside.all())
        for group in groups
        for one in group[draws:]
    ]
    low, high = binom.interval(1 - FALSE_ALARM, len(whole), CONFIDENCE)
    assert low <= sum(whole) <= high, f"{sum(whole)} of {len(whole)} networks are in the band"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "factor"), [("token_norm", 1.1), ("effective_rank", 1.1), ("branch_share", 1.3)])
def test_numbers_that_are_off_are_outside_too_often(name: str, factor: float) -> None:
    draws, fresh = 100, 10
    values = pool()[name][:, 1 if name == "branch_share" else 0 :]
    groups = values[: len(values) // (draws + fresh) * (draws + fresh)].reshape(-1, draws + fresh, values.shape[1])
    measure = st.probe.MEASURES[name]
    whole = [bool(band(factor * one, g[:draws], measure).inside.all()) for g in groups for one in g[draws:]]
    assert sum(whole) < binom.interval(1 - FALSE_ALARM, len(whole), CONFIDENCE)[0]


def test_a_band_of_each_layer_alone_would_be_too_narrow() -> None:
    random = np.random.default_rng(0)
    whole = 0
    for _ in range(200):
        group = random.standard_normal((101, 12))
        drawn = group[:100]
        whole += bool((np.abs(group[100] - drawn.mean(0)) <= 1.98 * drawn.std(0, ddof=1)).all())
    assert whole < binom.interval(1 - FALSE_ALARM, 200, CONFIDENCE)[0]
