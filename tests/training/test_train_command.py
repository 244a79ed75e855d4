"""`shaped-transformer train`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shaped_transformer.training.recipe import describe_recipes
from shaped_transformer.training.variants import VARIANTS

from .runs import Make, interrupt_after, write_recipe

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


def test_divergence_is_one_line_after_the_size(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = write_recipe(recipe(), tmp_path / "r.yaml")
    code, _, err = run("train", str(file), "--set", "lr=3e6", "--set", "warmup=0", "--set", "steps=60", "--out", "nan")
    size, message = err.splitlines()
    assert code == 2
    assert size.endswith("parameters")
    assert "diverged at step" in message


@pytest.mark.slow
def test_the_quick_recipe_learns_from_real_text(run: Any) -> None:
    code, out, err = run("train", "quick.yaml", "--set", "steps=20", "--set", "evaluate=10", "--out", "made", "--json")
    assert code == 0, err
    assert json.loads(out)["loss"] < 6.6  # a uniform guess costs log 1024 = 6.93


def test_the_folder_is_named_after_the_recipe(run: Any, recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    write_recipe(recipe(), tmp_path / "recipes" / "my.first.yaml")
    code, _, err = run("train", "recipes/my.first.yaml", "--set", "steps=2")
    assert code == 0, err
    assert "Written to runs/my.first: report.md" in err
    assert (tmp_path / "runs" / "my.first" / "report.md").exists()


def test_an_interrupt_says_what_is_kept(
    run: Any, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_recipe(recipe(), tmp_path / "r.yaml")
    interrupt_after(9, monkeypatch)
    code, _, err = run("train", str(file))
    assert code == 130
    assert err.splitlines()[-1] == (
        "shaped-transformer: interrupted; runs/r keeps the checkpoint of step 8, from which the same command resumes"
    )


def test_the_help_lists_recipes_and_variants_in_one_line_each(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("train", "--help")
    assert code == 0
    summaries = describe_recipes() | {name: variant.summary for name, variant in VARIANTS.items()}
    for name, summary in summaries.items():
        assert re.search(rf"^ *{re.escape(name)} +{re.escape(summary)} *$", out, flags=re.MULTILINE), name
    assert "(default: shaped-learn)" in out
    assert "such as runs/quick" in out


WITHOUT = """
import sys
from importlib import util
_, missing, *arguments = sys.argv
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == missing else find(name, *rest)
sys.argv = ["shaped-transformer", "train", *arguments]
from shaped_transformer.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def run_without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`shaped-transformer train` in a process that does not find a package; it fails if it imports PyTorch."""
    command = [sys.executable, "-c", WITHOUT, package, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_help_does_not_import_torch() -> None:
    done = run_without("nothing", "--help")
    assert done.returncode == 0, done.stderr
    assert "quick.yaml" in done.stdout


def test_without_the_extra_the_help_names_it() -> None:
    done = run_without("torch", "--help")
    assert done.returncode == 0, done.stderr
    assert 'needs the extra "training"' in " ".join(done.stdout.split())
    assert "--set" in done.stdout


def test_without_the_extra_the_command_says_how_to_install_it() -> None:
    done = run_without("torch", "quick.yaml")
    assert done.returncode == 2
    assert "pip install 'shaped-transformer[training]'" in done.stderr
    assert done.stderr.count("\n") == 1
