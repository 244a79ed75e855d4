"""Specifications of sweeps: numbers as 1e3, files relative to the one that names them, errors before any sampling."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import shaped_transformer as st
from shaped_transformer.analysis import sweeps

BASE: dict[str, Any] = {"depth": 4, "width": 16, "samples": 16, "tokens": 3}


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(text, encoding="utf-8")
    return folder / "spec.yaml"


def test_a_number_may_be_written_as_1e3(tmp_path: Path) -> None:
    sweep = sweeps.read(
        write(tmp_path, "base: {samples: 1e3, tau0: 5e-1}\ngrid: {gamma: [1e-1, 2.5E-1], width: [1e2]}")
    )
    assert sweep.base == {"samples": 1000, "tau0": 0.5}
    assert sweep.axes == {"gamma": (0.1, 0.25), "width": (100,)}
    assert sweep.point((0, 0)).samples == 1000


def test_a_key_that_appears_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.InputError, match=r"spec.yaml is not YAML: line 3: the key 'gamma' appears twice"):
        sweeps.read(write(tmp_path, "grid:\n  gamma: [0.1]\n  gamma: [0.2]\n"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"grid": {"gamma": [0.1, 0.2, 0.1]}}, "grid.gamma has 0.1 twice"),
        ({"list": [{"gamma": 0.1}, {"gamma": 0.1}]}, r"list\[1\] appears twice"),
        ({"grid": {"architecture": [{"a": 1}]}}, "architecture must name a JSON file"),
        ({"grid": {"text": [3]}}, "text must name a file"),
    ],
)
def test_a_wrong_value_is_named(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        sweeps.from_dict(spec)


@pytest.fixture
def with_text(tmp_path: Path) -> Path:
    """Return a specification in a folder of its own, beside the text that it names, `my.txt`."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "my.txt").write_text("the cat saw the dog", encoding="utf-8")
    return write(tmp_path / "specs", yaml.safe_dump({"base": BASE | {"text": "my.txt"}, "grid": {"gamma": [0.3]}}))


def test_a_text_is_found_beside_the_file_that_names_it(
    with_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweeps.read(with_text)
    expected = st.inputs.from_text(with_text.with_name("my.txt"), max_tokens=3)
    np.testing.assert_array_equal(sweep.point((0,)).v0, expected)
    assert sweeps.run(sweep, tmp_path / "out").computed == 1


def test_a_specification_contains_no_absolute_path(with_text: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(sweeps.read(with_text).to_dict())


def test_a_changed_text_is_another_sweep(with_text: Path, tmp_path: Path) -> None:
    sweeps.run(sweeps.read(with_text), tmp_path / "out")
    with_text.with_name("my.txt").write_text("the dog saw the cat", encoding="utf-8")
    with pytest.raises(st.InputError, match=r"holds another sweep \(base.text"):
        sweeps.run(sweeps.read(with_text), tmp_path / "out")


def test_a_missing_text_is_an_error(with_text: Path) -> None:
    with_text.with_name("my.txt").unlink()
    with pytest.raises(st.StorageError, match=r"cannot read .*my\.txt"):
        sweeps.read(with_text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": 1.7}, "gamma"),
        ({"view": "chian"}, "unknown view 'chian'"),
        ({"preset": "shaped"}, "unknown preset 'shaped'"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"tokens": 17}, "rank 17"),
        ({"samples": 10**12}, "ask for fewer samples"),
        ({"view": "sde", "preset": "pre_norm_transformer"}, "no proportional limit"),
        ({"mask": [[1]]}, "the mask is for 1 token"),
    ],
)
def test_an_error_in_base_is_reported_before_any_sampling(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    sweep = sweeps.from_dict({"base": BASE | wrong, "grid": {"correlation": [0.1, 0.2]}})
    with pytest.raises(
        st.InputError, match=rf"no point of the sweep can be drawn\. The first, correlation=0\.1: .*{message}"
    ):
        sweeps.run(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()
