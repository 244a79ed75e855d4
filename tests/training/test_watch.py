"""The watched quantities are those of the blocks, whatever the padding and the processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import shaped_transformer as st
from shaped_transformer.training import divergence, train, watch
from shaped_transformer.training.log import WATCH, read
from shaped_transformer.training.task import build, prepare
from shaped_transformer.training.watch import watch_blocks

from .runs import Make

pytestmark = pytest.mark.filterwarnings("ignore")


def small_model() -> Any:
    torch.manual_seed(0)
    config = st.hf.ShapedTransformerConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, shaping="learn", final_norm=False
    )
    return st.hf.ShapedTransformerForCausalLM(config)


@dataclass
class Watched:
    """A model after a watched pass, what was watched, and V of the last block, (sequences, m, m)."""

    model: Any
    seen: dict[str, Any]
    covariance: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def watched() -> Watched:
    model = small_model()
    ids = torch.randint(0, 50, (4, 16))
    with watch_blocks(model) as seen:
        model(ids, labels=ids).loss.backward()
    x = model.model(ids).last_hidden_state.detach().double().numpy()
    return Watched(model, seen, x @ x.transpose(0, 2, 1) / 32)


def test_the_covariance_is_that_of_the_block(watched: Watched) -> None:
    np.testing.assert_allclose(watched.seen["covariance"][-1], watched.covariance.mean(0), rtol=1e-3, atol=1e-4)


def test_the_token_norm_is_that_of_the_covariance(watched: Watched) -> None:
    assert watched.seen["token_norm"][-1] == pytest.approx(np.trace(watched.covariance.mean(0)) / 16, rel=1e-3)


def test_the_effective_rank_is_that_of_the_covariance(watched: Watched) -> None:
    expected = st.statistics.effective_rank(np.linalg.eigvalsh(watched.covariance)).mean()
    assert watched.seen["effective_rank"][-1] == pytest.approx(expected, rel=1e-3)


def test_gains_are_1_at_initialisation(watched: Watched) -> None:
    assert watched.seen["identity_gain"] == watched.seen["uniform_gain"] == [1.0, 1.0, 1.0]


def test_the_gradient_is_the_norm_over_the_block(watched: Watched) -> None:
    block = watched.model.model.layers[1].block
    norm = sum(float(p.grad.pow(2).sum()) for p in block.parameters() if p.grad is not None) ** 0.5
    assert watched.seen["gradient"][1] == pytest.approx(norm, rel=1e-3)


def test_the_hooks_are_removed_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []
    register = nn.Module.register_forward_hook

    def register_counted(module: nn.Module, hook: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            calls.append(module)
            return hook(*arguments)

        return register(module, counted)

    monkeypatch.setattr(nn.Module, "register_forward_hook", register_counted)
    model, ids = small_model(), torch.zeros(1, 4, dtype=torch.long)
    with watch_blocks(model):
        model(ids, labels=ids).loss.backward()
    assert len(calls) == 3
    model(ids)
    assert len(calls) == 3


def test_recovered_attention_becomes_plain_softmax_by_half_time(recipe: Make, tmp_path: Path) -> None:
    train(recipe(variant="shaped-recover", watch=1), tmp_path)
    gains = [line["identity_gain"] for line in read(tmp_path / WATCH)]
    np.testing.assert_allclose([g[0] for g in gains], [*np.linspace(1, 0, 7), *[0] * 5], atol=1e-4)


def test_blocks_are_watched_at_intervals_and_at_the_end(recipe: Make, tmp_path: Path) -> None:
    train(recipe(variant="shaped-recover", watch=5), tmp_path)
    assert [line["step"] for line in read(tmp_path / WATCH)] == [1, 6, 11, 12]


def test_all_processes_gather_gradients_even_where_one_overflows(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one whose half of a batch overflows would leave while the other waits for it."""
    task = prepare(recipe())
    batch = torch.utils.data.default_collate([task.train[i] for i in range(4)])
    calls, gradient_norms = [], watch.gradient_norms

    def counted(blocks: Any) -> Any:
        calls.append(len(blocks))
        return gradient_norms(blocks)

    for module in (divergence, watch):
        monkeypatch.setattr(module, "gradient_norms", counted)
    model = build(recipe(), task)
    for total in (2, 4):
        assert divergence.locate_divergence(model, batch).count("block") >= 1
        with watch_blocks(model) as seen:
            model(**batch).loss.backward()
        assert len(calls) == total
        assert bool(seen) == (total == 2)
        nn.init.constant_(model.model.embeddings.weight, torch.inf)


@dataclass
class Padded:
    """A classifier, sequences of different lengths, and their mask."""

    model: Any
    ids: torch.Tensor
    mask: torch.Tensor

    def covariance(self, padding: int, mask: torch.Tensor | None) -> Any:
        """V of the first block, with this token as padding."""
        ids = torch.where(self.mask == 1, self.ids, padding)
        with watch_blocks(self.model, mask) as seen:
            self.model(ids, attention_mask=self.mask, labels=torch.zeros(6, dtype=torch.long)).loss.backward()
        return seen["covariance"][0]


@pytest.fixture
def padded() -> Padded:
    torch.manual_seed(0)
    config: Any = st.hf.ShapedTransformerConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1)
    model = st.hf.ShapedTransformerForSequenceClassification(config)
    ids, mask = torch.randint(1, 50, (6, 40)), torch.zeros(6, 40, dtype=torch.long)
    for row, length in enumerate((9, 40, 12, 17, 30, 20)):
        mask[row, :length] = 1
    return Padded(model, ids, mask)


def test_padding_is_not_watched(padded: Padded) -> None:
    np.testing.assert_allclose(padded.covariance(0, padded.mask), padded.covariance(1, padded.mask), rtol=1e-3)


def test_sixteen_tokens_are_watched(padded: Padded) -> None:
    assert np.shape(padded.covariance(0, padded.mask)) == (16, 16)  # the four longest have 17 tokens and more


def test_without_a_mask_the_first_sequences_are_watched_with_their_padding(padded: Padded) -> None:
    expected = padded.covariance(1, padded.mask)
    assert not np.allclose(padded.covariance(1, None), expected, rtol=1e-2)
