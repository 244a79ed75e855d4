"""Recipes: those that come with the library, and the errors of bad ones."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import shaped_transformer as st
from shaped_transformer.cli.options import parse_settings
from shaped_transformer.training import VARIANTS, Recipe, read
from shaped_transformer.training.recipe import describe_recipes, packaged_recipes
from shaped_transformer.training.text import read_text

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_can_be_read(name: str) -> None:
    assert read(name) == read(name.removesuffix(".yaml"))
    assert st.training.Recipe.from_dict(read(name).to_dict()) == read(name)


def test_the_page_lists_every_key_with_its_default() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented: dict[str, str] = {}
    for keys, defaults in re.findall(r"^\| (`[^|]+`) \|[^|]+\| ([^|]+) \|$", page, flags=re.MULTILINE):
        names = re.findall(r"`(\w+)`", keys)
        documented |= dict(zip(names, defaults.split(", "), strict=False))
    for field in fields(Recipe):
        assert field.name in documented
        if isinstance(field.default, int | float):
            assert documented[field.name] == f"{field.default:g}", field.name


def test_the_example_of_the_page_can_be_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(example, encoding="utf-8")
    assert read(tmp_path / "mine.yaml").data == str(tmp_path / "my-texts")


def test_every_packaged_recipe_is_described() -> None:
    described = describe_recipes()
    assert list(described) == packaged_recipes()
    assert described["quick.yaml"].startswith("causal language model")
    assert not [text for text in described.values() if text.startswith("#") or ":" in text[:6]]


def test_every_task_has_a_recipe() -> None:
    assert {read(name).task for name in packaged_recipes()} == {"causal-lm", "masked-lm", "classification", "images"}


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
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"task": "causal-lm"} | values), encoding="utf-8")
    with pytest.raises(st.ShapedTransformerError, match=message) as error:
        read(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.yaml", "quick.yml", "folder/quick.yaml"])
def test_a_missing_recipe_lists_the_packaged_ones(name: str) -> None:
    with pytest.raises(st.StorageError, match=rf"unknown recipe {name}: .*quick\.yaml"):
        read(name)


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(st.StorageError, match=r"unknown recipe .*folder: "):
        read(tmp_path / "folder")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("- 1\n", st.InputError, "must be a mapping"),
        ("a: [1,\n", st.InputError, "is not YAML"),
        ("{}", st.DefinitionError, "task is missing"),
    ],
)
def test_a_file_without_a_recipe_is_an_error(content: str, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        read(tmp_path / "r.yaml")


def test_changes_replace_values_and_1e3_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("task: causal-lm\nlr: 2e-3\n", encoding="utf-8")  # text to YAML 1.1
    assert read(file).lr == 2e-3
    assert read(file, parse_settings(["lr=1e-3", "steps=7"])).steps == 7
    assert read(file, parse_settings(["steps=1e3", "save=1e2"])).save == 100


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("task: causal-lm\nlr: 2e-3\nlr: 1e-3\n", encoding="utf-8")
    with pytest.raises(st.InputError, match="line 3: the key 'lr' appears twice"):
        read(file)


def test_the_data_folder_is_relative_to_the_recipe_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "recipes" / "texts"
    texts.mkdir(parents=True)
    (texts / "a.txt").write_text("A first text.\n\nA second paragraph of it.\n", encoding="utf-8")
    file = tmp_path / "recipes" / "r.yaml"
    file.write_text("task: causal-lm\ndata: texts\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Path(str(read("recipes/r.yaml").data)).resolve() == texts
    assert read_text(read("recipes/r.yaml").data).source.endswith("texts")
    assert read(file, {"data": "elsewhere"}).data == "elsewhere"


def test_gamma_defaults_to_the_same_noise_at_all_depths() -> None:
    assert Recipe(task="causal-lm", depth=100).branch_scale == pytest.approx(0.05)
    assert Recipe(task="causal-lm", depth=4).branch_scale == pytest.approx(0.25)
    assert Recipe(task="causal-lm", depth=1, gamma=0.9).branch_scale == 0.9


def test_the_shaped_variants_and_the_baselines_exist() -> None:
    shaped = {f"shaped-{mode}{norm}" for mode in ("fixed", "learn", "recover") for norm in ("", "-pre")}
    assert shaped | {"pre-norm", "post-norm", "skipless", "unit-skips", "value-skipinit"} <= set(VARIANTS)
