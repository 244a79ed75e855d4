"""Definitions: JSON round trip, presets, and errors that name the way out."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import shaped_transformer as st
from shaped_transformer.design.definition import Definition, definition
from shaped_transformer.design.masks import allowed, uniform

positive = some.floats(0.01, 10)
activations = some.one_of(
    some.builds(st.ShapedReLU, some.floats(-3, 3), some.floats(-3, 3)),
    some.builds(st.ShapedSmooth, some.sampled_from(["tanh", "erf", "arctan", "sin", "softsign"]), positive),
    some.builds(st.Activation, some.sampled_from(["relu", "gelu", "silu", "tanh", "identity"])),
)
masks = some.one_of(some.sampled_from(["full", "causal"]), some.just(np.tri(4, dtype=int)))
widths = some.one_of(some.none(), some.integers(1, 8))
attentions = some.builds(
    st.ShapedAttention,
    tau0=positive,
    heads=some.just(2),
    key_width=widths,
    value_width=widths,
    mask=masks,
    identity_gain=some.one_of(some.floats(-2, 2), some.tuples(some.floats(-2, 2), some.floats(-2, 2))),
    logit_gain=some.floats(-3, 3),
)
softmaxes = some.builds(st.SoftmaxAttention, heads=some.sampled_from([1, 2, 4]), mask=masks)
mlps = some.builds(st.MLP, activations, widths, positive, some.booleans())
residuals = some.builds(
    st.Residual,
    some.one_of(attentions, softmaxes, mlps),
    some.floats(0.01, 1),
    some.one_of(some.none(), some.floats(0, 2)),
    some.sampled_from(["none", "pre", "post"]),
    some.sampled_from(["rms", "layer"]),
)
blocks = some.lists(some.one_of(residuals, some.builds(st.Dense, activations)), min_size=1, max_size=3)


@given(blocks)
def test_every_definition_survives_json_and_is_hashable(block: list[Any]) -> None:
    arch = st.Architecture(8, 3, tuple(block))
    again = st.Architecture.from_dict(json.loads(json.dumps(arch.to_dict())))
    assert again == arch
    assert hash(again) == hash(arch)


def test_a_preset_equals_the_definition_written_out() -> None:
    written = st.Architecture(
        width=200,
        depth=100,
        block=(
            st.Residual(st.ShapedAttention(tau0=1.0), scale=0.5),
            st.Residual(st.MLP(st.ShapedReLU(c_plus=0.0, c_minus=-1.0)), scale=0.5),
        ),
    )
    assert written == st.shaped_transformer(width=200, depth=100, gamma=0.5, tau0=1.0, c_plus=0.0, c_minus=-1.0)


def test_time_of_the_limit_is_depth_over_width() -> None:
    assert st.deep_linear(width=200, depth=100).time == 0.5


@pytest.mark.parametrize("name", st.PRESETS)
def test_every_preset_runs_in_both_finite_views(name: str) -> None:
    arch = st.PRESETS[name](6, 2)
    v0 = st.inputs.equicorrelated(3, 0.2)
    for view in (st.network, st.chain):
        assert view.sample(arch, v0, 2, seed=0).covariance.shape == (2, 3, 3, 3)


def definition_mistakes() -> list[tuple[str, Any]]:
    attention, narrow, mlp = st.ShapedAttention(), st.ShapedAttention(value_width=4), st.MLP(st.Activation("relu"))
    return [
        (r"scale \(gamma\) must lie in \(0, 1\], got 1.2", lambda: st.Residual(attention, 1.2)),
        (r"scale \(gamma\) must lie in \(0, 1\], got 0", lambda: st.Residual(attention, 0.0)),
        ("scale", lambda: st.Residual(attention, float("nan"))),
        ("tau0: .*greater than 0", lambda: st.ShapedAttention(tau0=-1)),
        ("tau0: .*finite", lambda: st.ShapedAttention(tau0=float("inf"))),
        ("3 heads do not divide the width 8: use one of", lambda: st.shaped_transformer(8, 2, heads=3)),
        ("8 heads do not divide the width 4", lambda: st.shaped_transformer(4, 2, heads=8)),
        ("heads need an output projection", lambda: st.ShapedAttention(heads=2, output_projection=False)),
        (
            "value_width must be the width 8",
            lambda: st.Architecture(8, 1, (st.Residual(narrow, 1),)),
        ),
        ("row 1 of the mask allows no token", lambda: st.ShapedAttention(mask=[[1, 0], [0, 0]])),
        ("mask must be 'full', 'causal' or a square array", lambda: st.ShapedAttention(mask=[[1, 0]])),
        ("mask must be", lambda: st.ShapedAttention(mask="diagonal")),
        ("mask must be", lambda: st.ShapedAttention(mask=[[2.5, 1], [1, 1]])),
        ("one number or one for each of 2 heads", lambda: st.ShapedAttention(heads=2, identity_gain=(1.0, 1.0, 1.0))),
        ("phi must be one of tanh", lambda: st.ShapedSmooth("relu", 1.0)),
        ("phi''.0. = 1 is expected", lambda: st.Smooth(np.tanh, 1.0, -2.0)),
        ("phi.0. = 0 is expected", lambda: st.Smooth(np.exp, 1.0, 1.0)),
        ("from the left", lambda: st.Smooth(lambda x: x / (1 + np.abs(x)), 0.0, 0.0)),
        ("must act elementwise", lambda: st.Smooth(lambda x: x["a"], 0.0, 0.0)),
        ("no function 'nowhere:f'", lambda: st.Smooth("nowhere:f", 0.0, 0.0)),
        ("cannot be saved", lambda: st.Smooth(lambda x: np.tanh(x), 0.0, -2.0).to_dict()),
        ("width: .*greater than or equal to 1", lambda: st.shaped_transformer(0, 2)),
        ("depth: a number is expected .got True.", lambda: st.deep_linear(3, depth=True)),
        ("gamma|scale: a number is expected", lambda: st.Residual(attention, scale="0.5")),  # type: ignore[arg-type]
        ("cannot be normalised", lambda: st.shaped_mlp(16, 2, activation=st.ShapedReLU(-4, -4))),
        ("cannot be normalised", lambda: st.shaped_mlp(16, 2, activation=st.ShapedSmooth("tanh", 1e-300))),
        ("at least one layer", lambda: st.Architecture(4, 1, ())),
        ("LayerNorm at width 1", lambda: st.Architecture(1, 1, (st.Residual(mlp, 1, 1, "pre", "layer"),))),
        ("nexpected keyword", lambda: st.ShapedAttention(temperature=1.0)),  # type: ignore[call-arg]
        ("'kind' must be one of", lambda: st.Architecture.from_dict({"kind": "Nothing"})),
        ("Dense has no field 'self': choose from activation", lambda: st.Dense.from_dict({"kind": "Dense", "self": 1})),
        ("nested too deeply", lambda: st.Dense.from_dict(nested(100_000))),
        (
            "Architecture is expected .got Activation.",
            lambda: st.Architecture.from_dict(st.Activation("relu").to_dict()),
        ),
    ]


def nested(depth: int) -> list[Any]:
    data: list[Any] = []
    for _ in range(depth):
        data = [data]
    return data


@pytest.mark.parametrize(("message", "build"), definition_mistakes())
def test_mistakes_raise_a_definition_error_of_one_line(message: str, build: Any) -> None:
    with pytest.raises(st.DefinitionError, match=message) as caught:
        build()
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def define_in_cell(module: str) -> type:
    """Return the definition `OfACell`, made in a module, as a cell of a notebook makes it each time it runs."""
    fields = {"__module__": module, "__qualname__": "OfACell", "__annotations__": {"a": int}}
    return definition(type("OfACell", (Definition,), fields))


@pytest.fixture
def _without_cell() -> Iterator[None]:
    yield
    del Definition.kinds["OfACell"]


@pytest.mark.usefixtures("_without_cell")
def test_a_definition_may_be_made_again() -> None:
    define_in_cell("__main__")
    again = define_in_cell("__main__")
    assert Definition.from_dict({"kind": "OfACell", "a": 3}) == again(a=3)


@pytest.mark.usefixtures("_without_cell")
def test_a_name_that_another_module_uses_is_refused() -> None:
    define_in_cell("__main__")
    with pytest.raises(st.DefinitionError, match=r"the name OfACell is taken by a definition in __main__.*another"):
        define_in_cell("elsewhere")


def test_a_name_of_the_library_is_refused_and_keeps_its_meaning() -> None:
    with pytest.raises(st.DefinitionError, match="the name Residual is taken by a definition in"):

        @definition
        class Residual(Definition):
            a: int

    assert Definition.kinds["Residual"] is st.Residual


def test_definitions_are_frozen() -> None:
    with pytest.raises(AttributeError):
        st.ShapedAttention().tau0 = 2.0  # type: ignore[misc]


def test_a_causal_mask_allows_earlier_tokens() -> None:
    np.testing.assert_array_equal(allowed("causal", 3), np.tri(3, dtype=bool))


def test_uniform_weights_are_equal_over_the_allowed_tokens() -> None:
    np.testing.assert_allclose(uniform("causal", 3)[2], [1 / 3] * 3)
    np.testing.assert_allclose(uniform("full", 4), 0.25)


def test_a_mask_for_another_number_of_tokens_is_refused() -> None:
    with pytest.raises(st.InputError, match="the mask is for 2 tokens, but the input has 3: give a mask for 3"):
        st.chain.sample(
            st.Architecture(4, 1, (st.Residual(st.ShapedAttention(mask=np.eye(2)), 0.5),)), np.eye(3), 2, seed=0
        )


@pytest.mark.parametrize("activation", [st.ShapedReLU(0.3, -1.0), st.ShapedSmooth("erf", 0.7), st.Activation("gelu")])
def test_second_moment_is_that_under_a_gaussian(activation: Any) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    values = activation.value(1.3 * nodes, 9) ** 2
    np.testing.assert_allclose(activation.second_moment(9, 1.3), weights @ values / np.sqrt(2 * np.pi), rtol=1e-4)


WITHOUT_LIMIT = [
    ("mixes the tokens by order 1", st.skipless_transformer(8, 4)),
    ("normalisation acts at order 1", st.Architecture(8, 4, (st.Residual(st.ShapedAttention(), 0.5, norm="pre"),))),
    ("is not shaped", st.shaped_mlp(8, 4, activation=st.Activation("relu"))),
    (r"skip² \+ scale² = 2", st.Architecture(8, 4, (st.Residual(st.ShapedAttention(), 1.0, skip=1.0),))),
    ("uniform_gain = 0.5", st.Architecture(8, 4, (st.Residual(st.ShapedAttention(uniform_gain=0.5), 0.5),))),
    ("normalise=True", st.Architecture(8, 4, (st.Residual(st.MLP(st.ShapedReLU(0, -1), normalise=False), 0.5),))),
    ("second derivative", st.shaped_mlp(8, 4, activation=st.ShapedSmooth("softsign", 1.0))),
]


@pytest.mark.parametrize(("reason", "arch"), WITHOUT_LIMIT)
def test_an_architecture_without_limit_is_refused_with_the_reason(reason: str, arch: st.Architecture) -> None:
    v0 = np.eye(3)
    for call in (
        lambda: st.sde.sample(arch, v0, 4, seed=0),
        lambda: st.sde.drift(arch, v0),
        lambda: st.sde.diffusion(arch, v0),
    ):
        with pytest.raises(st.NoProportionalLimit, match=reason):
            call()


@pytest.mark.parametrize("arch", [arch for _, arch in WITHOUT_LIMIT])
def test_an_architecture_without_limit_has_a_chain(arch: st.Architecture) -> None:
    assert st.chain.sample(arch, np.eye(3), 4, seed=0).samples == 4


def test_a_subclass_that_is_not_a_definition_is_not_saved_as_its_base_class() -> None:
    class MLP(st.MLP):
        pass

    arch = st.Architecture(8, 2, (st.Residual(MLP(st.ShapedReLU(0.0, -1.0)), 0.5),))
    with pytest.raises(st.DefinitionError, match=r"the class MLP of .* decorate it with @definition, under a name"):
        arch.to_dict()
