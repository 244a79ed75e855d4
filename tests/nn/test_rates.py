"""Rates by parameter group: one step changes the output equally at all widths and depths; with one rate it does not."""

import math
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
from coordinate_check import Language, moved
from torch import nn

import shaped_transformer as st

SIZES = {"widths": [(32, 8), (64, 8), (256, 8)], "depths": [(32, 4), (32, 16), (32, 64)]}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_steps_by_the_rule_change_the_output_equally(sizes: list[tuple[int, int]]) -> None:
    changes = [moved(*size, grouped=True) for size in sizes]
    assert max(changes) < 2 * min(changes), changes


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_steps_with_one_rate_for_all_change_the_output_unequally(sizes: list[tuple[int, int]]) -> None:
    """The companion."""
    changes = [moved(*size, grouped=False) for size in sizes]
    assert max(changes) > 2.5 * min(changes), changes


def rates(model: nn.Module, lr: float = 2e-3, **options: Any) -> dict[str, float]:
    """Return the rate of each parameter by its name."""
    groups = st.nn.parameter_groups(model, lr, **options)
    of = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(of) == sum(len(g["params"]) for g in groups)
    return {name: of[id(p)] for name, p in model.named_parameters()}


WIDTH = 128
DEPTHS = pytest.mark.parametrize(("depth", "bounded"), [(16, 4), (100, 2.56)])
"""Depths at which the bound of a branch's share, 4, is reached and is not."""


def share_of(depth: int) -> float:
    """Return the share of a branch of `Language`, whose γ is 0.5/√d."""
    return 64 * 0.2 / (depth * 0.5 / math.sqrt(depth))


@DEPTHS
def test_the_share_of_a_branch_is_bounded(depth: int, bounded: float) -> None:
    assert min(share_of(depth), 4) == pytest.approx(bounded)


@pytest.mark.parametrize("depth", [16, 100])
def test_rates_outside_the_blocks(depth: int) -> None:
    found = rates(Language(WIDTH, depth), 1e-3)
    assert found["embeddings.weight"] == pytest.approx(40e-3)
    assert found["head.weight"] == pytest.approx(4e-3 * 64 / WIDTH)
    assert found["norm.weight"] == pytest.approx(4e-3)


@pytest.mark.parametrize("depth", [16, 100])
@pytest.mark.parametrize(
    "name", ["attention.branch.value", "attention.branch.output", "mlp.branch.input", "mlp.branch.output"]
)
def test_rates_of_hidden_weights(name: str, depth: int) -> None:
    found = rates(Language(WIDTH, depth), 1e-3)
    assert found[f"body.blocks.3.{name}.weight"] == pytest.approx(0.1e-3 * (64 / WIDTH) * share_of(depth))


@DEPTHS
@pytest.mark.parametrize("name", ["query", "key"])
def test_rates_of_queries_and_keys(name: str, depth: int, bounded: float) -> None:
    found = rates(Language(WIDTH, depth), 1e-3)
    rate = 0.125 * math.sqrt(WIDTH) * 1e-3 * (64 / WIDTH) * bounded
    assert found[f"body.blocks.3.attention.branch.{name}.weight"] == pytest.approx(rate)


@DEPTHS
@pytest.mark.parametrize("name", ["attention.branch.shaping.identity_gain", "mlp.branch.activation.slope_minus"])
def test_rates_of_gains_and_slopes(name: str, depth: int, bounded: float) -> None:
    found = rates(Language(WIDTH, depth), 1e-3)
    assert found[f"body.blocks.3.{name}"] == pytest.approx(4e-3 * bounded)


def test_rates_of_positions_and_norms() -> None:
    model = st.nn.ShapedTransformer(32, 1, gamma=0.1, max_positions=8, norm="pre")
    found = rates(model, 1e-3)
    assert found["positions.weight"] == found["blocks.0.mlp.norm.weight"] == pytest.approx(4e-3)


def test_only_matrices_decay() -> None:
    model = Language(32, 2)
    groups = st.nn.parameter_groups(model, 1e-3, weight_decay=0.1)
    decays = {g["name"]: g["weight_decay"] for g in groups}
    assert decays == {
        "hidden": 0.1,
        "queries and keys": 0.1,
        "gains": 0.0,
        "embeddings": 0.1,
        "head": 0.1,
        "other": 0.0,
    }


def test_groups_without_a_given_decay_name_only_those_that_never_decay() -> None:
    groups = st.nn.parameter_groups(Language(32, 2), 1e-3)
    assert {g["name"]: g.get("weight_decay") for g in groups} == {
        "hidden": None,
        "queries and keys": None,
        "gains": 0.0,
        "embeddings": None,
        "head": None,
        "other": 0.0,
    }


def test_a_decay_that_is_not_given_is_the_optimisers() -> None:
    optimiser = torch.optim.AdamW(st.nn.parameter_groups(Language(32, 2), 1e-3), weight_decay=0.1)
    decays = {g["name"]: g["weight_decay"] for g in optimiser.param_groups}
    assert decays["hidden"] == 0.1
    assert decays["gains"] == 0.0


def test_tied_parameters_are_in_one_group_once() -> None:
    model = Language(32, 2)
    model.head.weight = model.embeddings.weight
    parameters = [p for g in st.nn.parameter_groups(model, 1e-3) for p in g["params"]]
    assert len({id(p) for p in parameters}) == len(parameters)


def test_frozen_parameters_are_in_no_group() -> None:
    model = Language(32, 2)
    model.norm.weight.requires_grad = False
    parameters = [p for g in st.nn.parameter_groups(model, 1e-3) for p in g["params"]]
    assert not any(p is model.norm.weight for p in parameters)


def test_models_without_shaped_blocks_are_refused() -> None:
    with pytest.raises(st.InputError, match="Linear has no ShapedBlock"):
        st.nn.parameter_groups(nn.Linear(2, 2), 1e-3)


def test_rates_that_are_not_positive_are_refused() -> None:
    with pytest.raises(st.InputError, match="lr must be a positive number"):
        st.nn.parameter_groups(Language(32, 1), 0)


def test_parameters_in_place_of_a_model_are_refused() -> None:
    with pytest.raises(st.InputError, match=r"must be an nn\.Module \(got generator\): give the model itself"):
        st.nn.parameter_groups(cast(Any, Language(32, 1).parameters()), 1e-3)
