"""A model of 30 million parameters that is trained for real lies in its rehearsal's bands, by step and layer."""

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from assertions import FALSE_ALARM
from transformers.utils import logging

import shaped_transformer as st
from shaped_transformer.probe import comparison
from shaped_transformer.probe.measures import Measure
from shaped_transformer.rehearse import Rehearsal

logging.set_verbosity_error()  # type: ignore[no-untyped-call]

CONFIG = transformers.LlamaConfig(
    vocab_size=11_000, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1376
)
IDS = torch.randint(0, 11_000, (1, 16), generator=torch.Generator().manual_seed(0))
RATE, DRAWS = 3e-4, 24
NUMBERS = ("loss", "output_change", "stream_change", "attention_spread", "gradient_norm", "effective_update")
SEEDS = (0, 1)


def rehearsed(model: Any = CONFIG, **settings: Any) -> Rehearsal:
    batch = {"input_ids": IDS, "labels": IDS}
    return st.rehearse.run(model, batch, **{"lr": RATE, "steps": 5, "warmup": 2, "clip": 1.0} | settings)


@functools.cache
def rehearsal() -> Rehearsal:
    return rehearsed(draws=DRAWS)


def grown() -> Any:
    """Return a network whose fourth block has weights that are 30 % larger."""
    model = transformers.LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for parameter in model.model.layers[3].parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.3)
    return model


def scores(result: Rehearsal) -> dict[str, Any]:
    """Return how far numbers of a real training are from the middle of their bands, in half widths.

    A band holds for all steps and layers, or weights, at once, and all bands together at the level `FALSE_ALARM`.
    """
    found = {}
    for name in NUMBERS:
        draws, value = rehearsal().data[name].values, result.data[name].values[0]
        known = np.isfinite(draws).all(0) & (draws > 0).all(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comparison, "ALARM", FALSE_ALARM / len(NUMBERS))
            band = comparison.band(value[known], draws[:, known], Measure(name, positive=True))
        found[name] = np.zeros(value.shape)
        found[name][known] = np.abs(band.score) / band.alarm
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_real_training_lies_in_the_bands(seed: int) -> None:
    result = rehearsed(real=True, seed=seed)
    assert result.settings["parameters"] > 30e6
    for name, found in scores(result).items():
        assert (found < 1).all(), (name, found)


@pytest.mark.slow
def test_a_rate_thirty_percent_off_leaves_the_bands() -> None:
    found = scores(rehearsed(real=True, lr=1.3 * RATE))
    assert (found["stream_change"][1:].max(-1) > 1).all(), found["stream_change"]
    assert (found["effective_update"][:3].max(-1) > 1).all(), found["effective_update"]


@pytest.mark.slow
def test_a_block_of_larger_weights_leaves_the_bands() -> None:
    result = rehearsed(grown, real=True)
    found = scores(result)["effective_update"][0]
    outside = [str(name) for name in result.data.weight.values[found > 1]]
    assert outside
    assert all(name.startswith("model.layers.3.") for name in outside), outside
