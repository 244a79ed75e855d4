"""A finished run is continued with more steps, and a run starts from a saved model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import shaped_transformer as st
from shaped_transformer.training import train
from shaped_transformer.training.folder import Interrupted
from shaped_transformer.training.log import METRICS, read
from shaped_transformer.training.task import build, prepare

from .runs import Make, interrupt_after, losses, write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def finished(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(), out)
    return out


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def model_of(chosen: Any) -> Any:
    return build(chosen, prepare(chosen))


def test_a_finished_run_continues_as_if_it_had_been_longer(recipe: Make, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "longer")
    messages: list[str] = []
    outcome = train(recipe(steps=20), tmp_path / "longer", say=messages.append)
    whole = train(recipe(steps=20), tmp_path / "whole")
    assert "resuming after step 12" in messages
    assert (outcome.loss, outcome.steps) == (whole.loss, 20)
    assert losses(tmp_path / "longer") == losses(tmp_path / "whole")
    assert weights(tmp_path / "longer") == weights(tmp_path / "whole") != weights(finished)
    assert "| `steps` | 20 |" in (tmp_path / "longer" / "report.md").read_text(encoding="utf-8")
    assert [p.name for p in (tmp_path / "longer" / "checkpoints").iterdir()] == ["checkpoint-20"]


def test_an_interrupted_continuation_resumes(
    recipe: Make, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupt_after(17, patch)
        with pytest.raises(Interrupted, match="keeps the checkpoint of step 16"):
            train(recipe(steps=20), tmp_path / "run")
    with pytest.raises(st.InputError, match=r"steps is 12, was 20 \(a run cannot become shorter\)"):
        train(recipe(), tmp_path / "run")
    outcome = train(recipe(steps=20), tmp_path / "run")
    assert outcome.loss == train(recipe(steps=20), tmp_path / "whole").loss


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schedule": "cosine"}, "with schedule=cosine the learning rates depend on the number of steps"),
        ({"variant": "shaped-recover"}, "the gains of shaped-recover depend on the number of steps"),
        ({"save": 0}, "no checkpoint was kept"),
    ],
)
def test_a_run_that_cannot_become_longer_says_why(
    changes: dict[str, Any], problem: str, recipe: Make, tmp_path: Path
) -> None:
    outcome = train(recipe(steps=4, **changes), tmp_path)
    with pytest.raises(st.InputError, match=rf"steps is 8, was 4 \({problem}\)"):
        train(recipe(steps=8, **changes), tmp_path)
    assert train(recipe(steps=4, **changes), tmp_path) == outcome


@pytest.mark.parametrize("part", ["", "model"])
def test_a_run_starts_from_a_saved_model(part: str, recipe: Make, finished: Path) -> None:
    made = model_of(recipe(initial=str(finished / part), seed=5))
    saved = st.hf.ShapedTransformerForCausalLM.from_pretrained(finished / "model").state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in made.state_dict().items())


def test_a_run_that_starts_from_a_saved_model_goes_on_where_that_ended(
    run: Any, recipe: Make, finished: Path, tmp_path: Path
) -> None:
    file = write_recipe(recipe(evaluate=1, lr=1e-6), tmp_path / "r.yaml")
    code, out, err = run("train", str(file), "--from", str(finished), "--out", "more", "--json")
    assert code == 0, err
    ended = [line["held_out_loss"] for line in read(finished / METRICS) if "held_out_loss" in line][-1]
    assert json.loads(out)["loss"] == pytest.approx(ended, abs=0.01)
    assert "| `initial` |" in Path("more", "report.md").read_text(encoding="utf-8")


def test_the_saved_tokenizer_reads_other_texts(recipe: Make, finished: Path, tmp_path: Path) -> None:
    for year in (1790, 1795):
        (tmp_path / f"{year}-other.txt").write_text("it was the age of wisdom " * 40, encoding="utf-8")
    ours = prepare(recipe(data=str(tmp_path), initial=str(finished))).processor
    assert ours.get_vocab() == prepare(recipe()).processor.get_vocab()
    assert ours.get_vocab() != prepare(recipe(data=str(tmp_path))).processor.get_vocab()


def test_another_task_keeps_the_body_and_starts_a_new_head(recipe: Make, finished: Path) -> None:
    chosen = recipe(task="classification", initial=str(finished), seed=3)
    one, two = (model_of(chosen).state_dict() for _ in range(2))
    saved = st.hf.ShapedTransformerForCausalLM.from_pretrained(finished / "model").state_dict()
    shared = [name for name in one if name in saved]
    assert len(shared) > 10
    assert all(torch.equal(one[name], saved[name]) for name in shared)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_model_to_start_from_is_refused(recipe: Make, finished: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(finished, start)
    outcome = train(recipe(initial=str(start), steps=2), tmp_path / "run")
    shutil.move(start, tmp_path / "moved")
    assert train(recipe(initial=str(tmp_path / "moved"), steps=2), tmp_path / "run") == outcome
    train(recipe(steps=16), tmp_path / "moved")
    with pytest.raises(st.InputError, match="the model to start from has changed"):
        train(recipe(initial=str(tmp_path / "moved"), steps=2), tmp_path / "run")


def test_a_model_of_other_sizes_is_refused_with_the_differences(recipe: Make, finished: Path, tmp_path: Path) -> None:
    wrong = recipe(initial=str(finished), width=32, depth=3, gamma=0.2)
    with pytest.raises(st.InputError, match=r"is another network: .*width is 32, was 16; .*depth is 3, was 2"):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_model_is_an_error(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match=r"holds no saved model .*give the folder of a finished run"):
        prepare(recipe(initial=str(tmp_path)))


def test_a_model_of_another_kind_is_refused(recipe: Make, finished: Path, tmp_path: Path) -> None:
    small = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(small).save_pretrained(tmp_path)
    shutil.copy(finished / "model" / "tokenizer.json", tmp_path)
    with pytest.raises(st.InputError, match="holds a model of type gpt2"):
        model_of(recipe(initial=str(tmp_path)))


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_damaged_model_is_an_error(file: str, recipe: Make, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    (tmp_path / "model" / file).write_bytes(b"{cut")
    with pytest.raises(st.StorageError, match=r"damaged|cannot be read"):
        model_of(recipe(initial=str(tmp_path)))


def test_a_foreign_tokenizer_is_refused(recipe: Make, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<mask>", "<hole>"), encoding="utf-8")
    with pytest.raises(st.InputError, match="is not one that training makes"):
        prepare(recipe(initial=str(tmp_path)))
