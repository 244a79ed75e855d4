"""Ensembles: their statistics, conversion to xarray, and storage with everything needed to draw them again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import shaped_transformer as st
from shaped_transformer.analysis.comparison import compare
from shaped_transformer.analysis.sweeps import Store, from_dict

ARCH = st.shaped_transformer(32, 8)
V0 = st.inputs.equicorrelated(4, 0.3)


@pytest.fixture(scope="module")
def ensemble() -> st.Ensemble:
    return st.chain.sample(ARCH, V0, samples=300, seed=5)


def test_correlation_and_norm_start_at_those_of_the_input(ensemble: st.Ensemble) -> None:
    np.testing.assert_allclose(ensemble.correlation()[:, 0, 0, 1], 0.3)
    np.testing.assert_allclose(ensemble.mean_token_norm()[:, 0], 1)


def test_effective_rank_is_the_exponential_of_the_entropy(ensemble: st.Ensemble) -> None:
    p = np.array([1.9, 0.7, 0.7, 0.7]) / 4
    np.testing.assert_allclose(ensemble.effective_rank()[:, 0], np.exp(-np.sum(p * np.log(p))))


def test_log_determinant_is_that_of_the_covariance(ensemble: st.Ensemble) -> None:
    np.testing.assert_allclose(ensemble.log_determinant()[:, 0], np.linalg.slogdet(V0)[1])
    sign, log_det = np.linalg.slogdet(ensemble.covariance)
    assert (sign == 1).all()
    np.testing.assert_allclose(ensemble.log_determinant(), log_det, atol=1e-8)


def test_quantiles_are_over_the_samples_at_each_record(ensemble: st.Ensemble) -> None:
    found = ensemble.quantiles("effective_rank", (0.05, 0.5))
    assert found.value.shape == (2, len(ensemble.depth))
    np.testing.assert_allclose(found.value[1], np.median(ensemble.effective_rank(), axis=0))
    assert ensemble.quantiles("correlation").value.shape == (3, len(ensemble.depth), 4, 4)


def test_intervals_of_quantiles_are_those_of_the_bootstrap(ensemble: st.Ensemble) -> None:
    from scipy.stats import bootstrap

    found = ensemble.quantiles("effective_rank", (0.05, 0.5))
    last = ensemble.effective_rank()[:, -1]
    resampled = bootstrap(
        (last,), lambda x, axis: np.quantile(x, 0.5, axis=axis), method="percentile", random_state=0, n_resamples=20_000
    ).confidence_interval
    spread = resampled.high - resampled.low
    np.testing.assert_allclose([found.low[1, -1], found.high[1, -1]], resampled, atol=0.1 * spread)


def test_an_unknown_statistic_is_refused(ensemble: st.Ensemble) -> None:
    with pytest.raises(st.InputError, match="statistic must be one of"):
        ensemble.quantiles("kurtosis")


def test_intervals_cover_the_true_value_as_often_as_stated() -> None:
    draws = np.random.default_rng(1).standard_normal((200, 2000))
    found = st.statistics.quantiles(draws, (0.5,), confidence=0.9)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    assert abs(covered - 0.9) < 0.03


def test_to_xarray_names_its_dimensions(ensemble: st.Ensemble) -> None:
    data = ensemble.to_xarray()
    assert data["covariance"].dims == ("sample", "record", "token", "other_token")
    np.testing.assert_allclose(data["time"], ensemble.depth / 32)


@pytest.fixture(scope="module")
def stored(ensemble: st.Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store to which the ensemble was saved twice."""
    place = tmp_path_factory.mktemp("parent") / "folder" / "ensemble.zarr"
    ensemble.save(place)
    ensemble.save(place)
    return place


def test_a_loaded_ensemble_has_the_arrays_that_were_saved(ensemble: st.Ensemble, stored: Path) -> None:
    again = st.Ensemble.load(stored)
    for name in ("covariance", "eigenvalues", "depth", "stopped", "initial"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ensemble, name))


def test_a_loaded_ensemble_names_its_architecture_seed_version_and_command(stored: Path) -> None:
    again = st.Ensemble.load(stored)
    assert again.architecture == ARCH
    assert again.seed == 5
    assert again.version == st.__version__
    assert again.command


def test_a_loaded_ensemble_can_be_drawn_again(ensemble: st.Ensemble, stored: Path) -> None:
    again = st.Ensemble.load(stored)
    redrawn = st.chain.sample(again.architecture, again.initial, again.samples, again.seed, stop=again.settings["stop"])
    np.testing.assert_array_equal(redrawn.covariance, ensemble.covariance)


def test_saving_leaves_no_other_file(stored: Path) -> None:
    assert [p.name for p in stored.parent.iterdir()] == ["ensemble.zarr"]


@pytest.fixture
def empty_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("", encoding="utf-8")
    return tmp_path / "file"


def test_a_missing_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match="no such store"):
        st.Ensemble.load(tmp_path / "nowhere")


def test_a_file_in_place_of_a_store_is_an_error(empty_file: Path) -> None:
    with pytest.raises(st.StorageError, match="cannot be read as a zarr store"):
        st.Ensemble.load(empty_file)


def test_saving_below_a_file_is_an_error(ensemble: st.Ensemble, empty_file: Path) -> None:
    with pytest.raises(st.StorageError, match="cannot write"):
        ensemble.save(empty_file / "below")


def test_a_store_of_something_else_is_an_error(tmp_path: Path) -> None:
    xr.Dataset({"x": 1}).to_zarr(tmp_path / "other", zarr_format=2)
    with pytest.raises(st.InputError, match="not an ensemble"):
        st.Ensemble.load(tmp_path / "other")


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "chapter.txt").write_text("keep", encoding="utf-8")


def a_dataset(place: Path) -> None:
    xr.Dataset({"x": ("t", [1.0])}, attrs={"view": "of the sea"}).to_zarr(place, zarr_format=2)


def a_sweep(place: Path) -> None:
    Store.open(place.parent, from_dict({"base": {"width": 8}, "grid": {"gamma": [0.3, 0.5]}}))
    (place.parent / "store.zarr").rename(place)


def a_comparison(place: Path) -> None:
    compare(ARCH, V0, samples=2, network_samples=None).to_datatree().to_zarr(place.parent / "tree", zarr_format=2)
    (place.parent / "tree" / "chain").rename(place)  # it has the attributes of an ensemble


@pytest.mark.parametrize("make", [a_folder, a_dataset, a_sweep, a_comparison])
def test_saving_over_something_else_is_refused(ensemble: st.Ensemble, tmp_path: Path, make: Any) -> None:
    make(tmp_path / "place")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(st.StorageError, match=r"place exists and is not an ensemble: choose another place, or remove"):
        ensemble.save(tmp_path / "place")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def open_as_named(message: str) -> Any:
    """Return what the call in a message opens."""
    return eval(message.partition("open it with ")[2], {"xarray": xr})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The dataset that the command `predict` writes."""
    compared = compare(ARCH, V0, samples=2, network_samples=None)
    compared.to_datatree().to_zarr(tmp_path / "dataset.zarr", zarr_format=2)
    return tmp_path / "dataset.zarr"


def test_loading_the_dataset_of_a_comparison_says_how_to_open_it(tree: Path) -> None:
    message = r"holds observables of the views chain, sde, and no covariances: open it with xarray\.open_datatree\('"
    with pytest.raises(st.InputError, match=message) as caught:
        st.Ensemble.load(tree)
    with open_as_named(str(caught.value)) as data:
        assert data["chain/rho12"].shape[0] == 2


def test_loading_one_view_of_a_comparison_says_how_to_open_it(tree: Path) -> None:
    message = r"holds observables of the view chain, and no covariances: open it with xarray\.open_zarr\('"
    with pytest.raises(st.InputError, match=message) as caught:
        st.Ensemble.load(tree / "chain")
    with open_as_named(str(caught.value)) as data:
        assert data.sizes["sample"] == 2


def test_loading_the_store_of_a_sweep_says_how_to_open_it(tmp_path: Path) -> None:
    a_sweep(tmp_path / "place")
    with pytest.raises(st.InputError, match=r"holds the results of a sweep: open it with xarray\.open_zarr") as caught:
        st.Ensemble.load(tmp_path / "place")
    with open_as_named(str(caught.value)) as data:
        assert data.sizes["gamma"] == 2


def test_loading_the_dataset_of_a_figure_says_how_to_open_it(tmp_path: Path) -> None:
    made = xr.Dataset({"x": ("t", [1.0])}, attrs={"figure": "density", "settings": "{}"})
    made.to_zarr(tmp_path / "dataset.zarr", zarr_format=2)
    with pytest.raises(st.InputError, match="holds the data of the figure density: open it with") as caught:
        st.Ensemble.load(tmp_path / "dataset.zarr")
    with open_as_named(str(caught.value)) as data:
        assert float(data["x"][0]) == 1


def test_its_representation_is_one_line(ensemble: st.Ensemble) -> None:
    assert repr(ensemble) == (
        "Ensemble(chain: 300 samples of 4 tokens, width 32, depth 8, 9 records, 0 stopped, seed 5)"
    )


def test_a_failed_save_keeps_the_old_ensemble(
    ensemble: st.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "ensemble.zarr"
    ensemble.save(place)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xarray.Dataset.to_zarr", broken)
    with pytest.raises(st.StorageError, match="No space left"):
        ensemble.save(place)
    assert st.Ensemble.load(place).samples == 300
    assert [p.name for p in tmp_path.iterdir()] == ["ensemble.zarr"]
