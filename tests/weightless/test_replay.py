"""A recorded initialisation is repeated on real memory: its draws have the distribution of the model's own code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

from assertions import FALSE_ALARM
from records import Factory, draw, filled, recorded, sources

from shaped_transformer.weightless.recording.record import draw_jointly

init = torch.nn.init


def p_value(values: Factory, wrong: float = 1.0, statistic: Callable[[Any], Any] = torch.flatten) -> float:
    torch.manual_seed(1)
    real = torch.cat([statistic(values()).reshape(-1) for _ in range(4)])
    drawn = torch.cat([statistic(draw(values, seed)).reshape(-1) for seed in range(4)])
    return float(ks_2samp(real.numpy(), wrong * drawn.numpy(), method="asymp").pvalue)


DRAWN: dict[str, Factory] = {
    "normal_": lambda: init.normal_(torch.empty(100, 100), std=0.02),
    "uniform_": lambda: init.uniform_(torch.empty(100, 100), 0, 1),
    "truncated": lambda: init.trunc_normal_(torch.empty(100, 100), a=-1, b=1),
    "exponential_": lambda: torch.empty(100, 100).exponential_(),
    "product": lambda: torch.randn(100, 20) @ torch.randn(20, 100),
    "sparse_": lambda: init.sparse_(torch.empty(100, 100), 0.1),
    "columns": lambda: filled((100, 100), lambda w: w.normal_(), lambda w: w[:, :50].mul_(0.5)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_parameter_has_the_distribution_of_the_code(name: str) -> None:
    assert p_value(DRAWN[name]) > FALSE_ALARM / len(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_the_test_of_draws_sees_a_scale_ten_percent_off(name: str) -> None:
    assert p_value(DRAWN[name], wrong=1.1) < FALSE_ALARM / len(DRAWN)


def trace_of_powers(q: Any) -> Any:
    return torch.stack([torch.trace(q[n : n + 4, n : n + 4]) for n in range(0, 60, 4)])


def test_a_drawn_orthogonal_matrix_is_orthogonal_and_uniform() -> None:
    q = draw(lambda: init.orthogonal_(torch.empty(60, 60), gain=2.0))
    torch.testing.assert_close(q @ q.T, 4 * torch.eye(60), atol=1e-5, rtol=0)
    many = [draw(lambda: init.orthogonal_(torch.empty(60, 60)), seed) for seed in range(60)]
    drawn = np.concatenate([trace_of_powers(q).numpy() for q in many])
    torch.manual_seed(2)
    real = np.concatenate([trace_of_powers(init.orthogonal_(torch.empty(60, 60))).numpy() for _ in range(60)])
    assert ks_2samp(real, drawn).pvalue > FALSE_ALARM
    unsigned = [draw(lambda: torch.linalg.qr(torch.randn(60, 60))[0], seed) for seed in range(60)]
    assert ks_2samp(real, np.concatenate([trace_of_powers(q).numpy() for q in unsigned])).pvalue < FALSE_ALARM


def test_draws_are_reproducible_and_keep_known_values() -> None:
    assert torch.equal(draw(DRAWN["product"], 3), draw(DRAWN["product"], 3))
    known = torch.arange(6.0).view(2, 3)
    assert torch.equal(draw(lambda: torch.empty(2, 3).copy_(known), dtype=torch.float64), known.double())
    padded = draw(lambda: filled((4, 3), lambda w: w.normal_(), lambda w: w[2].zero_()))
    assert (padded == 0).all(1).tolist() == [False, False, True, False]


def test_a_value_used_before_and_after_a_change_is_drawn_once() -> None:
    def values() -> Any:
        first = torch.randn(5)
        twice = 2 * first
        return first.add_(1.0).mul_(2) - twice

    torch.testing.assert_close(draw(values), torch.full((5,), 2.0))


def test_copies_of_a_layer_share_their_sources() -> None:
    layer = torch.nn.TransformerEncoderLayer
    _, recordings = recorded(lambda: torch.nn.TransformerEncoder(layer(8, 2, 16, batch_first=True), 2), torch.float32)
    first, second = (recordings[f"layers.{n}.linear1.weight"] for n in range(2))
    assert first.law((16, 8)) == second.law((16, 8))
    assert first.sources == second.sources
    assert first.sources.isdisjoint(recordings["layers.0.linear2.weight"].sources)
    assert torch.equal(*draw_jointly([first, second], *sources(0)))
