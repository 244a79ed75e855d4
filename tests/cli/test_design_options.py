"""The options of commands that define a network: what they build, what they refuse, and their help."""

import json
import re
from collections.abc import Set
from typing import Any

import pytest

import shaped_transformer as st
from shaped_transformer.cli.options import Design
from shaped_transformer.design.named import NAMED

SMALL: dict[str, Any] = {"width": 10, "depth": 2}


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"heads": 4, "key_width": 3, "value_width": 5}, {"heads": 4, "key_width": 3, "value_width": 5}),
        ({"hidden_width": 7}, {"hidden_width": 7}),
        ({"norm": "post"}, {"norm": "post"}),
        ({"activation": "gelu"}, {"activation": st.Activation("gelu")}),
        ({"activation": "shaped-tanh"}, {"activation": st.ShapedSmooth("tanh", a=1.0)}),
        ({"activation": "shaped-relu"}, {}),
        ({"activation": "shaped-relu", "c_minus": -0.5}, {"c_minus": -0.5}),
    ],
    ids=str,
)
def test_an_option_is_the_argument_of_the_preset(options: dict[str, Any], arguments: dict[str, Any]) -> None:
    assert Design(**SMALL, **options).build() == st.shaped_transformer(**SMALL, **arguments)


VALUES: dict[str, Any] = {
    "heads": 2,
    "key_width": 3,
    "value_width": 5,
    "hidden_width": 7,
    "activation": "gelu",
    "norm": "pre",
    "gamma": 0.3,
}
"""An allowed value of each option."""
TAKEN: dict[str, Set[str]] = {
    "shaped_transformer": VALUES.keys(),
    "shaped_attention_only": VALUES.keys() - {"hidden_width", "activation"},
    "pre_norm_transformer": VALUES.keys() - {"norm", "gamma"},
    "post_norm_transformer": VALUES.keys() - {"norm", "gamma"},
    "skipless_transformer": VALUES.keys() - {"norm", "gamma"},
    "shaped_mlp": {"activation"},
    "deep_linear": set(),
}
"""The options among these that each preset takes."""


@pytest.mark.parametrize("preset", st.PRESETS)
def test_a_preset_takes_its_options(preset: str) -> None:
    given = {name: VALUES[name] for name in TAKEN[preset]}
    assert Design(preset, **SMALL, **given).build().width == SMALL["width"]


@pytest.mark.parametrize(
    ("preset", "name"), [(preset, name) for preset in st.PRESETS for name in sorted(VALUES.keys() - TAKEN[preset])]
)
def test_an_option_that_a_preset_does_not_take_is_refused(preset: str, name: str) -> None:
    option = "--" + name.replace("_", "-")
    with pytest.raises(st.InputError, match=f"preset {preset} takes no {option}: it takes --width"):
        Design(preset, **SMALL, **{name: VALUES[name]}).build()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("unknown activation 'swish': choose one of relu, gelu", ["--activation", "swish"]),
        ("give either an activation or c_plus, not both", ["--activation", "gelu", "--c-plus", "0.3"]),
        ("norm: input should be 'none', 'pre' or 'post' (got 'before')", ["--norm", "before"]),
        ("key_width: input should be greater than or equal to 1", ["--key-width", "0"]),
        ("leave value_width out, use several heads, or give", ["--value-width", "5"]),
        ("3 heads do not divide the width 16: use one of 1, 2, 4, 8 or 16 heads, or width 15 or 18", ["--heads", "3"]),
    ],
)
@pytest.mark.parametrize("command", ["compare", "predict"])
def test_values_that_do_not_fit_are_one_line_with_status_2(
    run: Any, command: str, message: str, options: list[str]
) -> None:
    code, _, err = run(command, "--width", "16", "--depth", "4", *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_predict_draws_the_network_of_the_options(run: Any) -> None:
    options = ["--heads", "4", "--key-width", "3", "--value-width", "5", "--hidden-width", "7", "--activation", "gelu"]
    size = ["--width", "10", "--depth", "2", "--samples", "50"]
    code, out, err = run("predict", *size, "--norm", "pre", *options, "--json")
    assert code == 0, err
    assert st.Architecture.from_dict(json.loads(out)["architecture"]) == st.shaped_transformer(
        10, 2, heads=4, key_width=3, value_width=5, hidden_width=7, activation=st.Activation("gelu"), norm="pre"
    )


@pytest.mark.parametrize("command", ["compare", "predict"])
def test_the_help_lists_every_activation(run: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run(command, "--help")
    assert {name for name in NAMED if re.search(rf"\b{name}\b", out)} == set(NAMED)
