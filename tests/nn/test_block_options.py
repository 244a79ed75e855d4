"""The options of blocks that set widths and the activation: they build the module of the same definition."""

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn
from shaped_transformer.design.named import NAMED

WIDTHS: dict[str, Any] = {"key_width": 3, "value_width": 5, "hidden_width": 7}
PRESET_OPTIONS: dict[str, dict[str, Any]] = {
    "shaped_transformer": WIDTHS | {"heads": 4, "activation": st.Activation("gelu"), "norm": "pre"},
    "shaped_attention_only": {"heads": 4, "key_width": 3, "value_width": 5, "norm": "post", "normaliser": "layer"},
    "shaped_mlp": {"activation": st.ShapedSmooth("sin", a=1.0)},
    "deep_linear": {},
    "pre_norm_transformer": WIDTHS | {"heads": 4, "activation": st.ShapedSmooth("tanh", a=1.0)},
    "post_norm_transformer": WIDTHS | {"heads": 4},
    "skipless_transformer": WIDTHS | {"heads": 4, "mask": "causal"},
}


@pytest.mark.parametrize("preset", st.PRESETS)
def test_the_options_of_every_preset_have_a_module(preset: str) -> None:
    arch = st.PRESETS[preset](10, 2, **PRESET_OPTIONS[preset])
    assert nn.from_architecture(arch)(torch.randn(2, 3, 10)).shape == (2, 3, 10)


def with_the_weights_of(module: Any, other: Any) -> Any:
    """Return the module with the parameters of another one, in order."""
    with torch.no_grad():
        for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs)
    return module


SMOOTH = st.ShapedSmooth("tanh", a=0.5)


@pytest.mark.parametrize(
    ("of_block", "of_preset"),
    [
        ({}, {}),
        (WIDTHS, WIDTHS),
        ({"activation": "shaped-relu", "c_plus": 0.3}, {"c_plus": 0.3}),
        ({"activation": "gelu"}, {"activation": st.Activation("gelu")}),
        ({"activation": "shaped-sin"}, {"activation": st.ShapedSmooth("sin", a=1.0)}),
        ({"activation": SMOOTH}, {"activation": SMOOTH}),
        ({"activation": st.ShapedReLU(0.3, -0.2)}, {"activation": st.ShapedReLU(0.3, -0.2)}),
    ],
    ids=str,
)
def test_a_model_with_an_option_computes_what_the_module_of_the_definition_computes(
    of_block: dict[str, Any], of_preset: dict[str, Any]
) -> None:
    heads = 4 if "key_width" in of_block else 2
    model = nn.ShapedTransformer(10, 2, heads, gamma=0.6, **of_block)
    module = nn.from_architecture(st.shaped_transformer(10, 2, heads=heads, gamma=0.6, **of_preset))
    x = torch.randn(2, 3, 10)
    torch.testing.assert_close(with_the_weights_of(model, module)(x), module(x))


@pytest.mark.parametrize("attention", ["shaped", "softmax", "skipinit"])
def test_every_attention_of_a_block_takes_the_widths_of_a_head(attention: str) -> None:
    branch: Any = nn.ShapedBlock(10, 4, attention=attention, key_width=3, value_width=5).attention.branch
    assert (branch.query.out_features, branch.value.out_features) == (4 * 3, 4 * 5)


def test_one_head_of_another_value_width_has_an_output_projection_if_asked() -> None:
    branch: Any = nn.ShapedBlock(10, value_width=5, output_projection=True).attention.branch
    assert (branch.output.in_features, branch.output.out_features) == (5, 10)


@pytest.mark.parametrize("name", ["shaped", *NAMED])
def test_every_name_of_an_activation_builds_a_block(name: str) -> None:
    assert nn.ShapedBlock(10, activation=name)(torch.randn(2, 3, 10)).isfinite().all()


def test_learnable_slopes_apply_to_the_definition_of_a_shaped_relu() -> None:
    block = nn.ShapedBlock(16, activation=st.ShapedReLU(0.0, -2.0), learnable_slopes=True)
    assert dict(block.named_parameters())["mlp.branch.activation.slope_minus"].item() == 1 - 2 / 4


def test_options_with_a_definition_survive_json() -> None:
    options = nn.BlockOptions(activation=SMOOTH, **WIDTHS)
    assert nn.BlockOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.BlockOptions(activation="swish"), r"give one of shaped, relu, .*shaped-tanh.*, or an activ"),
        (lambda: nn.BlockOptions(activation=3), r"or an activation such as st\.ShapedSmooth.*\(got 3\)"),  # type: ignore[arg-type]
        (lambda: nn.ShapedBlock(30, 4), "4 heads do not divide the width 30: .* heads, or width 28 or 32, or give"),
        (lambda: nn.ShapedAttention(32, 4, key_width=0), "key_width must be a whole number of at least 1"),
        (lambda: nn.ShapedAttention(32, 4, value_width=2.5), "value_width must be a whole number"),
        (
            lambda: nn.ShapedBlock(32, value_width=5),
            "output_projection=True, leave value_width out, or use several heads",
        ),
        (lambda: nn.ShapedBlock(32, 4, key_width=3, rotary=True), "give an even key_width, or use other positions"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_way_out(call: Any, message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        call()
