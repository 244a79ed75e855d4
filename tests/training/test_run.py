"""Runs: they learn, and leave a model, metrics and a report."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

import shaped_transformer as st
from shaped_transformer.training import VARIANTS, train
from shaped_transformer.training.folder import Outcome
from shaped_transformer.training.log import METRICS, WATCH, read
from shaped_transformer.training.run import fit
from shaped_transformer.training.task import build, in_words, prepare

from .runs import Make, held_out, losses, write_images

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of their own parts


@dataclass
class Finished:
    """A run of 30 steps."""

    out: Path
    outcome: Outcome
    messages: list[str]


@pytest.fixture(scope="module")
def finished(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out, messages = tmp_path_factory.mktemp("finished"), list[str]()
    return Finished(out, train(recipe(steps=30), out, say=messages.append), messages)


def test_every_logged_step_has_its_loss(finished: Finished) -> None:
    assert [step for step, _ in losses(finished.out)] == list(range(1, 31))


def test_a_run_learns(finished: Finished) -> None:
    found = losses(finished.out)
    assert found[-1][1] < found[0][1] - 1


def test_the_held_out_loss_is_measured_at_intervals_and_at_the_end(finished: Finished) -> None:
    found = held_out(finished.out)
    assert [step for step, _ in found] == [6, 12, 18, 24, 30]
    assert finished.outcome.loss == found[-1][1]
    assert [message.partition(":")[0] for message in finished.messages[1:]] == [f"step {s} of 30" for s, _ in found]


def test_a_run_begins_with_its_size(finished: Finished, recipe: Make) -> None:
    task: Any = prepare(recipe())
    parameters = sum(p.numel() for p in build(recipe(), task).parameters())
    train, held_out = len(task.train.stream), len(task.held_out.stream)
    expected = f"6 files, {train:,} tokens to train on, {held_out:,} held out, {parameters:,} parameters"
    assert finished.messages[0] == expected
    assert f"\n- {expected}\n" in (finished.out / "report.md").read_text(encoding="utf-8")


def test_the_size_of_data_for_classifiers_has_paragraphs(recipe: Make) -> None:
    task: Any = prepare(recipe(task="classification"))
    tokens, paragraphs = int(task.train.columns["attention_mask"].sum()), len(task.train.columns["labels"])
    assert task.size.startswith(f"6 files, {tokens:,} tokens in {paragraphs} paragraphs to train on, ")
    assert task.size.endswith(" paragraphs held out")


def test_the_size_of_images_is_their_number(recipe: Make, tmp_path: Path) -> None:
    write_images(tmp_path)
    task = prepare(recipe(task="images", data=str(tmp_path), patch=14))
    assert task.size == "40 images to train on, 40 held out"


def test_one_thing_is_singular() -> None:
    assert (in_words(1, "file"), in_words(0, "file"), in_words(1024, "file")) == ("1 file", "0 files", "1,024 files")


def test_a_run_leaves_these_files(finished: Finished) -> None:
    assert sorted(p.name for p in finished.out.iterdir()) == [
        *(
            ".lock",
            "checkpoints",
            "curves.png",
            "curves.svg",
            "metrics.jsonl",
            "model",
            "outcome.json",
            "recipe.json",
            "report.md",
        ),
        *("tensorboard", "watch.jsonl"),
    ]
    assert list((finished.out / "tensorboard").iterdir())


def test_the_rate_grows_over_the_warmup(finished: Finished, recipe: Make) -> None:
    rates = [line["rate"] for line in read(finished.out / METRICS) if "rate" in line]
    assert rates == pytest.approx([0.002 * min(step / recipe().warmup, 1) for step in range(30)])


def test_the_report_has_data_settings_and_results(finished: Finished) -> None:
    report = (finished.out / "report.md").read_text(encoding="utf-8")
    loss = f"{finished.outcome.loss:.4f}"
    for part in ("sha256", "unigram entropy", "| `lr` | 0.002 |", "γ is 0.3536", "transformers", loss):
        assert part in report
    assert "`patch`" not in report  # it belongs to images


def test_the_report_has_the_rank_of_the_tokens(finished: Finished) -> None:
    report = (finished.out / "report.md").read_text(encoding="utf-8")
    first, last = (read(finished.out / WATCH)[i]["effective_rank"][-1] for i in (0, -1))
    assert f"effective rank of the tokens after the last block: {first:.3g} at step 1, {last:.3g} at step" in report


def test_a_finished_run_is_not_trained_again(finished: Finished, recipe: Make) -> None:
    messages: list[str] = []
    assert train(recipe(steps=30), finished.out, say=messages.append) == finished.outcome
    assert "is finished" in messages[0]
    assert len(losses(finished.out)) == 30


def test_a_run_leaves_random_generators_as_they_were(recipe: Make, tmp_path: Path) -> None:
    state, python, numpy = torch.random.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    train(recipe(steps=1), tmp_path)
    assert torch.random.get_rng_state().equal(state)
    assert random.getstate() == python
    np.testing.assert_equal(np.random.get_state(), numpy)  # noqa: NPY002


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
    fit(chosen, task, model, tmp_path)
    assert float(model.eval()(**batch).loss) < before - 0.1  # on held-out text; untrained, it stays to the digit


@pytest.mark.parametrize("task", ["masked-lm", "classification"])
def test_other_tasks_on_text_learn(task: str, recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(task=task, steps=40, batch=8, save=0), tmp_path)
    found = losses(tmp_path)
    assert np.mean([loss for _, loss in found[-5:]]) < found[0][1]
    assert (outcome.accuracy is None) == (task == "masked-lm")


def test_images_learn(recipe: Make, tmp_path: Path) -> None:
    write_images(tmp_path)
    chosen = recipe(task="images", data=str(tmp_path), patch=14, steps=80, batch=8, save=0)
    outcome = train(chosen, tmp_path / "out")
    found = losses(tmp_path / "out")
    assert np.mean([loss for _, loss in found[-5:]]) < found[0][1]
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.3  # guessing gives 0.1
    assert f"| {outcome.accuracy:.4f} |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model")


def test_held_out_windows_fill_whole_batches_and_do_not_overlap(recipe: Make) -> None:
    counts = {asked: len(prepare(recipe(held_out=asked)).held_out) for asked in (1, 7, 8, 10**9)}
    assert (counts[1], counts[7], counts[8]) == (4, 4, 8)
    text: Any = prepare(recipe()).held_out
    assert counts[10**9] % 4 == 0
    assert counts[10**9] * 16 <= len(text.stream)


def test_a_network_too_large_for_memory_leaves_nothing(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train(recipe(hidden=10**13), tmp_path / "out")  # 640 TB, more than there are addresses
    assert not (tmp_path / "out").exists()


def test_eras_need_paragraphs_on_both_sides(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "1790.txt").write_text("short", encoding="utf-8")
    (tmp_path / "1795.txt").write_text("a paragraph that is longer than a few tokens, " * 9, encoding="utf-8")
    with pytest.raises(st.InputError, match="data: no paragraph of 8 tokens or more"):
        train(recipe(task="classification", data=str(tmp_path)), tmp_path / "out")


def test_eras_need_years(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 50, encoding="utf-8")
    with pytest.raises(st.InputError, match="must begin with a year"):
        train(recipe(task="classification", data=str(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_train_expects_a_recipe(tmp_path: Path) -> None:
    name: Any = "quick.yaml"
    with pytest.raises(st.InputError, match=r"as training\.read returns it \(got str\)"):
        train(name, tmp_path)


def test_the_public_names_are_listed() -> None:
    assert {"read", "train", "Recipe"} <= set(dir(st.training))


def test_processes_must_divide_the_batch(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(st.InputError, match="batch: a multiple of the 3 processes"):
        train(recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.Trainer.save_model", full)
    with pytest.raises(st.StorageError, match=r"cannot write .*: No space left on device"):
        train(recipe(), tmp_path / "out")


def test_the_third_split_is_measured_once(recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(validation=8, evaluate=4), tmp_path)
    lines = [line for line in read(tmp_path / METRICS) if "validation_loss" in line]
    assert [(line["step"], line["validation_loss"]) for line in lines] == [(12, outcome.validation)]
    assert outcome.validation != outcome.loss
    assert f"validation loss: {outcome.validation:.4f}" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert train(recipe(validation=8, evaluate=4), tmp_path) == outcome
