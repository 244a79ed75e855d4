"""The verdict names what goes wrong, and where."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

import shaped_transformer as st
from shaped_transformer.probe.verdict import judge, span, stacks

X = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(0))


def post_norm(depth: int) -> Any:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
    for parameter in model.parameters():  # copies of one block otherwise
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return model


def shaped(depth: int = 12) -> Any:
    torch.manual_seed(0)
    return st.nn.ShapedTransformer(width=64, depth=depth, heads=4)


def test_a_deep_post_norm_model_is_said_to_collapse_where_it_does() -> None:
    result = st.probe.run(post_norm(48), X)
    verdict = judge(result)
    assert not verdict.good
    (collapse,) = [one for one in verdict.findings if one.name == "collapse"]
    rank = result.mean("effective_rank")
    end = result.layers.index(collapse.layer)
    start = result.layers.index(collapse.sentence.split("between ")[1].split(" and ")[0])
    assert start < end
    assert rank[start] > 0.8 * rank[0]
    assert rank[end] < 2
    assert f"{rank[end]:.3g}" in collapse.sentence


@pytest.mark.parametrize("depth", [12, 48])
def test_a_shaped_model_is_healthy(depth: int) -> None:
    verdict = judge(st.probe.run(shaped(depth), X))
    assert verdict.good
    assert verdict.findings == ()
    assert verdict.sentence.startswith("The signal is sane")


def test_a_large_change_below_the_limit_is_said_and_not_bad() -> None:
    result = st.probe.run(shaped(3), X)
    norm = result.data["token_norm"].transpose(..., "layer").values  # a view
    norm[..., -1] = 300 * norm[..., 0]
    verdict = st.probe.judge(result)
    (finding,) = verdict.findings
    assert verdict.good
    assert not finding.bad
    assert verdict.advice == ()
    assert "The token norm grows by a factor of " in finding.sentence
    assert finding.sentence.endswith("; it counts as bad from 10,000 on.")
    norm[..., -1] = 50 * norm[..., 0]
    assert st.probe.judge(result).findings == ()


class Block(nn.Module):
    """x + W·tanh(x), with the weights times a scale."""

    def __init__(self, scale: float = 0.3, skip: float = 1.0) -> None:
        super().__init__()
        self.weight, self.skip = nn.Parameter(scale * torch.randn(64, 64) / 8), skip

    def forward(self, x: Any) -> Any:
        return self.skip * x + x.tanh() @ self.weight


class Stack(nn.Module):
    """Blocks in a list."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def with_a_dead_block() -> Any:
    torch.manual_seed(0)
    return Stack(Block(), Block(), Block(scale=0.0), Block())


def test_a_dead_block_is_named() -> None:
    (finding,) = judge(st.probe.run(with_a_dead_block(), X)).findings
    assert (finding.name, finding.layer) == ("dead block", "blocks.2")
    assert "zero" in finding.sentence


def test_many_dead_blocks_are_one_finding() -> None:
    verdict = judge(st.probe.run(Stack(*[Block(0.0) for _ in range(20)]), X))
    (dead,) = [one for one in verdict.findings if one.name == "dead block"]
    assert dead.sentence.startswith(f"{dead.layer} and 19 more blocks return their input unchanged")


def test_the_layer_from_which_tokens_are_undefined_is_named() -> None:
    model = with_a_dead_block()
    with torch.no_grad():
        model.blocks[3].weight[0, 0] = torch.nan
    result = st.probe.run(model, X)
    verdict = judge(result)
    assert (verdict.findings[0].name, verdict.findings[0].layer) == ("not finite", "blocks.3")
    assert "from blocks.3 on" in verdict.sentence
    assert result.layers == ["blocks.input", "blocks.0", "blocks.1", "blocks.2"]


def test_tokens_and_gradients_that_vanish_are_named() -> None:
    torch.manual_seed(0)
    blocks = [Block(0.3), Block(0.3), *(Block(0.2, skip=0.0) for _ in range(8)), Block(0.3)]
    verdict = judge(st.probe.run(Stack(*blocks), X))
    found = {finding.name: finding for finding in verdict.findings}
    assert not verdict.good
    assert {"fading tokens", "vanishing gradients"} <= set(found)
    assert found["fading tokens"].layer in ("blocks.8", "blocks.9")
    assert found["vanishing gradients"].layer in ("blocks.1", "blocks.2")


def test_tokens_and_gradients_that_explode_are_named() -> None:
    torch.manual_seed(0)
    blocks = [*(Block(0.3) for _ in range(3)), *(Block(0.1, skip=4.0) for _ in range(8))]
    verdict = judge(st.probe.run(Stack(*blocks), X))
    found = {finding.name: finding for finding in verdict.findings}
    assert {"explosion", "exploding gradients"} <= set(found)
    assert "grows" in found["explosion"].sentence


def test_the_layers_of_a_fall_are_where_most_of_it_takes_place() -> None:
    assert span(np.array([5.0, 5, 5, 1, 1, 1])) == (2, 3)
    assert span(np.array([5.0, 4, 3, 2, 1])) == (0, 4)
    assert span(np.array([1.0, 2, 9, 9, 8.9, 1, 2])) == (4, 5)
    assert span(np.array([1.0, 2, 3])) in {(0, 0)}
    assert span(np.array([3.0])) == (0, 0)


def test_an_encoder_and_a_decoder_are_judged_apart() -> None:
    names = ["e.block.input", "e.block.0", "e.block.1", "d.block.input", "d.block.0", "d.block.0#2", "d.block.1"]
    assert stacks(names) == [slice(0, 3), slice(3, 7)]
    assert stacks(["h.0.mlp", "h.1.mlp", "h.0.attn"]) == [slice(0, 2), slice(2, 3)]


def test_small_embeddings_before_blocks_with_norms_are_no_explosion() -> None:
    model = shaped()
    with torch.no_grad():
        result = st.probe.run(model, X)
    tiny = result.data.copy(deep=True)
    tiny["token_norm"][0] = 1e-6
    assert judge(st.probe.ProbeResult(tiny, result.settings)).good
    tiny["token_norm"][1] = 1e-6
    assert not judge(st.probe.ProbeResult(tiny, result.settings)).good
