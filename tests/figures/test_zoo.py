"""The zoo: every entry is a model that transformers knows, and equal words are equal tokens."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.figures import catalogue, zoo
from shaped_transformer.io.yaml import read_yaml

ENTRIES = read_yaml(zoo.ZOO)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_model_has_a_configuration_a_colour_and_a_row(name: str) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    measure = pytest.importorskip("shaped_transformer.weightless.measure")
    entry = ENTRIES[name]
    config = measure.configuration(name, zoo.ZOO)
    assert getattr(transformers, entry["model"]).config_class is type(config)
    assert entry["family"] in zoo.COLOURS
    assert entry["group"] in zoo.GROUPS
    known = config.to_dict()
    assert all(config.attribute_map.get(key, key) in known or key in known for key in entry["sizes"])


def test_every_row_has_a_model() -> None:
    drawn = catalogue.settings("zoo")["draws"]
    assert {ENTRIES[name]["group"] for name in drawn} == set(zoo.GROUPS)


def test_a_model_that_is_not_in_the_zoo_is_refused() -> None:
    with pytest.raises(st.InputError, match=r"figure zoo: draws: .*unknown model 'GPT-5': choose from GPT-2 124M"):
        catalogue.settings("zoo", changes={"draws": {"GPT-5": 10}})


def test_equal_words_are_equal_tokens_and_equal_patches() -> None:
    pytest.importorskip("torch")
    words, ids = zoo.TEXT.split(), zoo._words()["input_ids"][0].tolist()
    image = zoo._image()["pixel_values"][0].numpy()
    size = zoo.PATCH
    side = image.shape[1] // size
    patches = [image[:, i * size : (i + 1) * size, j * size : (j + 1) * size] for i in range(side) for j in range(side)]
    assert len(words) == len(ids) == len(patches)
    for i, word in enumerate(words):
        for j, other in enumerate(words):
            assert (ids[i] == ids[j]) == (word == other) == np.array_equal(patches[i], patches[j])


def test_an_encoder_and_a_decoder_are_shown_apart() -> None:
    both = ["encoder.block.input", "encoder.block.0", "decoder.block.input", "decoder.block.0", "decoder.block.1"]
    assert zoo._stacks("T5", both) == {"T5 encoder": [0, 1], "T5 decoder": [2, 3, 4]}
    shared = ["albert.input", "albert.0", "albert.0#2"]
    assert zoo._stacks("ALBERT", shared) == {"ALBERT": [0, 1, 2]}
