"""Estimates: their intervals, their arithmetic, and their form in datasets."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.estimates import Estimate, distance, exact, from_array, mean, normal, spread, to_array
from shaped_transformer.statistics import share


def test_the_interval_of_a_share_of_zero_ends_above_zero() -> None:
    none = share(np.zeros(100, dtype=bool))
    assert none.value == none.low == 0
    assert 0.03 < none.high < 0.05


def test_rounding_errors_of_a_constant_are_no_difference() -> None:
    generator = np.random.default_rng(0)
    noisy = 3.0 * (1 + 1e-15 * generator.standard_normal((2, 500)))
    assert st.statistics.two_sample(noisy[0], noisy[1]).distance == 0
    assert st.statistics.two_sample(noisy[0], noisy[1] * (1 + 1e-8)).distance == 1


def test_the_interval_of_a_distance_contains_zero_for_equal_distributions_only() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000))
    assert distance(a, b).low == 0
    assert distance(a, b + 0.3).low > 0


def test_a_normal_estimate_returns_its_standard_error() -> None:
    assert normal(2.0, 0.1).error == pytest.approx(0.1)
    assert exact(2.0).error == 0


def test_a_mean_is_within_its_error_of_the_expectation() -> None:
    found = mean(np.random.default_rng(0).standard_normal(400) + 3)
    assert found.error == pytest.approx(1 / 20, rel=0.1)
    assert abs(found.value - 3) < 4 * found.error


def test_scaling_by_a_negative_number_swaps_the_ends_of_the_interval() -> None:
    assert Estimate(1.0, 0.5, 2.0).scaled(-2) == Estimate(-2.0, -4.0, -1.0)


def test_intervals_overlap_where_they_share_a_point() -> None:
    assert Estimate(1.0, 0.0, 2.0).overlaps(Estimate(3.0, 2.0, 4.0))
    assert not Estimate(1.0, 0.0, 2.0).overlaps(Estimate(3.0, 2.1, 4.0))


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == Estimate(2.0, 1.0, 3.0)


def test_an_estimate_is_read_back_from_its_array() -> None:
    array = to_array([[exact(1.0), normal(2.0, 0.5)], [exact(3.0), exact(4.0)]])
    assert array.shape == (2, 2, 3)
    assert from_array(array[0, 1]) == normal(2.0, 0.5)


def test_an_estimate_prints_three_digits() -> None:
    assert str(Estimate(0.12345, 0.1, 0.23456)) == "0.123 [0.1, 0.235]"
