"""Divergence: detected before the update, and reported with the step, the block and advice."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shaped_transformer.training import train
from shaped_transformer.training.divergence import Diverged, Spikes, averaged_steps

from .runs import Make, losses

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class Run:
    """A run that diverged, and what its message must say."""

    out: Path
    error: Diverged
    reason: str


@pytest.fixture(
    scope="module", params=[(0.07, "times its first value"), (1e30, "gradient is nan")], ids=["spike", "nan"]
)
def diverged(request: pytest.FixtureRequest, recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A large batch, so that a single update diverges: later ones depend on the processor's rounding."""
    lr, reason = request.param
    out = tmp_path_factory.mktemp("diverged")
    with pytest.raises(Diverged) as error:
        train(recipe(lr=lr, warmup=0, steps=60, clip=1e3, batch=16), out)
    return Run(out, error.value, reason)


def test_the_message_names_step_block_and_advice(diverged: Run) -> None:
    message = rf"diverged at step \d+: .*{diverged.reason}.*block \d of 2.* Try an lr below"
    assert re.search(message, str(diverged.error))


def test_the_run_stops_before_the_update(diverged: Run) -> None:
    assert diverged.error.step == losses(diverged.out)[-1][0] + 1


def test_the_losses_before_are_finite(diverged: Run) -> None:
    assert all(np.isfinite(loss) for _, loss in losses(diverged.out))


def test_no_model_is_left(diverged: Run) -> None:
    assert not (diverged.out / "model").exists()


def test_the_report_has_the_message_and_no_model(diverged: Run) -> None:
    report = (diverged.out / "report.md").read_text(encoding="utf-8")
    assert f"**Stopped:** {diverged.error}" in report
    assert "`model/`" not in report


def test_the_last_update_may_be_the_one_that_diverges(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 1: the held-out loss is nan; block 1 of 2 .* Try an lr below 1e\+30"):
        train(recipe(steps=1, lr=1e30, warmup=0), tmp_path)
    assert not (tmp_path / "outcome.json").exists()


def test_divergence_at_initialisation_does_not_blame_the_rate(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 1: .*at initialisation: try fewer blocks, or another variant"):
        train(recipe(variant="unit-skips", depth=200), tmp_path)
    assert "**Stopped:** training diverged at step 1" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_batch_of_one_is_no_spike(recipe: Make, tmp_path: Path) -> None:
    """Losses of single paragraphs differ by more than the default spike at every step."""
    train(recipe(task="classification", batch=1, save=0, watch=0, steps=40), tmp_path)
    found = [loss for _, loss in losses(tmp_path)]
    assert max(found) > 1.5 * found[0]


def test_spikes_are_means_that_exceed_the_first_mean() -> None:
    spikes = Spikes(1.5, 2)
    assert [bool(spikes.message(loss)) for loss in (1.0, 3.0, 2.9, 2.9, 3.2)] == [False, False, False, False, True]


def test_a_resumed_run_compares_with_earlier_losses() -> None:
    message = Spikes(1.5, 2, (1.0, 3.0), (2.0, 5.0)).message(9.0)
    assert message == "the loss is 7, more than 1.5 times its first value 2"
    assert "6.1, more than 1.5 times its first value 4" in Spikes(1.5, 1, (4.0,)).message(6.1)


def test_losses_are_averaged_over_sixteen_sequences_or_more() -> None:
    assert [averaged_steps(batch) for batch in (1, 5, 16, 64)] == [16, 4, 1, 1]
