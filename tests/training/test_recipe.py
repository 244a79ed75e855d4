"""Recipes: those that come with the library, and what is said of bad ones."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import shaped_transformer as st
from shaped_transformer.cli.figure import parsed
from shaped_transformer.training import VARIANTS, Recipe, read
from shaped_transformer.training.recipe import packaged
from shaped_transformer.training.text import read_text


@pytest.mark.parametrize("name", packaged())
def test_packaged_recipes_are_recipes(name: str) -> None:
    assert read(name) == read(name.removesuffix(".yaml"))
    assert st.training.Recipe.from_dict(read(name).to_dict()) == read(name)


def test_the_page_lists_every_key_with_its_default_and_a_recipe(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for keys, defaults in re.findall(r"^\| (`[^|]+`) \|[^|]+\| ([^|]+) \|$", page, flags=re.MULTILINE):
        names = re.findall(r"`(\w+)`", keys)
        told |= dict(zip(names, defaults.split(", "), strict=False))
    for field in fields(Recipe):
        assert field.name in told
        if isinstance(field.default, int | float):
            assert told[field.name] == f"{field.default:g}", field.name
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(example, encoding="utf-8")
    assert read(tmp_path / "mine.yaml").data == str(tmp_path / "my-texts")


def test_every_task_has_a_recipe() -> None:
    assert {read(name).task for name in packaged()} == {"causal-lm", "masked-lm", "classification", "images"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "no key 'stepz': choose from task, variant"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1"),
        ({"steps": "many"}, "steps: a number is expected"),
        ({"steps": 2.5}, "steps"),
        ({"save": 1.5}, "save: input should be a valid integer"),
        ({"save": -1}, "save: input should be greater than or equal to 0"),
        ({"task": "translation"}, "task: input should be 'causal-lm'"),
        ({"variant": "sharpened"}, "variant: expected one of shaped-fixed"),
        ({"heads": 3}, "heads: width / heads must be an even whole number"),
        ({"gamma": 1.5}, "gamma: a number in"),
        ({"gamma": 0.5, "variant": "post-norm"}, "gamma: the variant post-norm has none"),
        ({"masking": 1.0}, "masking: a share below 1"),
        ({"lr": -1}, "lr: input should be greater than 0"),
        ({"lr": float("nan")}, "lr: input should be a finite number"),
        ({"vocabulary": 100}, "vocabulary: at least 259"),
        ({"task": "images", "patch": 5}, "patch: a divisor of 28"),
        ({"spike": 1}, "spike: input should be greater than 1"),
    ],
)
def test_bad_recipes_name_the_key(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"task": "causal-lm"} | values), encoding="utf-8")
    with pytest.raises(st.ShapedTransformerError, match=message) as error:
        read(file)
    assert "\n" not in str(error.value)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    for name in ("none.yaml", "quick.yml", "folder/quick.yaml"):
        with pytest.raises(st.StorageError, match=rf"no recipe {name}: .*quick\.yaml"):
            read(name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(st.StorageError, match=r"no recipe .*folder: "):
        read(tmp_path / "folder")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(st.InputError, match="must be a mapping"):
        read(tmp_path / "list.yaml")
    (tmp_path / "cut.yaml").write_text("a: [1,\n", encoding="utf-8")
    with pytest.raises(st.InputError, match="is not YAML"):
        read(tmp_path / "cut.yaml")
    (tmp_path / "empty.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(st.DefinitionError, match="task is missing"):
        read(tmp_path / "empty.yaml")


def test_changes_replace_values_and_1e3_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("task: causal-lm\nlr: 2e-3\n", encoding="utf-8")  # text to YAML 1.1
    assert read(file).lr == 2e-3
    assert read(file, parsed(["lr=1e-3", "steps=7"])).steps == 7
    assert read(file, parsed(["steps=1e3", "save=1e2"])).save == 100


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("task: causal-lm\nlr: 2e-3\nlr: 1e-3\n", encoding="utf-8")
    with pytest.raises(st.InputError, match="line 3: the key 'lr' stands twice"):
        read(file)


def test_data_lie_beside_the_recipe_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "recipes" / "texts"
    texts.mkdir(parents=True)
    (texts / "a.txt").write_text("A first text.\n\nA second paragraph of it.\n", encoding="utf-8")
    file = tmp_path / "recipes" / "r.yaml"
    file.write_text("task: causal-lm\ndata: texts\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Path(str(read("recipes/r.yaml").data)).resolve() == texts
    assert read_text(read("recipes/r.yaml").data).source.endswith("texts")
    assert read(file, {"data": "elsewhere"}).data == "elsewhere"


def test_gamma_keeps_the_noise_at_all_depths() -> None:
    assert Recipe(task="causal-lm", depth=100).branch_scale == pytest.approx(0.05)
    assert Recipe(task="causal-lm", depth=4).branch_scale == pytest.approx(0.25)
    assert Recipe(task="causal-lm", depth=1, gamma=0.9).branch_scale == 0.9


def test_variants_hold_what_was_asked_for() -> None:
    shaped = {f"shaped-{mode}{norm}" for mode in ("fixed", "learn", "recover") for norm in ("", "-pre")}
    assert shaped | {"pre-norm", "post-norm", "skipless", "unit-skips", "value-skipinit"} <= set(VARIANTS)
