"""Sweeps: every point is computed once despite interruptions, and its numbers do not depend on what computes it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr

import shaped_transformer as st
from shaped_transformer.analysis import sweeps
from shaped_transformer.analysis.sweeps import scheduling
from shaped_transformer.estimates import LEVELS

SPEC: dict[str, Any] = {
    "base": {"depth": 8, "width": 16, "samples": 64, "tokens": 4},
    "grid": {"gamma": [0.3, 0.6], "mask": ["full", "causal"], "seed": [0, 1]},
}


def store(folder: Path) -> xr.Dataset:
    return sweeps.load(folder)


def done(folder: Path) -> int:
    """Return the number of finished points, 0 before there is a store."""
    if not (folder / sweeps.STORE).exists():
        return 0
    return int((sweeps.Store(folder).status() == sweeps.DONE).sum())


def forget(folder: Path, index: tuple[int, ...]) -> None:
    """Mark a point as missing, as if the sweep had been interrupted before it."""
    group = zarr.open_group(str(folder / sweeps.STORE), mode="r+")
    for name, lost in (("status", sweeps.MISSING), ("mean_absolute_correlation", np.nan)):
        array: Any = group[name]
        array[index] = lost


def count_draws(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that gets an entry for each point that is computed from now on."""
    drawn: list[Any] = []
    draw = scheduling.draw_point

    def counted(*arguments: Any) -> Any:
        drawn.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(scheduling, "draw_point", counted)
    return drawn


def test_a_grid_is_stored_with_named_dimensions(tmp_path: Path) -> None:
    outcome = sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    assert (outcome.computed, outcome.done, outcome.failed) == (8, 0, ())
    data = store(tmp_path)
    assert data["mean_absolute_correlation"].dims == ("gamma", "mask", "seed", "quantile")
    assert (data["status"] == sweeps.DONE).all()


def test_the_numbers_of_a_point_are_those_of_its_chain(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    data = store(tmp_path)
    arch = st.shaped_transformer(16, 8, gamma=0.6, mask="causal")
    chain = st.chain.sample(arch, st.inputs.equicorrelated(4, 0.2), 64, 1, record=1, stop=(1e-4, 1e4))
    seen = data["effective_rank"].sel(gamma=0.6, mask="causal", seed=1)
    np.testing.assert_array_equal(seen, np.quantile(chain.effective_rank()[:, -1], LEVELS))
    assert float(data["stopped"].sel(gamma=0.6, mask="causal", seed=1, bound="value")) == np.mean(chain.stopped <= 8)


LIST: dict[str, Any] = {
    "base": SPEC["base"],
    "list": [{"gamma": 0.3}, {"gamma": 1.7}, {"preset": "deep_linear"}],
    "keep": ["mean_absolute_correlation"],
}


def test_a_failing_point_is_named_by_its_parameters(tmp_path: Path) -> None:
    outcome = sweeps.run(sweeps.from_dict(LIST), tmp_path)
    assert outcome.computed == 2
    assert [(f.point, f.label) for f in outcome.failed] == [({"gamma": 1.7}, "gamma=1.7")]


def test_a_failing_point_is_stored_with_its_error_and_the_others_are_computed(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(LIST), tmp_path)
    data = store(tmp_path)
    assert data["status"].to_numpy().tolist() == [sweeps.DONE, sweeps.FAILED, sweeps.DONE]
    assert "gamma" in str(data["error"].to_numpy()[1])
    assert np.isfinite(data["mean_absolute_correlation"].to_numpy()[[0, 2]]).all()


@pytest.fixture
def with_files(tmp_path: Path) -> Path:
    """Return a specification beside the two files of architectures that it names."""
    for name, arch in {"a.json": st.deep_linear(8, 3), "b.json": st.pre_norm_transformer(8, 3)}.items():
        (tmp_path / name).write_text(json.dumps(arch.to_dict()), encoding="utf-8")
    spec = {"base": {"samples": 64, "tokens": 3}, "grid": {"architecture": ["a.json", "b.json"], "seed": [0, 1]}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return tmp_path / "spec.yaml"


def test_an_architecture_from_a_file_is_an_axis_by_its_name(with_files: Path, tmp_path: Path) -> None:
    assert sweeps.run(sweeps.read(with_files), tmp_path / "out").computed == 4
    seen = store(tmp_path / "out")["mean_absolute_correlation"].sel(architecture="b.json", seed=1)
    chain = st.chain.sample(st.pre_norm_transformer(8, 3), st.inputs.equicorrelated(3, 0.2), 64, 1, stop=(1e-4, 1e4))
    rho = st.statistics.mean_absolute_correlation(chain.covariance[:, -1])
    np.testing.assert_array_equal(seen, np.quantile(rho, LEVELS))
    assert sweeps.run(sweeps.read(with_files), tmp_path / "out").done == 4


def test_a_changed_file_of_an_architecture_is_another_sweep(with_files: Path, tmp_path: Path) -> None:
    sweeps.run(sweeps.read(with_files), tmp_path / "out")
    (tmp_path / "b.json").write_text(json.dumps(st.deep_linear(8, 4).to_dict()), encoding="utf-8")
    with pytest.raises(st.InputError, match="holds another sweep"):
        sweeps.run(sweeps.read(with_files), tmp_path / "out")


def test_an_architecture_beside_its_own_parameters_is_refused(with_files: Path) -> None:
    with pytest.raises(st.InputError, match="architecture is a whole definition: leave out gamma"):
        sweeps.from_dict({"grid": {"architecture": ["a.json"], "gamma": [0.5]}}, with_files.parent)


def test_a_missing_file_of_an_architecture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match="cannot read"):
        sweeps.from_dict({"grid": {"architecture": ["none.json"]}}, tmp_path)


def test_only_missing_points_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweeps.from_dict(SPEC)
    sweeps.run(sweep, tmp_path)
    before = store(tmp_path)
    forget(tmp_path, (1, 0, 1))
    drawn = count_draws(monkeypatch)
    outcome = sweeps.run(sweep, tmp_path)
    assert (outcome.computed, outcome.done, len(drawn)) == (1, 7, 1)
    xr.testing.assert_identical(store(tmp_path), before)


def test_the_order_of_the_axes_does_not_matter(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    turned = SPEC | {"grid": dict(reversed(SPEC["grid"].items()))}
    before = store(tmp_path)["mean_absolute_correlation"]
    forget(tmp_path, (1, 0, 0))
    assert sweeps.run(sweeps.from_dict(turned), tmp_path).computed == 1
    xr.testing.assert_identical(store(tmp_path)["mean_absolute_correlation"], before)


def test_another_sweep_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    sweeps.run(sweeps.from_dict(SPEC), tmp_path)
    other = SPEC | {"base": SPEC["base"] | {"samples": 65}}
    with pytest.raises(st.InputError, match=r"base\.samples: 64 in the store, 65 now"):
        sweeps.run(sweeps.from_dict(other), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"gama": [1]}}, "unknown key 'gama'"),
        ({"grid": {"gamma": 0.3}}, "grid.gamma must be a list"),
        ({"grid": {"gamma": []}}, "grid.gamma must be a list"),
        ({"grid": {}}, "either grid"),
        ({"list": [{"gamma": 0.3}]}, "either grid"),
        ({"base": {"gamma": 0.3}}, "both base and grid"),
        ({"base": {"depth": [1, 2]}}, "base.depth must be one value"),
        ({"keep": ["rank"]}, "keep must be a list of names from"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_bad_specifications_name_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        sweeps.from_dict(SPEC | change)


@pytest.mark.parametrize("content", ["[1, 2", "- 1", "\t", ""])
def test_a_file_that_is_not_a_specification_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(content)
    with pytest.raises(st.InputError, match=r"YAML|mapping"):
        sweeps.read(tmp_path / "spec.yaml")


def test_a_missing_specification_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match="cannot read"):
        sweeps.read(tmp_path / "missing.yaml")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "shaped_transformer", *arguments]


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_ends_like_one_that_was_not_killed(tmp_path: Path) -> None:
    spec = {
        "base": SPEC["base"] | {"depth": 60, "samples": 3000},
        "grid": {"gamma": [0.3, 0.6], "seed": list(range(12))},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    sweeps.run(sweeps.from_dict(spec), whole)
    run = subprocess.Popen(command("sweep", str(tmp_path / "spec.yaml"), "--out", str(killed)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if done(killed) >= 3:
            break
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    finished = done(killed)
    assert 3 <= finished < 24
    outcome = sweeps.run(sweeps.from_dict(spec), killed)
    assert (outcome.done, outcome.computed) == (finished, 24 - finished)
    xr.testing.assert_identical(store(killed), store(whole))


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """Yield the address of a Dask scheduler, and the processes of its two workers."""
    address = folder / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [
        subprocess.Popen(
            [*dask, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)], **quiet
        )
    ]
    try:
        running += [
            subprocess.Popen(
                [*worker, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder / f"w{i}")], **quiet
            )
            for i in range(2)
        ]
        deadline = time.monotonic() + 60
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield json.loads(address.read_text())["address"], running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_cluster_that_loses_a_worker_loses_no_point(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    spec = {
        "base": SPEC["base"] | {"depth": 60, "samples": 4000},
        "grid": {"gamma": [0.3, 0.6], "seed": list(range(10))},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    sweeps.run(sweeps.from_dict(spec), tmp_path / "alone")
    with cluster(tmp_path) as (address, workers):
        arguments = ["sweep", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "cluster")]
        sweep = subprocess.Popen(command(*arguments, "--scheduler", address))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if done(tmp_path / "cluster") >= 2:
                break
            time.sleep(0.05)
        workers[0].kill()
        assert sweep.wait(timeout=120) == 0
    xr.testing.assert_identical(store(tmp_path / "cluster"), store(tmp_path / "alone"))
