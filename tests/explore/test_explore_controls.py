"""Controls come from the definitions: their ranges, choices and messages are those of the schemas."""

import pytest

pytest.importorskip("dash")

import shaped_transformer as st
from shaped_transformer.design.masks import NAMES
from shaped_transformer.explore.controls import START, controls, preset_names, value_of


def test_choices_are_those_of_the_definitions() -> None:
    made = controls()
    assert made["mask"].choices == NAMES
    assert made["norm"].choices == ("none", "pre", "post")
    assert made["preset"].choices == tuple(st.PRESETS)
    assert {"", "relu", "shaped-tanh"} <= set(made["activation"].choices)


def test_ranges_stay_within_the_schema() -> None:
    for control in controls().values():
        if control.range is not None:
            low, high = control.range
            assert low < high
            assert low >= control.schema.get("minimum", low)
            assert low > control.schema.get("exclusiveMinimum", low - 1)
    assert controls()["width"].whole
    assert not controls()["gamma"].whole


def test_every_control_has_a_meaning_and_a_first_value_that_is_allowed() -> None:
    for name, control in controls().items():
        assert control.help
        value_of(name, START[name])


def test_a_preset_has_the_controls_of_its_parameters() -> None:
    assert preset_names("deep_linear") == ("width", "depth")
    assert "tau0" in preset_names("shaped_attention_only")
    assert "gamma" not in preset_names("pre_norm_transformer")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("width", "1e3", 1000), ("gamma", " 0.5 ", 0.5), ("gamma", "", None), ("mask", "causal", "causal")],
)
def test_texts_stand_for_values(name: str, text: str, value: object) -> None:
    assert value_of(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gamma", "abc", r"a number is expected \(got 'abc'\)"),
        ("gamma", "inf", "finite"),
        ("gamma", "nan", "finite"),
        ("width", "0", "greater than or equal to 1"),
        ("width", "12.5", "integer"),
        ("width", "9" * 500, "got 9"),
        ("tau0", "-1", "greater than 0"),
        ("tokens", "", "a number is expected"),
        ("mask", "diagonal", "must be one of full, causal"),
    ],
)
def test_wrong_texts_are_answered_by_the_definition(name: str, text: str, message: str) -> None:
    with pytest.raises(st.InputError, match=message) as error:
        value_of(name, text)
    assert len(str(error.value)) < 200
