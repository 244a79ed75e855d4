"""The coordinate check: slopes of known numbers, what is multiplied by what, and flat or fanning models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
xr = pytest.importorskip("xarray")

import shaped_transformer as st
from shaped_transformer.rehearse.coordinates import dataset, points, quantities
from shaped_transformer.rehearse.parametrisations import builder, shaped
from shaped_transformer.rehearse.slopes import fit

CONFIG = transformers.LlamaConfig(
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=2,
    intermediate_size=64,
    vocab_size=32,
)
IDS = torch.arange(8)[None]
BATCH = {"input_ids": IDS, "labels": IDS}


def test_a_power_of_the_size_is_its_slope() -> None:
    factors = np.array([0.5, 1, 4])
    slope = fit(factors, [np.array([3.0, 3.0]) * f**0.7 for f in factors])
    assert slope.value == pytest.approx(0.7)
    assert slope.low == pytest.approx(0.7)
    assert slope.word == "fanning"


def test_the_interval_holds_the_slope_as_often_as_it_says() -> None:
    """500 times: draws scatter by a factor, more of them at small sizes."""
    rng, factors, hits = np.random.default_rng(0), np.array([1.0, 2, 4, 8]), 0
    for _ in range(500):
        found = fit(
            factors, [f**0.3 * np.exp(0.4 * rng.standard_normal(n)) for f, n in zip(factors, (4, 4, 3, 1), strict=True)]
        )
        hits += found.low <= 0.3 <= found.high
    assert abs(hits / 500 - 0.95) < 4 * (0.95 * 0.05 / 500) ** 0.5


def test_one_draw_of_each_size_has_no_interval() -> None:
    slope = fit([1, 2], [[1.0], [2.0]])
    assert (slope.value, slope.low, slope.high) == (1.0, -np.inf, np.inf)
    assert slope.word == "unclear"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.2, 0.6, "fanning"), (-0.6, -0.2, "falling"), (-0.2, 0.2, "flat"), (0.05, 0.3, "unclear"), (-1, 1, "unclear")],
)
def test_the_interval_decides_what_a_slope_means(low: float, high: float, word: str) -> None:
    assert st.rehearse.Slope((low + high) / 2, low, high).word == word


@pytest.mark.parametrize(
    ("factors", "values", "message"),
    [
        ([1.0], [[1.0]], "two different sizes"),
        ([1.0, 1.0], [[1.0], [1.0]], "two different sizes"),
        ([1.0, 2.0], [[1.0], [0.0]], "positive numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_has_no_slope_is_refused(factors: Any, values: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        fit(factors, values)


def test_constructed_sizes_fan_fall_or_stay() -> None:
    sizes = points((1, 2, 4), (1, 2))
    rng = np.random.default_rng(0)
    values = [
        {
            "stream": 0.1 * np.exp(0.01 * rng.standard_normal((3, 2))),
            "update of key": width**0.5 * np.exp(0.01 * rng.standard_normal((3, 2))),
            "outputs": depth**-1.0 * np.exp(0.01 * rng.standard_normal((3, 2))),
            "here alone": np.ones((3, 2)),
        }
        for _, (width, depth) in sizes
    ]
    del values[1]["here alone"]
    check = st.rehearse.CoordinateCheck(dataset(sizes, values), {})
    frame = check.to_frame().set_index(["axis", "quantity", "step"])["verdict"]
    assert len(frame) == 2 * 3 * 2
    assert frame["width", "update of key", 2] == "fanning"
    assert frame["depth", "update of key", 2] == frame["width", "stream", 1] == "flat"
    assert frame["depth", "outputs", 1] == "falling"
    first, second = check.sentence.split(". ")
    assert first.startswith("Fanning over width × 1 to 4 at step 2: update of key most of all, 1.4")
    assert "for each doubling (slope 0.5" in first or "for each doubling (slope 0.49" in first
    assert second.startswith("Flat over depth × 1 to 2 at step 2; falling: outputs (-")


def test_quantities_are_those_of_the_rehearsal() -> None:
    """Queries and the head are measured in logits; all roles of a Llama are there."""
    result = st.rehearse.run(CONFIG, BATCH, lr=1e-3, steps=2, draws=2)
    found, data = quantities(result), result.data
    assert list(found) == [
        *("stream", "outputs", "attention logits"),
        *(
            f"update of {role}"
            for role in ("embedding", "query", "key", "value", "attention output", "MLP in", "MLP out", "head")
        ),
    ]
    assert {one.shape for one in found.values()} == {(2, 2)}
    query = data["effective_update"].sel(weight=[f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)])
    spread = data["attention_spread"].mean("attention").values[:, :2]
    np.testing.assert_allclose(found["update of query"], spread * np.sqrt((query.values**2).mean(-1)))
    head = data["effective_update"].sel(weight="lm_head.weight").values
    np.testing.assert_allclose(found["update of head"], head * data["output_norm"].values[:, :2])
    np.testing.assert_allclose(found["stream"], data["stream_change"].values[:, 1:, -1])


def test_the_change_of_outputs_is_that_of_the_logits() -> None:
    """With real weights, beside a training by hand."""
    result = st.rehearse.run(CONFIG, BATCH, "sgd", lr=0.5, weight_decay=0.0, steps=1, real=True, seed=1)
    seed = int(np.random.SeedSequence([1, 0]).generate_state(1)[0])
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(CONFIG).eval()
    before = model(**BATCH)
    before.loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
        change = model(**BATCH).logits - before.logits
    expected = float(change.square().mean().sqrt())
    assert quantities(result)["outputs"].item() == pytest.approx(expected, rel=1e-4)


def test_a_check_is_saved_and_loaded(tmp_path: Path) -> None:
    check = st.rehearse.coordinate_check(CONFIG, BATCH, lr=1e-3, widths=(0.5, 1), depths=(1, 2), steps=2, draws=2)
    assert check.data.sizes == {"point": 4, "draw": 2, "step": 2, "quantity": 11, "along": 2, "bound": 3}
    for _ in range(2):  # over itself too
        check.save(tmp_path / "check.zarr")
    again = st.rehearse.CoordinateCheck.load(tmp_path / "check.zarr")
    xr.testing.assert_identical(again.data, check.data)
    assert again.settings == check.settings
    assert again.sentence == check.sentence
    value = check.data["value"]
    assert np.array_equal(value.isel(point=1), value.isel(point=2))  # factor 1 of both axes is one model


def test_a_function_of_both_factors_is_checked() -> None:
    def build(width: float, depth: float) -> Any:
        return st.nn.ShapedTransformer(width=round(32 * width), depth=round(depth), heads=2)

    def batch(width: float, _depth: float) -> Any:
        return torch.randn(1, 6, round(32 * width), generator=torch.Generator().manual_seed(0))

    check = st.rehearse.coordinate_check(
        build, batch, lr=1e-3, widths=(1, 2), depths=(2, 4), parametrisation="shaped", draws=2, steps=1
    )
    assert {"stream", "update of query"} <= set(check.data["quantity"].values)
    assert check.settings["optimiser"] == "adamw"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (1,)}, r"widths must be at least two different positive factors, or empty \(got \[1\]\)"),
        ({"widths": (1, 1)}, "widths must be at least two different"),
        ({"widths": (), "depths": (0, 1)}, "depths must be at least two different positive factors"),
        ({"widths": ()}, "give factors of width or of depth"),
        ({"widths": (0.3, 1)}, "turns hidden_size 64 into 19.2"),
        ({"parametrisation": "ntp"}, "parametrisation must be 'standard'"),
        ({"groups": st.nn.parameter_groups}, "the parametrisation sets the groups"),
        ({"parametrisation": "shaped"}, "has no ShapedBlock"),
        ({"parametrisation": "mup", "optimiser": "muon"}, "the rates of 'mup' are for Adam"),
        ({"parametrisation": "mup", "optimiser": st.weightless.AdamW}, "give the optimiser by its name"),
        ({"lr": 1e30}, "width × 0.5 and depth × 1 numbers become infinite or undefined at step .*smaller rate"),
    ],
)
def test_bad_input_is_told(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"lr": 1e-3, "widths": (0.5, 1), "draws": 1}
    with pytest.raises(st.InputError, match=message):
        st.rehearse.coordinate_check(CONFIG, BATCH, **(given | changes))


def test_an_axis_that_was_not_measured_is_refused() -> None:
    values = [{"stream": np.ones((2, 1))}] * 2
    check = st.rehearse.CoordinateCheck(dataset(points((1, 2), ()), values), {})
    with pytest.raises(st.InputError, match="unknown axis 'depth': choose from width"):
        check.slope("stream", 1, "depth")
    with pytest.raises(st.InputError, match="unknown quantity 'x': choose from stream"):
        check.slope("x", 1)


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_mup_is_flat_where_the_standard_parametrisation_fans(real: bool) -> None:
    """Widths 64 to 512, with weights and without: outputs, logits of attention, and every role's update."""

    def check(kind: str) -> Any:
        return st.rehearse.coordinate_check(
            CONFIG, BATCH, lr=3e-4, widths=(1, 2, 4, 8), parametrisation=kind, draws=6, real=real
        )

    standard, mup = check("standard"), check("mup")
    for quantity in mup.data["quantity"].values:
        assert mup.slope(quantity, 1).high < 0.25, quantity
        assert mup.slope(quantity, 1).low > -0.25, quantity
    for quantity in ("outputs", "attention logits", "update of query", "update of MLP in", "update of head"):
        assert standard.slope(quantity, 1).low > 0.25, quantity
    assert "Fanning" in standard.sentence
    assert "Fanning" not in mup.sentence


def larger_head(model: Any, _base: Any, cls: Any) -> Any:
    """Return our model and rates, but with a head that starts at 1/√n as other maps do."""

    def build() -> Any:
        made: Any = builder(model, cls)()
        torch.nn.init.normal_(made.head.weight, std=made.head.in_features**-0.5)
        return made

    return replace(shaped(model), model=build)


@pytest.mark.slow
def test_our_rates_are_flat_but_for_a_head_that_does_not_shrink() -> None:
    config = st.hf.ShapedTransformerConfig(
        hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, vocab_size=32
    )
    ours, larger = (
        st.rehearse.coordinate_check(config, BATCH, lr=2e-4, widths=(1, 2, 4, 8), parametrisation=kind, draws=6)
        for kind in ("shaped", larger_head)
    )
    for quantity in ours.data["quantity"].values.tolist():
        assert ours.slope(quantity, 3).word == "flat", quantity
    assert larger.slope("outputs", 3).low > 0.1  # the stream moves along the head's rows
