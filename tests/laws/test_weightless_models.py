"""Weightless models have the law of real networks initialised by the models' own code, forward and backward."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from marks import slow
from weightless_families import FAMILIES
from weightless_laws import (
    WRONG_SAMPLES,
    assert_other_statistics,
    assert_same_statistics,
    real_samples,
    weightless_samples,
)

EACH = slow(FAMILIES, long=("ALBERT", "T5", "Mixtral", "BERT", "shaped, Hugging Face"))
"""The long ones have parts that others have too."""


@pytest.mark.parametrize("name", EACH)
def test_weightless_models_have_the_law_of_real_ones(name: str) -> None:
    assert_same_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name]))


@pytest.mark.parametrize("name", EACH)
def test_weightless_models_of_other_weights_have_another_law(name: str) -> None:
    assert_other_statistics(real_samples(FAMILIES[name]), weightless_samples(FAMILIES[name], WRONG_SAMPLES, scale=1.1))
