"""Suggestions are tried before they are made."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from shaped_transformer.probe.expectation import expected
from shaped_transformer.probe.suggestions import changes, results_of, suggestions
from shaped_transformer.probe.verdict import judge

IDS = torch.tensor([[3, 7, 9, 2, 3, 11, 17, 5, 8, 21, 14, 9]])
BATCH = {"input_ids": IDS, "labels": IDS}


def bert(**sizes: float) -> object:
    given = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 50} | sizes
    return transformers.BertConfig(**given)


def test_the_changes_are_those_that_the_configuration_has() -> None:
    found = dict(changes(bert(num_hidden_layers=6)))
    deviations = {f"initializer_range 0.02 → {new}" for new in (0.01, 0.005, 0.002, 0.04)}
    assert set(found) == deviations | {"num_hidden_layers 6 → 3"}
    assert found["num_hidden_layers 6 → 3"].num_hidden_layers == 3


@pytest.mark.slow
def test_a_smaller_initial_deviation_is_found_to_mend_a_collapse() -> None:
    config, masked = bert(num_hidden_layers=24, initializer_range=0.1), transformers.AutoModelForMaskedLM
    (before,) = results_of(expected(config, BATCH, 1, cls=masked))
    assert "collapse" in [finding.name for finding in judge(before).findings]
    found = suggestions(config, BATCH, cls=masked, draws=2)
    assert found
    assert found[0].mended == 2
    assert found[0].change == "initializer_range 0.1 → 0.05"
    assert found[0].verdict.good
