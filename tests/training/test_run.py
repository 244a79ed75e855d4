"""Runs: they learn, can be killed, are the same on two processes, and say when they fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

import shaped_transformer as st
from shaped_transformer.io.lock import locked
from shaped_transformer.training import VARIANTS, divergence, run, train, watch
from shaped_transformer.training.divergence import Diverged, Spikes, compared_steps
from shaped_transformer.training.folder import last_checkpoint
from shaped_transformer.training.log import METRICS, WATCH, read
from shaped_transformer.training.task import build, prepare
from shaped_transformer.training.watch import watched

from .test_data import write_images

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of their own parts

Make = Callable[..., Any]


def losses(out: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read(out / METRICS) if "loss" in line]


def held_out(out: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["held_out_loss"]) for line in read(out / METRICS) if "held_out_loss" in line]


def spoken(recipe: Any, file: Path) -> Path:
    """The recipe as a file."""
    values = {k: v for k, v in recipe.to_dict().items() if k != "kind" and v is not None}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def start(arguments: list[str], cwd: Path, **environment: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=cwd, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def test_a_run_learns_and_leaves_everything(recipe: Make, tmp_path: Path) -> None:
    told: list[str] = []
    state = torch.random.get_rng_state()
    outcome = train(recipe(steps=30), tmp_path, say=told.append)
    assert torch.random.get_rng_state().equal(state)
    found = losses(tmp_path)
    assert [step for step, _ in found] == list(range(1, 31))
    assert found[-1][1] < found[0][1] - 1
    assert [step for step, _ in held_out(tmp_path)] == [6, 12, 18, 24, 30]
    assert outcome.loss == held_out(tmp_path)[-1][1]
    assert len(told) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(".lock", "curves.png", "curves.svg", "metrics.jsonl", "model", "outcome.json", "recipe.json", "report.md"),
        *("tensorboard", "watch.jsonl"),
    ]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for what in ("sha256", "unigram entropy", "| `lr` | 0.002 |", "γ is 0.3536", "transformers", f"{outcome.loss:.4f}"):
        assert what in report
    assert "`patch`" not in report  # it belongs to images
    warming = recipe().warmup
    rates = [line["rate"] for line in read(tmp_path / METRICS) if "rate" in line]
    assert rates == pytest.approx([0.002 * min(step / warming, 1) for step in range(30)])
    first, last = (read(tmp_path / WATCH)[i]["effective_rank"][-1] for i in (0, -1))
    assert f"effective rank of the tokens after the last block: {first:.3g} at step 1, {last:.3g} at step" in report
    assert list((tmp_path / "tensorboard").iterdir())
    told.clear()
    assert train(recipe(steps=30), tmp_path, say=told.append) == outcome
    assert "is finished" in told[0]


def test_the_trained_model_loads_and_generates(recipe: Make, tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(model).__name__ == "ShapedTransformerForCausalLM"
    prompt = tokenizer("the people", return_tensors="pt")
    text: Any = tokenizer.decode(model.generate(**prompt, max_new_tokens=8, do_sample=False)[0])
    assert text.startswith("the people")
    assert len(text) > len("the people")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant: str, recipe: Make, tmp_path: Path) -> None:
    chosen = recipe(variant=variant, save=0, evaluate=0, watch=0, steps=16)
    task = prepare(chosen)
    model = build(chosen, task)
    batch = torch.utils.data.default_collate([task.held_out[i] for i in range(8)])
    before = float(model(**batch).loss)
    run.fit(chosen, task, model, tmp_path)
    assert float(model.eval()(**batch).loss) < before - 0.1  # of what it has not seen; untrained, it stays to the digit


def test_recovered_attention_is_plain_softmax(recipe: Make, tmp_path: Path) -> None:
    train(recipe(variant="shaped-recover", watch=5), tmp_path / "some")
    assert [line["step"] for line in read(tmp_path / "some" / WATCH)] == [1, 6, 11, 12]
    train(recipe(variant="shaped-recover", watch=1), tmp_path / "all")
    gains = [line["identity_gain"] for line in read(tmp_path / "all" / WATCH)]
    np.testing.assert_allclose([g[0] for g in gains], [*np.linspace(1, 0, 7), *[0] * 5], atol=1e-4)


def test_a_network_too_large_for_memory_leaves_nothing(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train(recipe(hidden=10**13), tmp_path / "out")  # 640 TB, more than there are addresses
    assert not (tmp_path / "out").exists()


def test_eras_need_paragraphs_on_both_sides(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "1790.txt").write_text("short", encoding="utf-8")
    (tmp_path / "1795.txt").write_text("a paragraph that is longer than a few tokens, " * 9, encoding="utf-8")
    with pytest.raises(st.InputError, match="data: no paragraph of 8 tokens or more"):
        train(recipe(task="classification", data=str(tmp_path)), tmp_path / "out")


@pytest.mark.parametrize("task", ["masked-lm", "classification", "images"])
def test_other_tasks(task: str, recipe: Make, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"task": task, "steps": 40, "batch": 8, "save": 0}
    if task == "images":
        write_images(tmp_path)
        changes |= {"data": str(tmp_path), "patch": 14, "steps": 80}
    outcome = train(recipe(**changes), tmp_path / "out")
    found = losses(tmp_path / "out")
    assert np.mean([loss for _, loss in found[-5:]]) < found[0][1]
    assert (outcome.accuracy is None) == (task == "masked-lm")
    if task == "images":
        assert outcome.accuracy is not None
        assert outcome.accuracy > 0.3  # guessing gives 0.1
        report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
        assert f"| {outcome.accuracy:.4f} |" in report
        AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model")


def test_a_batch_of_one_is_no_spike(recipe: Make, tmp_path: Path) -> None:
    """Losses of single paragraphs differ by more than the default spike at every step."""
    train(recipe(task="classification", batch=1, save=0, watch=0, steps=40), tmp_path)
    found = [loss for _, loss in losses(tmp_path)]
    assert max(found) > 1.5 * found[0]


def test_eras_need_years(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 50, encoding="utf-8")
    with pytest.raises(st.InputError, match="must begin with a year"):
        train(recipe(task="classification", data=str(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_recipe_is_refused(recipe: Make, tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    with pytest.raises(st.InputError, match=r"lr is 0\.003, was 0\.002; steps is 14, was 12\. Choose another folder"):
        train(recipe(steps=14, lr=3e-3), tmp_path)
    (tmp_path / "recipe.json").write_text("{", encoding="utf-8")
    with pytest.raises(st.StorageError, match="cannot be read"):
        train(recipe(), tmp_path)


def test_a_folder_of_other_things_is_left_alone(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.py").write_text("mine", encoding="utf-8")
    with pytest.raises(st.InputError, match="is not empty and holds no run: choose another folder"):
        train(recipe(), tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "mine.py"]


def test_the_data_may_move_but_not_change(recipe: Make, texts: str, tmp_path: Path) -> None:
    outcome = train(recipe(), tmp_path / "out")
    shutil.copytree(texts, tmp_path / "moved")
    assert train(recipe(data=str(tmp_path / "moved")), tmp_path / "out") == outcome
    (tmp_path / "moved" / "1950-passage.txt").write_text("other words " * 50, encoding="utf-8")
    with pytest.raises(st.InputError, match="the data have changed"):
        train(recipe(data=str(tmp_path / "moved")), tmp_path / "out")


def test_a_folder_in_use_is_refused(recipe: Make, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(st.InputError, match="is in use by another process"):
        train(recipe(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    train(recipe(), tmp_path)


def test_train_wants_a_recipe(tmp_path: Path) -> None:
    name: Any = "quick.yaml"
    with pytest.raises(st.InputError, match=r"as training\.read returns it \(got str\)"):
        train(name, tmp_path)
    assert {"read", "train", "Recipe"} <= set(dir(st.training))


def test_held_out_windows_are_whole_batches_of_what_there_is(recipe: Make) -> None:
    counts = {asked: len(prepare(recipe(held_out=asked)).held_out) for asked in (1, 7, 8, 10**9)}
    assert (counts[1], counts[7], counts[8]) == (4, 4, 8)
    text: Any = prepare(recipe()).held_out
    assert counts[10**9] % 4 == 0
    assert counts[10**9] * 16 <= len(text.stream)


def test_what_is_missing_from_a_finished_run_is_made_again(recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(save=0), tmp_path)
    (tmp_path / "report.md").unlink()
    assert train(recipe(save=0), tmp_path) == outcome
    assert f"{outcome.loss:.4f}" in (tmp_path / "report.md").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "model")
    again = train(recipe(save=0), tmp_path)
    assert again.loss == outcome.loss
    assert (tmp_path / "model").is_dir()
    assert len(losses(tmp_path)) == 12


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(recipe: Make, tmp_path: Path) -> None:
    """SIGKILL after step 30, when checkpoint 28 is there, and one that was cut off; then the same losses to the bit."""
    chosen = recipe(steps=48, depth=4, width=32, schedule="cosine", variant="shaped-recover")
    file = spoken(chosen, tmp_path / "r.yaml")
    whole = train(chosen, tmp_path / "whole")
    command = ["shaped_transformer", "train", str(file), "--out", "killed"]
    process = start(command, tmp_path)
    killed = tmp_path / "killed"
    deadline = time.monotonic() + 120
    while len(losses(killed)) < 30 and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = losses(killed)
    assert 30 <= len(before) < 48
    checkpoint = last_checkpoint(killed)
    assert checkpoint is not None
    cut = checkpoint.with_name("checkpoint-47")
    cut.mkdir()
    (cut / "model.safetensors").write_bytes(b"cut")
    with (killed / METRICS).open("a", encoding="utf-8") as lines:
        lines.write('{"step": 31, "lo')
    told = start(command, tmp_path).communicate()[1]
    assert f"going on from step {checkpoint.name.rpartition('-')[2]}" in told
    assert losses(killed) == losses(tmp_path / "whole")
    assert held_out(killed) == held_out(tmp_path / "whole")
    for a, b in zip(read(killed / WATCH), read(tmp_path / "whole" / WATCH), strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    assert json.loads((killed / "outcome.json").read_text(encoding="utf-8"))["loss"] == whole.loss


def test_processes_must_divide_the_batch(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(st.InputError, match="batch: a multiple of the 3 processes"):
        train(recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lr", "what"), [(0.07, "times its first value"), (1e30, "gradient is nan")])
def test_divergence_names_step_block_and_way_out(lr: float, what: str, recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=rf"diverged at step \d+: .*{what}.*block \d of 2.* Try an lr below") as error:
        # One update of a large batch: what comes of many depends on the processor's rounding.
        train(recipe(lr=lr, warmup=0, steps=60, clip=1e3, batch=16), tmp_path)
    assert error.value.step == losses(tmp_path)[-1][0] + 1
    assert all(np.isfinite(loss) for _, loss in losses(tmp_path))
    assert not (tmp_path / "model").exists()
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"**Stopped:** {error.value}" in report
    assert "`model/`" not in report


def test_the_last_update_may_be_the_one_that_diverges(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 1: the held-out loss is nan; block 1 of 2 .* Try an lr below 1e\+30"):
        train(recipe(steps=1, lr=1e30, warmup=0), tmp_path)
    assert not (tmp_path / "outcome.json").exists()


def test_spikes_are_told_by_means() -> None:
    spikes = Spikes(1.5, 2)
    assert [bool(spikes.told(loss)) for loss in (1.0, 3.0, 2.9, 2.9, 3.2)] == [False, False, False, False, True]
    assert "the loss is 7, 1.5 times its first value 2" in Spikes(1.5, 2, (1.0, 3.0), (2.0, 5.0)).told(9.0)
    assert "6.1, 1.5 times its first value 4" in Spikes(1.5, 1, (4.0,)).told(6.1)
    assert [compared_steps(batch) for batch in (1, 5, 16, 64)] == [16, 4, 1, 1]


def test_a_run_that_goes_on_knows_the_losses_it_compares(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[list[float]] = []
    step = run._Trainer.training_step

    def noted(self: Any, *arguments: Any) -> Any:
        if self.state.global_step == 6 and len(compared) == 1:
            raise KeyboardInterrupt
        loss = step(self, *arguments)
        if self.state.global_step == 5:
            compared.append([*self.spikes.begin, *self.spikes.recent])
        return loss

    monkeypatch.setattr(run._Trainer, "training_step", noted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path)  # four steps are compared, and step 4 is saved
    train(recipe(), tmp_path)
    assert len(compared[0]) == 8
    assert compared[0] == compared[1]


def test_divergence_at_initialisation_does_not_blame_the_rate(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 1: .*at initialisation: try fewer blocks, or another variant"):
        train(recipe(variant="unit-skips", depth=200), tmp_path)
    assert "**Stopped:** training diverged at step 1" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_what_is_watched_is_what_is_there() -> None:
    torch.manual_seed(0)
    config = st.hf.ShapedTransformerConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, shaping="learn", final_norm=False
    )
    model = st.hf.ShapedTransformerForCausalLM(config)
    ids = torch.randint(0, 50, (4, 16))
    with watched(model) as seen:
        model(ids, labels=ids).loss.backward()
    x = model.model(ids).last_hidden_state.detach().double().numpy()
    v = x @ x.transpose(0, 2, 1) / 32
    np.testing.assert_allclose(seen["covariance"][-1], v.mean(0), rtol=1e-3, atol=1e-4)
    assert seen["token_norm"][-1] == pytest.approx(np.trace(v.mean(0)) / 16, rel=1e-3)
    eigenvalues = np.linalg.eigvalsh(v)
    assert seen["effective_rank"][-1] == pytest.approx(st.statistics.effective_rank(eigenvalues).mean(), rel=1e-3)
    assert seen["identity_gain"] == seen["uniform_gain"] == [1.0, 1.0, 1.0]
    block = model.model.layers[1].block
    norm = sum(float(p.grad.pow(2).sum()) for p in block.parameters() if p.grad is not None) ** 0.5
    assert seen["gradient"][1] == pytest.approx(norm, rel=1e-3)
    assert not block.mlp._forward_hooks


def test_what_processes_ask_of_each_other_does_not_depend_on_what_one_sees(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one whose half of a batch overflows would leave while the other waits for it."""
    task = prepare(recipe())
    batch = torch.utils.data.default_collate([task.train[i] for i in range(4)])
    asked, norms = [], watch.gradient_norms

    def ask(blocks: Any) -> Any:
        asked.append(len(blocks))
        return norms(blocks)

    for module in (divergence, watch):
        monkeypatch.setattr(module, "gradient_norms", ask)
    model = build(recipe(), task)
    for total in (2, 4):
        assert divergence.where(model, batch).count("block") >= 1
        with watched(model) as seen:
            model(**batch).loss.backward()
        assert len(asked) == total
        assert bool(seen) == (total == 2)
        torch.nn.init.constant_(model.model.embeddings.weight, torch.inf)


def test_the_ticks_of_gradients_differ_whatever_their_span() -> None:
    from shaped_transformer.training.report import curves

    for low, high in ((0.0104, 0.0119), (0.097, 0.152), (0.11, 0.19), (0.2, 1.9), (0.2, 5.5), (1e-22, 1.0)):
        figure = curves([], [{"step": 1, "gradient": [low, high]}])
        figure.canvas.draw()
        shown = figure.axes[1].get_ylim()
        labels = [
            text.get_text()
            for text in figure.axes[1].get_yticklabels()
            if shown[0] <= text.get_position()[1] <= shown[1]
        ]
        assert len(labels) >= 2, (low, high)
        assert len(set(labels)) == len(labels), labels


def test_padding_is_not_watched() -> None:
    torch.manual_seed(0)
    config: Any = st.hf.ShapedTransformerConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1)
    model = st.hf.ShapedTransformerForSequenceClassification(config)
    ids, mask = torch.randint(1, 50, (6, 40)), torch.zeros(6, 40, dtype=torch.long)
    for row, length in enumerate((9, 40, 12, 17, 30, 20)):
        mask[row, :length] = 1
    found: list[Any] = []
    for padding in (0, 1):
        ids[mask == 0] = padding
        with watched(model, mask) as seen:
            model(ids, attention_mask=mask, labels=torch.zeros(6, dtype=torch.long)).loss.backward()
        found.append(seen["covariance"][0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    assert np.shape(found[0]) == (16, 16)  # the four longest have 17 tokens and more
    with watched(model) as seen:
        model(ids, attention_mask=mask, labels=torch.zeros(6, dtype=torch.long)).loss.backward()
    assert not np.allclose(seen["covariance"][0], found[0], rtol=1e-2)  # the first four, padding and all


def test_the_command(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = spoken(recipe(), tmp_path / "r.yaml")
    code, out, err = run("train", str(file), "--set", "steps=5", "--out", "made", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 5
    assert "Written to made: report.md" in err
    code, _, err = run("train", str(file), "--set", "stepz=5", "--out", "bad")
    assert (code, err.count("\n")) == (2, 1)
    assert "no key 'stepz'" in err
    assert not Path("bad").exists()
    code, _, err = run("train", str(file), "--set", "lr=3e6", "--set", "warmup=0", "--set", "steps=60", "--out", "nan")
    assert (code, err.count("\n")) == (2, 1), err
    assert "diverged at step" in err


def test_the_quick_recipe_learns_from_real_text(run: Any) -> None:
    code, out, err = run("train", "quick.yaml", "--set", "steps=20", "--set", "evaluate=10", "--out", "made", "--json")
    assert code == 0, err
    assert json.loads(out)["loss"] < 6.6  # a uniform guess costs log 1024 = 6.93


def test_a_full_disk_is_one_line(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.Trainer.save_model", full)
    with pytest.raises(st.StorageError, match=r"cannot write .*: No space left on device"):
        train(recipe(), tmp_path / "out")


def test_an_interrupt_says_where_it_goes_on(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = run._Trainer.training_step

    def interrupted(self: Any, *arguments: Any) -> Any:
        if self.state.global_step == 9:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(run._Trainer, "training_step", interrupted)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path, say=told.append)
    assert told[-1] == "the same command goes on after step 8"
    monkeypatch.undo()
    train(recipe(), tmp_path, say=told.append)
    assert "going on from step 8" in told
    assert [s for s, _ in losses(tmp_path)] == list(range(1, 13))
