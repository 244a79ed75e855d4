"""An interrupted or killed run resumes from its last checkpoint, as if it had not stopped."""

import json
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from shaped_transformer.training import train
from shaped_transformer.training.divergence import Spikes
from shaped_transformer.training.folder import Interrupted, Outcome, last_checkpoint, step_of
from shaped_transformer.training.log import METRICS, WATCH, read

from .runs import Make, held_out, interrupt_after, losses, start_module, write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class Killed:
    """A run that was killed and resumed, beside one that was not."""

    out: Path
    messages: str
    checkpoint: int
    whole: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def killed(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """SIGKILL after step 30, when checkpoint 28 is complete; then a checkpoint and a line that were cut off."""
    folder = tmp_path_factory.mktemp("killed")
    chosen = recipe(steps=48, depth=4, width=32, schedule="cosine", variant="shaped-recover")
    outcome = train(chosen, folder / "whole")
    command = ["shaped_transformer", "train", str(write_recipe(chosen, folder / "r.yaml")), "--out", "killed"]
    process = start_module(command, folder)
    out = folder / "killed"
    deadline = time.monotonic() + 120
    while len(losses(out)) < 30 and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 30 <= len(losses(out)) < 48
    checkpoint = last_checkpoint(out)
    assert checkpoint is not None
    cut_off = checkpoint.with_name("checkpoint-47")
    cut_off.mkdir()
    (cut_off / "model.safetensors").write_bytes(b"cut")
    with (out / METRICS).open("a", encoding="utf-8") as lines:
        lines.write('{"step": 31, "lo')
    messages = start_module(command, folder).communicate()[1]
    return Killed(out, messages, int(checkpoint.name.rpartition("-")[2]), folder / "whole", outcome)


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_complete_checkpoint(killed: Killed) -> None:
    assert f"resuming after step {killed.checkpoint}" in killed.messages


@pytest.mark.slow
def test_a_killed_run_has_the_same_losses_to_the_bit(killed: Killed) -> None:
    assert losses(killed.out) == losses(killed.whole)
    assert held_out(killed.out) == held_out(killed.whole)
    assert json.loads((killed.out / "outcome.json").read_text(encoding="utf-8"))["loss"] == killed.outcome.loss


@pytest.mark.slow
def test_a_killed_run_has_the_same_watched_quantities(killed: Killed) -> None:
    for a, b in zip(read(killed.out / WATCH), read(killed.whole / WATCH), strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_an_interrupt_says_where_the_run_resumes(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    interrupt_after(9, monkeypatch)
    kept = "keeps the checkpoint of step 8, from which the same command resumes"
    with pytest.raises(Interrupted, match=rf"^interrupted; {re.escape(str(tmp_path))} {kept}$"):
        train(recipe(), tmp_path)
    monkeypatch.undo()
    train(recipe(), tmp_path, say=messages.append)
    assert "resuming after step 8" in messages
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 13))


def test_an_interrupt_before_the_first_checkpoint_says_that_the_run_starts_again(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(2, monkeypatch)
    with pytest.raises(Interrupted, match=r"holds no checkpoint, so the same command starts from the beginning$"):
        train(recipe(), tmp_path)


def test_an_interrupt_of_a_finished_run_says_that_it_is_finished(recipe: Make, tmp_path: Path) -> None:
    train(recipe(), tmp_path)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"is finished$"):
        train(recipe(), tmp_path, say=interrupted)


@pytest.mark.slow
def test_an_interrupted_command_says_what_is_kept(recipe: Make, tmp_path: Path) -> None:
    file = write_recipe(recipe(steps=2000, depth=4), tmp_path / "long.yaml")
    process = start_module(["shaped_transformer", "train", str(file)], tmp_path)
    out = tmp_path / "runs" / "long"
    deadline = time.monotonic() + 120
    while last_checkpoint(out) is None and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    *_, line = process.communicate(timeout=60)[1].splitlines()
    checkpoint = last_checkpoint(out)
    assert checkpoint is not None
    kept = f"keeps the checkpoint of step {step_of(checkpoint)}, from which the same command resumes"
    assert line == f"shaped-transformer: interrupted; runs/long {kept}"
    assert process.returncode == 130


def test_a_resumed_run_compares_the_losses_before_its_checkpoint(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[list[float]] = []
    message = Spikes.message

    def recorded(self: Spikes, loss: float) -> str:
        found = message(self, loss)
        compared.append([*self.begin, *self.recent])
        return found

    monkeypatch.setattr(Spikes, "message", recorded)
    with monkeypatch.context() as interrupted:
        interrupt_after(6, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), tmp_path)  # means are over four steps, and step 4 is saved
    of_step_6 = compared[-1]
    compared.clear()
    train(recipe(), tmp_path)
    assert len(of_step_6) == 8
    assert compared[1] == of_step_6  # steps 5 and 6 are the first that are trained again
