"""The verdict on a rehearsal: what it finds in numbers made for it, in which layer and step, and in small models."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import xarray
from torch import nn

import shaped_transformer as st
from shaped_transformer.probe.verdict import Finding, Verdict
from shaped_transformer.rehearse import Rehearsal
from shaped_transformer.rehearse.verdict import CLIPPED, LOGITS, RISE, STEP, UNEVEN, WARM, judge, rounded, step_changes

LAYERS = ["h.input", "h.0", "h.1", "h.2"]
PARTS = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.up_proj", "mlp.down_proj")
WEIGHTS = [
    "wte.weight",
    *(f"h.{i}.{part}.weight" for i in range(3) for part in PARTS),
    "h.0.ln_1.weight",
    "head.weight",
]
SETTINGS: dict[str, Any] = {"model": "Model", "parameters": 10, "optimiser": "adamw", "lr": 1e-3, "warmup": 0} | {
    "clip": None,
    "weight_decay": 0.1,
    "groups": None,
    "ended": None,
}


def made(settings: dict[str, Any] | None = None, *, steps: int = 3, draws: int = 2, **changed: Any) -> Rehearsal:
    """A rehearsal in which nothing is wrong but what is changed; values broadcast over draws."""
    step, layers, weights = np.arange(steps + 1), len(LAYERS), len(WEIGHTS)
    effect = np.full((steps, weights), 0.02)
    effect[:, WEIGHTS.index("h.0.ln_1.weight")] = np.nan
    numbers: dict[str, tuple[tuple[str, ...], Any]] = {
        "loss": (("step",), 7 - 0.3 * step),
        "output_largest": (("step",), 1 + 0.1 * step),
        "output_change": (("step",), 0.1 * step),
        "stream_change": (("step", "layer"), 0.1 * step[:, None] * np.ones(layers)),
        "branch_change": (("step", "layer"), 0.1 * step[:, None] * np.ones(layers)),
        "token_norm": (("step", "layer"), np.ones((steps + 1, layers))),
        "attention_range": (("step", "attention"), np.ones((steps + 1, 3))),
        "gradient_total": (("update",), np.full(steps, 2.0)),
        "clipped": (("update",), np.ones(steps)),
        "rate": (("update",), np.ones(steps)),
        "weight_gradient": (("update", "weight"), np.full((steps, weights), 0.1)),
        "weight_update": (("update", "weight"), np.full((steps, weights), 0.01)),
        "effective_update": (("update", "weight"), effect),
    }
    variables = {
        name: (("draw", *dims), np.broadcast_to(changed.pop(name, values), (draws, *np.shape(values))))
        for name, (dims, values) in numbers.items()
    }
    assert not changed
    attention = [f"h.{i}.attn" for i in range(3)]
    coordinates = {"layer": LAYERS, "weight": WEIGHTS, "attention": attention, "step": step, "update": step[1:]}
    return Rehearsal(xarray.Dataset(variables, coordinates), SETTINGS | (settings or {}))


def only(result: Rehearsal) -> Finding:
    """The one thing that is found."""
    (finding,) = judge(result).findings
    return finding


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    verdict = judge(made())
    assert verdict.good
    assert verdict.findings == ()
    assert verdict.sentence.startswith("The first 3 steps are sane")
    assert judge(made(steps=1)).sentence.startswith("The first step is sane")
    assert Verdict(()).sentence.startswith("The signal is sane")  # that of a probe


@pytest.mark.parametrize(
    ("where", "layer"),
    [
        (", in the forward pass, first at h.1", "h.1"),
        (", in the gradient of h.1.mlp.up_proj.weight", "h.1.mlp.up_proj.weight"),
        (": h.1.mlp.up_proj.weight met vectors with infinite entries", "h.1.mlp.up_proj.weight"),
    ],
)
def test_infinite_numbers_are_told_with_layer_and_step(where: str, layer: str) -> None:
    ended = f"numbers become infinite or undefined at step 2{where}"
    finding = only(made({"ended": ended}, steps=1))
    assert (finding.name, finding.layer, finding.bad) == ("not finite", layer, True)
    assert "Numbers become infinite or undefined at step 2" in finding.sentence
    assert layer in finding.sentence
    assert finding.advice == "Lower the rate, or warm up."
    assert "warm up longer" in only(made({"ended": ended, "warmup": 10}, steps=1)).advice


def test_an_interrupt_is_no_fault_of_the_model() -> None:
    verdict = judge(made({"ended": "it was interrupted after step 1"}, steps=1))
    assert verdict.good
    assert verdict.sentence.endswith("It was interrupted after step 1.")
    nothing = made({"ended": "it was interrupted after step 0"}).data.isel(step=[0]).drop_dims("update")
    assert judge(Rehearsal(nothing, SETTINGS)).sentence == "No step was taken."


def test_a_rising_loss() -> None:
    finding = only(made(loss=np.array([7, 6, 9, 8.5])))
    assert finding.name == "rising loss"
    assert "from 7 to 9 at step 2, and is 8.5 at the last step" in finding.sentence
    assert judge(made(loss=7 + np.array([0, 0.9, 0.5, 0]) * RISE * 7)).good
    assert not judge(made(loss=7 + np.array([0, 1.1, 0.5, 0]) * RISE * 7)).good


def test_tokens_that_change_by_more_than_their_size_in_one_step() -> None:
    change = np.zeros((4, 4))
    change[1:, 2:] = np.array([1.4, 12.4, 12.5])[:, None] * [1, 0.95]
    norms = np.ones((4, 4))
    norms[1:, 2:] = 4.0  # the tokens are twice as large after the first step
    result = made(stream_change=change, token_norm=norms)
    np.testing.assert_allclose(step_changes(result)[:, 2], [1.4, 5.5, 0.05])
    finding = only(result)
    assert (finding.name, finding.layer) == ("large step", "h.1")
    assert "Step 2 changes the tokens after h.1 by at least 5.5 times their size" in finding.sentence
    assert "1 more layer changes by more than its own size" in finding.sentence
    assert finding.advice == "Lower the rate, or warm up over 100 steps or more."
    warm = only(made({"warmup": 50}, stream_change=change, token_norm=norms))
    assert "5,000 steps" in warm.advice
    assert only(made(stream_change=1e6 * change)).advice == "Lower the rate."


def test_advice_is_given_once() -> None:
    """A loss that rises asks for a warm-up, a step that is too large for one of so many steps."""
    change = np.zeros((4, 4))
    change[1:] = 5.0
    verdict = judge(made(loss=np.array([7, 9, 9, 9]), stream_change=change))
    assert {"rising loss", "large step"} <= {finding.name for finding in verdict.findings}
    assert [advice for advice in verdict.advice if "warm up" in advice] == [
        "Lower the rate, or warm up over 50 steps or more."
    ]
    steady = STEP * np.arange(4)[:, None] * np.ones(4)  # each step changes the tokens by their size
    assert judge(made(stream_change=0.99 * steady)).good


def test_attention_logits_that_run_away_are_told_with_layer_and_step() -> None:
    reach = np.ones((4, 3))
    reach[2:, 1] = [LOGITS + 1, 100]
    finding = only(made(attention_range=reach))
    assert (finding.name, finding.layer) == ("attention logits", "h.1.attn")
    assert "Attention logits in h.1.attn differ by more than 30: by 31 at step 2, by 1 before the" in finding.sentence
    reach[0] = 200
    assert "100 or more before the first step" in only(made(attention_range=reach)).sentence


def test_queries_and_keys_that_move_faster_than_values_are_named() -> None:
    reach = np.full((4, 3), 40.0)
    effect = made().data["effective_update"].values[0].copy()
    for i, name in enumerate(WEIGHTS):
        if "q_proj" in name or "k_proj" in name:
            effect[:, i] *= 8
    finding = only(made(attention_range=reach, effective_update=effect))
    assert finding.sentence.startswith("Queries and keys move 8 times as far as values; attention logits in ")
    assert "normalise" in finding.advice


def test_outputs_that_run_away() -> None:
    assert only(made(output_largest=np.array([1, 5, 20, 44.0]))).name == "output logits"
    assert judge(made(output_largest=np.array([100, 105, 110, 120.0]))).good  # large from the start: no logits


def test_updates_that_are_uneven_over_blocks() -> None:
    effect = made().data["effective_update"].values[0].copy()
    effect[:, WEIGHTS.index("h.2.mlp.up_proj.weight")] *= 2 * UNEVEN
    finding = only(made(effective_update=effect))
    assert (finding.name, finding.layer, finding.bad) == ("uneven updates", "h.2", True)
    assert "Updates of MLP in are uneven over depth" in finding.sentence
    assert "‖xΔW‖/‖xW‖ of a step is 0.4 in h.2 but 0.02 in h.0, 20 times less" in finding.sentence
    effect[:, WEIGHTS.index("h.2.mlp.up_proj.weight")] /= 2.2
    effect[:, WEIGHTS.index("head.weight")] *= 100  # no matrix of a block
    assert judge(made(effective_update=effect)).findings == ()


def test_kinds_of_matrices_that_move_differently_are_said_and_are_not_bad() -> None:
    effect = made().data["effective_update"].values[0].copy()
    for i, name in enumerate(WEIGHTS):
        if "down_proj" in name:
            effect[:, i] *= 1.5 * UNEVEN
    finding = only(made(effective_update=effect))
    assert (finding.name, finding.bad) == ("uneven roles", False)
    assert "is 0.3 for MLP out but 0.02 for " in finding.sentence
    assert "15 times less" in finding.sentence


def test_weights_that_do_not_move() -> None:
    gradient = np.full((3, len(WEIGHTS)), 0.1)
    gradient[:, 3] = 0
    gradient[0, 4] = 0  # only in the first step, such as behind a gain of zero
    finding = only(made(weight_gradient=gradient))
    assert finding.sentence == f"1 parameter has no gradient in 3 steps: {WEIGHTS[3]}."
    moved = np.full((3, len(WEIGHTS)), 0.01)
    moved[:, 5:7] = 0
    finding = only(made(weight_update=moved))
    assert finding.sentence.startswith("2 parameters have a gradient, but do not move")
    assert finding.layer == WEIGHTS[5]


def test_clipping_and_warm_up_are_said_and_are_not_bad() -> None:
    verdict = judge(made({"clip": 1.0}, clipped=np.full(3, 0.5 / CLIPPED), gradient_total=np.array([20, 25, 30.0])))
    assert verdict.good
    assert "Clipping divides the gradient by at least 20 in every step: its norm is at least 20" in verdict.sentence
    assert judge(made({"clip": 1.0}, clipped=np.array([0.05, 0.05, 0.5]))).findings == ()
    verdict = judge(made({"warmup": 1000}, rate=np.array([0.001, 0.002, 0.003])))
    assert verdict.good
    assert "Warm-up keeps these steps at 0.3 % of the rate or less" in verdict.sentence
    assert judge(made({"warmup": 10}, rate=WARM * np.array([0.9, 1.1, 1.3]))).findings == ()


@pytest.mark.parametrize(
    ("x", "text"), [(130.4, "130"), (6329.5, "6,300"), (0.0123, "0.012"), (1.0, "1"), (2.5e7, "2.5e+07"), (0.0, "0")]
)
def test_numbers_are_short_and_plain(x: float, text: str) -> None:
    assert rounded(x) == text


VECTORS = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(0))


def factory() -> nn.Module:
    return st.nn.ShapedTransformer(width=64, depth=3, heads=4)


def test_a_sane_model_and_the_same_with_a_rate_that_is_much_too_high() -> None:
    assert judge(st.rehearse.run(factory, VECTORS, lr=2e-3, groups=st.nn.parameter_groups)).good
    found = {one.name for one in judge(st.rehearse.run(factory, VECTORS, lr=3.0)).findings if one.bad}
    assert "large step" in found


class Part(nn.Module):
    """A block beside which lies a weight that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.up_proj, self.unused = nn.Linear(64, 64, bias=False), nn.Parameter(torch.ones(64))
        nn.init.normal_(self.up_proj.weight, std=0.1)

    def forward(self, x: Any) -> Any:
        return x + self.up_proj(x).tanh() + 0 * self.unused


class Parts(nn.Module):
    """Three of them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Part() for _ in range(3))

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_real_weight_without_gradient_is_named() -> None:
    findings = [one for one in judge(st.rehearse.run(Parts, VECTORS, lr=1e-3)).findings if one.name == "still weights"]
    (finding,) = findings
    assert "3 parameters have no gradient" in finding.sentence
    assert "blocks.0.unused" in finding.sentence


def test_a_rate_that_overflows_is_told_with_its_step() -> None:
    verdict = judge(st.rehearse.run(factory, VECTORS, lr=1e30))
    assert not verdict.good
    assert verdict.findings[0].name == "not finite"
    assert verdict.findings[0].layer.startswith("blocks.")
    assert "at step 1" in verdict.sentence


def test_updates_by_role_are_means_over_the_matrices_of_a_block() -> None:
    result = made(draws=1)
    effects = result.effect_by_role()
    assert list(effects) == ["embedding", "query", "key", "value", "attention output", "MLP in", "MLP out", "head"]
    assert [str(one) for one in effects["query"]["block"].values] == ["h.0", "h.1", "h.2"]
    assert effects["head"].shape == (1, 3, 1)
    effect = result.data["effective_update"].values[0].copy()
    names = [name.replace("down_proj", "gate_proj") for name in WEIGHTS]
    effect[:, names.index("h.1.mlp.gate_proj.weight")] = 0.08
    other = Rehearsal(made(draws=1, effective_update=effect).data.assign_coords(weight=names), SETTINGS)
    np.testing.assert_allclose(other.effect_by_role()["MLP in"].sel(block="h.1").values, 0.04)
