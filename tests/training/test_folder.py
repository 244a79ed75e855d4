"""The folder of a run: it belongs to one recipe and one process."""

import json
import shutil
from pathlib import Path

import pytest

import shaped_transformer as st
from shaped_transformer.io.lock import locked
from shaped_transformer.training import train

from .runs import Make, losses

pytestmark = pytest.mark.filterwarnings("ignore")


def test_another_recipe_is_refused_with_the_differences(recipe: Make, tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    with pytest.raises(st.InputError, match=r"lr is 0\.003, was 0\.002; steps is 14, was 12\. Choose another folder"):
        train(recipe(steps=14, lr=3e-3), tmp_path)


def test_a_damaged_recipe_in_the_folder_is_an_error(recipe: Make, tmp_path: Path) -> None:
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


def test_a_missing_report_is_written_again(recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(save=0), tmp_path)
    (tmp_path / "report.md").unlink()
    assert train(recipe(save=0), tmp_path) == outcome
    assert f"{outcome.loss:.4f}" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_run_whose_model_is_missing_is_trained_again(recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(save=0), tmp_path)
    shutil.rmtree(tmp_path / "model")
    again = train(recipe(save=0), tmp_path)
    assert again.loss == outcome.loss
    assert (tmp_path / "model").is_dir()
    assert len(losses(tmp_path)) == 12


def test_a_run_from_before_a_key_existed_is_known(recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(), tmp_path)
    file = tmp_path / "recipe.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    del found["recipe"]["validation"], found["recipe"]["initial"], found["initial"]
    file.write_text(json.dumps(found), encoding="utf-8")
    assert train(recipe(), tmp_path) == outcome
