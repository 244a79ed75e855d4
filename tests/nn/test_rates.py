"""Rates by parameter group: one step changes as much at every width and depth, which one rate for all does not do."""

import math
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
from coordinate_check import Language, moved
from torch import nn

import shaped_transformer as st


@pytest.mark.slow
def test_steps_change_as_much_at_every_width_and_depth() -> None:
    """The largest change over the smallest: within 2 by the rule, beyond 2.5 with one rate for all."""
    for sizes in ([(32, 8), (64, 8), (256, 8)], [(32, 4), (32, 16), (32, 64)]):
        by_rule = [moved(*size, grouped=True) for size in sizes]
        one_rate = [moved(*size, grouped=False) for size in sizes]
        assert max(by_rule) < 2 * min(by_rule), by_rule
        assert max(one_rate) > 2.5 * min(one_rate), one_rate


def rates(model: nn.Module, lr: float = 2e-3, **options: Any) -> dict[str, float]:
    """Rate of each parameter by name."""
    groups = st.nn.parameter_groups(model, lr, **options)
    of = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(of) == sum(len(g["params"]) for g in groups)
    return {name: of[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize(("depth", "bounded"), [(16, 4), (100, 2.56)])
def test_every_parameter_has_the_rate_of_the_rule(depth: int, bounded: float) -> None:
    n, lr = 128, 1e-3
    found = rates(Language(n, depth), lr)
    share = 64 * 0.2 / (depth * 0.5 / math.sqrt(depth))
    assert min(share, 4) == pytest.approx(bounded)
    assert found["embeddings.weight"] == pytest.approx(40 * lr)
    assert found["head.weight"] == pytest.approx(4 * lr * 64 / n)
    assert found["norm.weight"] == pytest.approx(4 * lr)
    for name in ("attention.branch.value", "attention.branch.output", "mlp.branch.input", "mlp.branch.output"):
        assert found[f"body.blocks.3.{name}.weight"] == pytest.approx(0.1 * lr * (64 / n) * share)
    for name in ("query", "key"):
        rate = 0.125 * math.sqrt(n) * lr * (64 / n) * bounded
        assert found[f"body.blocks.3.attention.branch.{name}.weight"] == pytest.approx(rate)
    for name in ("attention.branch.shaping.identity_gain", "mlp.branch.activation.slope_minus"):
        assert found[f"body.blocks.3.{name}"] == pytest.approx(4 * lr * bounded)


def test_positions_and_norms() -> None:
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


def test_decay_that_is_not_given_is_the_optimisers() -> None:
    groups = st.nn.parameter_groups(Language(32, 2), 1e-3)
    assert {g["name"]: g.get("weight_decay") for g in groups} == {
        "hidden": None,
        "queries and keys": None,
        "gains": 0.0,
        "embeddings": None,
        "head": None,
        "other": 0.0,
    }
    optimiser = torch.optim.AdamW(groups, weight_decay=0.1)
    assert {g["name"]: g["weight_decay"] for g in optimiser.param_groups}["hidden"] == 0.1
    assert {g["name"]: g["weight_decay"] for g in optimiser.param_groups}["gains"] == 0.0


def test_tied_and_frozen_parameters_come_once_or_never() -> None:
    model = Language(32, 2)
    model.head.weight = model.embeddings.weight
    model.norm.weight.requires_grad = False
    parameters = [p for g in st.nn.parameter_groups(model, 1e-3) for p in g["params"]]
    assert len({id(p) for p in parameters}) == len(parameters)
    assert not any(p is model.norm.weight for p in parameters)


def test_models_without_shaped_blocks_are_refused() -> None:
    with pytest.raises(st.InputError, match="Linear has no ShapedBlock"):
        st.nn.parameter_groups(nn.Linear(2, 2), 1e-3)
    with pytest.raises(st.InputError, match="lr must be a positive number"):
        st.nn.parameter_groups(Language(32, 1), 0)
    with pytest.raises(st.InputError, match=r"must be an nn\.Module \(got generator\): give the model itself"):
        st.nn.parameter_groups(cast(Any, Language(32, 1).parameters()), 1e-3)
