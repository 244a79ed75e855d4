"""Configurations of other sizes."""

from typing import Any

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.rehearse.scaling import sized

CASES: dict[str, tuple[Any, dict[str, int]]] = {
    "GPT2Config": (
        {"n_embd": 48, "n_head": 6, "n_layer": 4, "n_inner": 96},
        {"n_embd": 24, "n_head": 3, "n_layer": 12, "n_inner": 48},
    ),
    "LlamaConfig": (
        {
            "hidden_size": 48,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 80,
            "num_hidden_layers": 4,
        },
        {
            "hidden_size": 24,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 40,
            "num_hidden_layers": 12,
            "head_dim": 6,
        },
    ),
    "BertConfig": (
        {"hidden_size": 48, "num_attention_heads": 8, "intermediate_size": 80, "num_hidden_layers": 4},
        {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40, "num_hidden_layers": 12},
    ),
    "OPTConfig": (
        {
            "hidden_size": 48,
            "num_attention_heads": 8,
            "ffn_dim": 80,
            "num_hidden_layers": 4,
            "word_embed_proj_dim": 48,
        },
        {
            "hidden_size": 24,
            "num_attention_heads": 4,
            "ffn_dim": 40,
            "num_hidden_layers": 12,
            "word_embed_proj_dim": 24,
        },
    ),
    "T5Config": (
        {"d_model": 48, "d_kv": 6, "d_ff": 80, "num_heads": 8, "num_layers": 4},
        {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 12, "num_decoder_layers": 12},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_multiplied_and_the_rest_stays(name: str) -> None:
    given, expected = CASES[name]
    config = getattr(transformers, name)(**given)
    before, after = config.to_dict(), st.rehearse.scaled(config, width=0.5, depth=3).to_dict()
    assert {key: after[key] for key in expected} == expected
    assert config.to_dict() == before
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {key for key, value in expected.items() if before[key] != value}


def test_our_default_gamma_follows_the_depth_and_a_given_one_stays() -> None:
    config = st.hf.ShapedTransformerConfig(hidden_size=16, num_hidden_layers=4)
    assert st.rehearse.scaled(config, depth=4).gamma == pytest.approx(0.5 / 16**0.5)
    config = st.hf.ShapedTransformerConfig(hidden_size=16, num_hidden_layers=4, gamma=0.3)
    assert st.rehearse.scaled(config, depth=4).gamma == 0.3


def test_kinds_of_layers_go_on_in_their_pattern() -> None:
    config = transformers.Gemma2Config(num_hidden_layers=4)
    twice = st.rehearse.scaled(config, depth=2)
    assert twice.layer_types == config.layer_types * 2
    assert st.rehearse.scaled(config, depth=0.5).layer_types == config.layer_types[:2]


@pytest.mark.parametrize(
    ("width", "depth", "message"),
    [
        (0.3, 1, r"width 0.3 turns hidden_size 64 into 19.2, not a whole number .*choose other factors"),
        (0.125, 1, r"width 0.125 turns num_attention_heads 4 into 0.5"),
        (1, 0.2, r"depth 0.2 turns num_hidden_layers 2 into 0.4"),
        (0, 1, r"width must be a positive factor \(got 0\)"),
        (1, float("nan"), r"depth must be a positive factor"),
    ],
)
def test_sizes_that_are_not_whole_are_refused(width: float, depth: float, message: str) -> None:
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, num_key_value_heads=4
    )
    with pytest.raises(st.InputError, match=message):
        st.rehearse.scaled(config, width, depth)


def test_a_configuration_without_the_usual_names_is_refused() -> None:
    with pytest.raises(st.InputError, match=r"the hidden_size of a ResNetConfig is unknown: give a function"):
        st.rehearse.scaled(transformers.ResNetConfig(), 2)


def test_a_function_of_both_factors_builds_its_sizes() -> None:
    def build(width: float, depth: float) -> Any:
        return st.nn.ShapedTransformer(width=round(16 * width), depth=round(2 * depth), heads=2)

    made = sized(build, 2, 3)()
    assert len(made.blocks) == 6
    assert made.blocks[0].width == 32
