"""`shaped-transformer train`."""

import json
from pathlib import Path
from typing import Any

import pytest

from .runs import Make, write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_command_trains_and_prints_the_outcome(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = write_recipe(recipe(), tmp_path / "r.yaml")
    code, out, err = run("train", str(file), "--set", "steps=5", "--out", "made", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 5
    assert "Written to made: report.md" in err


def test_a_wrong_key_is_one_line_and_writes_nothing(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = write_recipe(recipe(), tmp_path / "r.yaml")
    code, _, err = run("train", str(file), "--set", "stepz=5", "--out", "bad")
    assert (code, err.count("\n")) == (2, 1)
    assert "no key 'stepz'" in err
    assert not Path("bad").exists()


def test_divergence_is_one_line(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = write_recipe(recipe(), tmp_path / "r.yaml")
    code, _, err = run("train", str(file), "--set", "lr=3e6", "--set", "warmup=0", "--set", "steps=60", "--out", "nan")
    assert (code, err.count("\n")) == (2, 1), err
    assert "diverged at step" in err


def test_the_quick_recipe_learns_from_real_text(run: Any) -> None:
    code, out, err = run("train", "quick.yaml", "--set", "steps=20", "--set", "evaluate=10", "--out", "made", "--json")
    assert code == 0, err
    assert json.loads(out)["loss"] < 6.6  # a uniform guess costs log 1024 = 6.93
