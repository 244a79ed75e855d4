"""The options of the presets: the definitions that they build, and what they refuse."""

import inspect
import json
from typing import Any

import pytest
from assertions import assert_not_the_law, assert_same_law

import shaped_transformer as st
from shaped_transformer.design.heads import heads_problem
from shaped_transformer.design.named import NAMED, named_activation

ATTENTION = ("shaped_transformer", "shaped_attention_only")
SOFTMAX = ("pre_norm_transformer", "post_norm_transformer", "skipless_transformer")


def branches(arch: st.Architecture) -> list[Any]:
    return [getattr(layer, "branch", None) for layer in arch.block]


@pytest.mark.parametrize("preset", [*ATTENTION, *SOFTMAX])
def test_the_widths_of_a_head_are_those_of_its_attention(preset: str) -> None:
    arch = st.PRESETS[preset](10, 2, heads=4, key_width=3, value_width=5)
    attention = branches(arch)[0]
    assert (attention.key_width, attention.value_width) == (3, 5)


@pytest.mark.parametrize("preset", ["shaped_transformer", *SOFTMAX])
def test_the_hidden_width_is_that_of_the_mlp(preset: str) -> None:
    assert branches(st.PRESETS[preset](10, 2, hidden_width=40))[1].hidden_width == 40


@pytest.mark.parametrize("preset", ["shaped_transformer", *SOFTMAX])
@pytest.mark.parametrize("activation", [st.Activation("gelu"), st.ShapedSmooth("tanh", a=0.5)])
def test_the_activation_is_that_of_the_mlp(preset: str, activation: Any) -> None:
    assert branches(st.PRESETS[preset](10, 2, activation=activation))[1].activation == activation


@pytest.mark.parametrize("preset", ATTENTION)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_norm_is_that_of_every_residual_layer(preset: str, norm: str) -> None:
    arch = st.PRESETS[preset](10, 2, norm=norm, normaliser="layer")
    assert {(layer.norm, layer.normaliser) for layer in arch.block if isinstance(layer, st.Residual)} == {
        (norm, "layer")
    }


@pytest.mark.parametrize("slopes", [{"c_plus": 0.0}, {"c_minus": -1.0}, {"c_plus": 0.5, "c_minus": 0.1}])
def test_slopes_beside_an_activation_are_refused(slopes: dict[str, Any]) -> None:
    with pytest.raises(st.DefinitionError, match=rf"give either an activation or {' and '.join(slopes)}, not both"):
        st.shaped_transformer(10, 2, activation=st.Activation("gelu"), **slopes)


def test_a_slope_that_is_left_out_has_its_default() -> None:
    assert branches(st.shaped_transformer(10, 2, c_plus=0.5))[1].activation == st.ShapedReLU(0.5, -1.0)


def test_options_survive_json() -> None:
    arch = st.shaped_transformer(
        10, 2, heads=4, key_width=3, value_width=5, hidden_width=7, activation=st.ShapedSmooth("sin", 1.0), norm="pre"
    )
    assert st.Architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch


@pytest.mark.parametrize("activation", ["gelu", 3])
def test_an_activation_of_another_type_is_refused_with_an_example(activation: Any) -> None:
    with pytest.raises(st.DefinitionError, match=r"an activation is expected, such as st.Activation\('gelu'\) \(got"):
        st.shaped_transformer(10, 2, activation=activation)


@pytest.mark.parametrize(
    ("heads", "width", "message"),
    [
        (8, 500, "use one of 1, 2, 4, 5, 10, 20, 25 or 50 heads, or width 496 or 504, or give key_width"),
        (8, 4, "use one of 1, 2 or 4 heads, or width 8, or give"),
        (3, 67, "use 1 head, or width 66 or 69, or give"),
    ],
)
def test_heads_that_do_not_divide_the_width_are_refused_with_numbers_that_fit(
    heads: int, width: int, message: str
) -> None:
    with pytest.raises(st.DefinitionError, match=f"{heads} heads do not divide the width {width}: {message}"):
        st.shaped_transformer(width, 2, heads=heads)


@pytest.mark.parametrize(("heads", "width"), [(8, 500), (3, 16), (7, 7 * 30 - 1)])
def test_the_suggested_widths_are_the_nearest_that_the_heads_divide(heads: int, width: int) -> None:
    fitting = [n for n in range(1, width + heads + 1) if n % heads == 0]
    below, above = max(n for n in fitting if n < width), min(n for n in fitting if n > width)
    assert f"width {below} or {above}," in str(heads_problem(heads, width, None, None))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_activation_builds_a_network(name: str) -> None:
    assert st.chain.sample(st.shaped_transformer(8, 2, activation=named_activation(name)), [[1.0]], 2, 0).samples == 2


def test_the_default_activation_has_a_name() -> None:
    assert named_activation("shaped-relu") == branches(st.shaped_transformer(8, 2))[1].activation


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(st.DefinitionError, match=r"unknown activation 'swish': choose one of relu, .*shaped-tanh"):
        named_activation("swish")


@pytest.mark.parametrize("preset", st.PRESETS)
def test_defaults_build_the_network_of_the_bare_preset(preset: str) -> None:
    parameters = inspect.signature(st.PRESETS[preset]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert st.PRESETS[preset](8, 2, **defaults) == st.PRESETS[preset](8, 2)


def test_chain_and_network_with_all_options_have_one_distribution() -> None:
    sizes: dict[str, Any] = {"heads": 2, "key_width": 3, "value_width": 5, "hidden_width": 7, "norm": "pre"}
    arch = st.shaped_transformer(16, 3, gamma=0.6, activation=st.Activation("gelu"), **sizes)
    other = st.shaped_transformer(16, 3, gamma=0.6, activation=st.Activation("gelu"), **(sizes | {"hidden_width": 4}))
    v0 = st.inputs.equicorrelated(3, 0.2)
    network = st.network.sample(arch, v0, samples=4000, seed=0, record=1)
    assert_same_law(network, st.chain.sample(arch, v0, samples=4000, seed=1, record=1))
    assert_not_the_law(network, st.chain.sample(other, v0, samples=4000, seed=1, record=1))
