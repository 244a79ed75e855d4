"""The store of a sweep: one writer, one version, growth with the axes, and refusal of other stores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import shaped_transformer as st
from analysis.test_sweeps import SPEC, count_draws, store
from shaped_transformer.analysis import sweeps
from shaped_transformer.analysis.sweeps import scheduling
from shaped_transformer.analysis.sweeps.points import check_points
from shaped_transformer.io.lock import locked

BASE = SPEC["base"]


def test_values_added_to_an_axis_extend_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path / "grown")
    larger = SPEC | {"grid": {"gamma": [0.1, 0.3, 0.5, 0.6], "mask": ["causal", "full"], "seed": [0, 1, 2]}}
    drawn = count_draws(monkeypatch)
    outcome = sweeps.run(sweeps.from_dict(larger), tmp_path / "grown")
    assert (outcome.computed, outcome.done, len(drawn)) == (16, 8, 16)
    sweeps.run(sweeps.from_dict(larger), tmp_path / "whole")
    grown, whole = store(tmp_path / "grown"), store(tmp_path / "whole")
    xr.testing.assert_equal(grown.sel(mask=whole["mask"]), whole)
    assert grown["gamma"].to_numpy().tolist() == [0.1, 0.3, 0.5, 0.6]


def test_points_added_to_a_list_extend_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps.run(sweeps.from_dict({"base": BASE, "list": [{"gamma": 0.3}, {"gamma": 1.7}]}), tmp_path)
    before = store(tmp_path)
    drawn = count_draws(monkeypatch)
    larger = {"base": BASE, "list": [{"preset": "deep_linear"}, {"gamma": 1.7}, {"gamma": 0.3}]}
    outcome = sweeps.run(sweeps.from_dict(larger), tmp_path)
    assert (outcome.computed, outcome.done, len(drawn)) == (1, 1, 1)
    name = "mean_absolute_correlation"
    np.testing.assert_array_equal(store(tmp_path)[name][2], before[name][0])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (SPEC["grid"] | {"gamma": [0.3, 0.7]}, r"grid\.gamma: \[0\.6\] in the store, missing now"),
        (
            {"gamma": [0.3, 0.6], "mask": ["full", "causal"]},
            "grid: gamma, mask, seed in the store, gamma, mask now",
        ),
    ],
    ids=["value", "axis"],
)
def test_a_value_or_axis_that_is_removed_is_refused_with_the_difference(
    grid: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    before = store(tmp_path)
    with pytest.raises(st.InputError, match=message):
        sweeps.run(sweeps.from_dict(SPEC | {"grid": grid}), tmp_path)
    xr.testing.assert_identical(store(tmp_path), before)


def test_a_store_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    sweep = sweeps.from_dict(SPEC)
    with locked(tmp_path), pytest.raises(st.InputError, match="is in use by another process"):
        sweeps.run(sweep, tmp_path)
    assert sweeps.run(sweep, tmp_path).computed == 8


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    zarr.open_group(str(tmp_path / sweeps.STORE), mode="r+").attrs["version"] = "0.0.0"
    with pytest.raises(st.InputError, match=r"was drawn by version 0\.0\.0, but this is .* choose another folder"):
        sweeps.run(sweeps.from_dict(SPEC), tmp_path)


def test_a_store_that_another_process_extends_meanwhile_is_refused_and_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    larger = [SPEC | {"grid": SPEC["grid"] | {"gamma": [*gammas, 0.3, 0.6]}} for gammas in ([0.1], [0.2, 0.1])]

    def meanwhile(sweep: sweeps.Sweep) -> Any:
        monkeypatch.setattr(scheduling, "check_points", check_points)
        sweeps.run(sweeps.from_dict(larger[0]), tmp_path)
        sweeps.run(sweeps.from_dict(larger[1] | {"grid": dict(reversed(larger[1]["grid"].items()))}), tmp_path)
        return check_points(sweep)

    monkeypatch.setattr(scheduling, "check_points", meanwhile)
    mine = SPEC | {"grid": SPEC["grid"] | {"gamma": [0.6, 0.3, 0.1, 0.2]}}
    with pytest.raises(st.InputError, match="was changed by another process"):
        sweeps.run(sweeps.from_dict(mine), tmp_path)
    assert (store(tmp_path)["status"] == sweeps.DONE).all()


def test_a_finished_point_that_this_machine_could_not_compute_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    point = sweeps.Sweep.point

    def refused(self: sweeps.Sweep, index: tuple[int, ...]) -> Any:
        if index[0] == 0:
            raise st.InputError("this machine is too small")
        return point(self, index)

    monkeypatch.setattr(sweeps.Sweep, "point", refused)
    assert sweeps.run(sweeps.from_dict(SPEC), tmp_path).done == 8
    larger = SPEC | {"grid": SPEC["grid"] | {"seed": [0, 1, 2]}}
    outcome = sweeps.run(sweeps.from_dict(larger), tmp_path)
    assert (outcome.computed, outcome.done, len(outcome.failed)) == (2, 8, 2)


@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_does_not_answer_leaves_no_store(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(st.InputError, match="no Dask scheduler answers at"):
        sweeps.run(sweeps.from_dict(SPEC), tmp_path, scheduler="nonsense://127.0.0.1:1")
    assert not (tmp_path / sweeps.STORE).exists()
    other = SPEC | {"base": BASE | {"samples": 65}}
    assert sweeps.run(sweeps.from_dict(other), tmp_path).computed == 8


def test_a_finished_sweep_needs_no_scheduler(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    assert sweeps.run(sweeps.from_dict(SPEC), tmp_path, scheduler="nonsense://127.0.0.1:1").done == 8


def test_a_store_that_is_not_of_a_sweep_is_not_changed(tmp_path: Path) -> None:
    e = st.chain.sample(st.deep_linear(8, 2), np.eye(2), 4, seed=0)
    e.save(tmp_path / sweeps.STORE)
    with pytest.raises(st.InputError, match="is not the store of a sweep"):
        sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    assert st.Ensemble.load(tmp_path / sweeps.STORE).samples == 4


def test_a_damaged_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / sweeps.STORE).mkdir()
    with pytest.raises(st.StorageError, match="cannot be read as a zarr store"):
        sweeps.run(sweeps.from_dict(SPEC), tmp_path)


def test_a_point_that_fails_while_it_is_computed_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(point: Any, *_: Any) -> Any:
        raise MemoryError(f"no room for\n{point.seed}")

    monkeypatch.setattr(scheduling, "draw_point", fail)
    outcome = sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    assert (outcome.computed, outcome.done, len(outcome.failed)) == (0, 0, 8)
    assert outcome.failed[0].label == "gamma=0.3, mask=full, seed=0"
    assert outcome.failed[0].error == "MemoryError: no room for 0"
    assert json.loads(store(tmp_path).attrs["specification"])["keep"] == list(sweeps.KEPT)
