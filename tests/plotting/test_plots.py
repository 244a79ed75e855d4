"""The parts of plots: densities have mass 1 between their bounds, and labels of lines do not overlap."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from shaped_transformer.plotting import plots
from shaped_transformer.plotting.style import COLOURS, DESIGNS, SERIES

RHO = (-1.0, 1.0)


def test_a_density_between_bounds_has_mass_one() -> None:
    values = np.cos(np.random.default_rng(0).uniform(0, np.pi, 5000))  # peaks at both bounds
    at = plots.density_grid(*RHO)
    assert np.mean(plots.density_curve(values, at, RHO)) * 2 == pytest.approx(1, abs=0.03)


def test_a_uniform_density_stays_flat_up_to_its_bounds() -> None:
    values = np.random.default_rng(0).uniform(*RHO, 20000)
    density = plots.density_curve(values, np.linspace(-0.95, 0.95, 21), RHO)
    np.testing.assert_allclose(density, 0.5, rtol=0.15)


def test_a_heavy_tail_does_not_widen_the_peak_of_a_density() -> None:
    values = np.random.default_rng(0).standard_normal(10000)
    at = np.linspace(-1, 1, 11)
    tail = np.concatenate([values, [1e6, 1e7]])
    np.testing.assert_allclose(plots.density_curve(tail, at), plots.density_curve(values, at), rtol=0.02)


def test_values_that_fill_their_range_are_shown_in_all_of_it() -> None:
    assert plots.density_window(np.linspace(-0.6, 0.9, 100), RHO) == RHO
    low, high = plots.density_window(np.linspace(0.99, 1, 100), RHO)
    assert 0.98 < low < high <= 1


def test_real_networks_are_points_with_bars_at_their_density() -> None:
    axes = Figure().subplots()
    values = np.random.default_rng(0).uniform(0, 1, 5000)
    plots.plot_densities(axes, {"network": values, "chain": values})
    ((points, _, (bars,)),) = axes.containers
    middle = np.abs(points.get_xdata() - 0.5) < 0.4
    low, high = np.array(bars.get_segments())[middle, :, 1].T
    assert np.mean((low < 1) & (high > 1)) > 0.8
    np.testing.assert_allclose(points.get_ydata()[middle], 1, atol=0.3)


def test_labels_of_lines_that_end_together_are_apart_and_in_the_panel() -> None:
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    plots.label_line_ends(axes, 1.0, {f"line {i}": (1.0, "black") for i in range(5)}, gap=0.1)
    labels: list[Any] = list(axes.texts)
    places = sorted(label.xyann[1] for label in labels)
    assert np.diff(places) == pytest.approx(0.1)
    assert places[-1] == pytest.approx(1)


def test_no_two_meanings_have_the_same_colour() -> None:
    colours = [*COLOURS.values(), *DESIGNS.values(), *SERIES]
    assert len(set(colours)) == len(colours)
