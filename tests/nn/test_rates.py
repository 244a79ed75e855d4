"""Rates by parameter group: one step changes as much at every width and depth, which one rate for all does not do."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from coordinate_check import Language, moved  # noqa: E402
from torch import nn  # noqa: E402

import shaped_transformer as st  # noqa: E402


@pytest.mark.slow
def test_steps_change_as_much_at_every_width_and_depth() -> None:
    """The largest change over the smallest: within 2 by the rule, beyond 4 with one rate for all."""
    for sizes in ([(32, 8), (64, 8), (256, 8)], [(32, 4), (32, 16), (32, 64)]):
        by_rule = [moved(*size, grouped=True) for size in sizes]
        one_rate = [moved(*size, grouped=False) for size in sizes]
        assert max(by_rule) < 2 * min(by_rule), by_rule
        assert max(one_rate) > 4 * min(one_rate), one_rate


def rates(model: nn.Module, lr: float = 2e-3, **options: Any) -> dict[str, float]:
    """Rate of each parameter by name."""
    groups = st.nn.parameter_groups(model, lr, **options)
    of = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(of) == sum(len(g["params"]) for g in groups)
    return {name: of[id(p)] for name, p in model.named_parameters()}


def test_every_parameter_has_the_rate_of_the_rule() -> None:
    n, d = 128, 16
    gamma, lr = 1.6 / math.sqrt(d), 1e-3
    found = rates(Language(n, d), lr)
    shrink = 64 * 0.2 / (d * gamma)
    hidden = 0.1 * lr * (64 / n) * shrink
    assert found["embeddings.weight"] == pytest.approx(40 * lr)
    assert found["head.weight"] == pytest.approx(4 * lr * 64 / n)
    assert found["norm.weight"] == pytest.approx(4 * lr)
    for name in ("attention.branch.value", "attention.branch.output", "mlp.branch.input", "mlp.branch.output"):
        assert found[f"body.blocks.3.{name}.weight"] == pytest.approx(hidden)
    for name in ("query", "key"):
        assert found[f"body.blocks.3.attention.branch.{name}.weight"] == pytest.approx(hidden * 1.25 * math.sqrt(n))
    for name in ("attention.branch.shaping.identity_gain", "mlp.branch.activation.slope_minus"):
        assert found[f"body.blocks.3.{name}"] == pytest.approx(4 * lr * shrink)


def test_positions_norms_and_gains_of_shallow_networks() -> None:
    model = st.nn.ShapedTransformer(32, 1, gamma=0.1, max_positions=8, norm="pre", shaping="learn")
    found = rates(model, 1e-3)
    assert found["positions.weight"] == found["blocks.0.mlp.norm.weight"] == pytest.approx(4e-3)
    assert found["blocks.0.attention.branch.shaping.identity_gain"] == pytest.approx(40e-3)


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
    with pytest.raises(st.InputError, match="lr must be positive"):
        st.nn.parameter_groups(Language(32, 1), 0)
