"""Weightless models have the law of real networks initialised by the models' own code, forward and backward."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from weightless_families import FAMILIES
from weightless_laws import (
    WRONG_SAMPLES,
    assert_other_statistics,
    assert_same_statistics,
    real_samples,
    weightless_samples,
)

SIMILAR = ("ALBERT", "T5", "Mixtral", "BERT")
"""Families whose parts the others have too."""
EACH = [pytest.param(name, marks=pytest.mark.long if name in SIMILAR else pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("name", EACH)
def test_weightless_models_have_the_law_of_real_ones(name: str) -> None:
    assert_same_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name]))


@pytest.mark.parametrize("name", EACH)
def test_weightless_models_of_other_weights_have_another_law(name: str) -> None:
    assert_other_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name], WRONG_SAMPLES, scale=1.1))
