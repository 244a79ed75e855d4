"""The widths of heads and the activation in the configuration of the library's own models."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

import shaped_transformer as st
from shaped_transformer import hf
from shaped_transformer.design.named import NAMED

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
WIDTHS: dict[str, Any] = {"key_width": 6, "value_width": 10}
IDS = torch.arange(2, 9)[None]


def model(**options: Any) -> Any:
    torch.manual_seed(0)
    made: Any = hf.ShapedTransformerForCausalLM(hf.ShapedTransformerConfig(**(SMALL | WIDTHS | options)))
    return made.eval()


def test_the_widths_of_a_head_are_those_of_the_attention() -> None:
    branch = model().model.layers[0].block.attention.branch
    assert (branch.query.out_features, branch.value.out_features) == (4 * 6, 4 * 10)


def test_a_model_with_such_options_loads_as_it_was_saved(tmp_path: Path) -> None:
    made = model(activation="shaped-tanh")
    made.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (again.config.key_width, again.config.value_width, again.config.activation) == (6, 10, "shaped-tanh")
    torch.testing.assert_close(again(IDS).logits, made(IDS).logits)


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_generation_with_a_cache_equals_generation_without(cache: dict[str, Any]) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    made = model(num_key_value_heads=2)
    expected = made.generate(IDS, use_cache=False, **options)
    assert made.generate(IDS, **options, **cache).tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["shaped", *NAMED])
def test_every_name_of_an_activation_builds_a_model(name: str) -> None:
    assert model(activation=name)(IDS).logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"key_width": None},
            "4 heads do not divide the width 30: use one of 1, 2, 3, 5, 6, 10, 15 or 30 heads, or hidden_size 28 or 32",
        ),
        ({"activation": "swish"}, "activation: give one of shaped, relu, "),
        ({"activation": st.Activation("gelu")}, "activation must be a name, because a configuration is saved as JSON"),
        ({"key_width": 0}, "key_width: input should be greater than or equal to 1"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number of at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_when_the_configuration_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        hf.ShapedTransformerConfig(**(SMALL | WIDTHS | options))
