"""Random words follow their definition, normals and chi variables their distributions; streams are independent."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM, z_limit
from scipy.special import log_ndtr, ndtr
from scipy.stats import chi, kstest, norm, poisson

from shaped_transformer.numerics import compilation
from shaped_transformer.numerics.arrays import Floats
from shaped_transformer.numerics.draws import Draws

generator: Any = compilation.load("generator")
MASK = 2**64 - 1


def normals(count: int, seed: int = 0) -> Floats:
    out = np.empty(count)
    generator.fill_normals(*generator.new_state(np.random.SeedSequence(seed, spawn_key=(1, 0))), out)
    return out


def chis(count: int, freedom: float, seed: int = 0) -> Floats:
    out = np.empty((1, count))
    generator.fill_chi(*generator.new_state(np.random.SeedSequence(seed)), freedom, out)
    return out[0]


def rotate(x: int, k: int) -> int:
    return ((x << k) | (x >> (64 - k))) & MASK


def xoshiro(state: list[int]) -> int:
    """Return the next word of xoshiro256++ as its authors define it, and advance the state."""
    out = (rotate((state[0] + state[3]) & MASK, 23) + state[0]) & MASK
    shifted = (state[1] << 17) & MASK
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = rotate(state[3], 45)
    return out


def test_each_lane_follows_the_definition_of_xoshiro() -> None:
    lanes, _ = generator.new_state(np.random.SeedSequence(3))
    reference = [[int(word) for word in lanes[:, lane]] for lane in range(generator.LANES)]
    out = np.empty(3 * generator.LANES, np.uint64)
    generator.fill_words(lanes, out)
    expected = [[xoshiro(state) for state in reference] for _ in range(3)]
    np.testing.assert_array_equal(out.reshape(3, -1), np.array(expected, dtype=np.uint64))


def test_words_follow_the_published_vector() -> None:
    """From the state (1, 2, 3, 4), every implementation of xoshiro256++ returns 41943041 and 58720359."""
    lanes = np.repeat(np.arange(1, 5, dtype=np.uint64)[:, None], generator.LANES, axis=1)
    out = np.empty(2 * generator.LANES, np.uint64)
    generator.fill_words(lanes, out)
    assert [int(out[0]), int(out[generator.LANES])] == [41943041, 58720359]


def test_layers_of_the_ziggurat_have_equal_area_and_end_at_zero() -> None:
    x, height = generator.ENDS, generator.HEIGHT
    areas = x[1:-1] * np.diff(height)[1:]
    tail = x[1] * height[1] + np.sqrt(2 * np.pi) * ndtr(-x[1])
    np.testing.assert_allclose(areas, tail, rtol=1e-9)
    assert len(x) == generator.LAYERS + 1
    assert x[-1] == 0


@pytest.mark.parametrize("count", [0, 1, 31, 511, 513, 5000])
def test_exactly_the_given_array_is_filled_and_a_seed_repeats_it(count: int) -> None:
    out = np.full(count + 2, np.nan)
    state = partial(generator.new_state, np.random.SeedSequence(1))
    generator.fill_normals(*state(), out[1:-1])
    again = np.empty(count)
    generator.fill_normals(*state(), again)
    np.testing.assert_array_equal(out[1:-1], again)
    assert np.isfinite(again).all()
    assert np.isnan(out[[0, -1]]).all()


def test_normals_in_single_precision_are_those_in_double_rounded() -> None:
    single = np.empty(10_000, np.float32)
    generator.fill_normals(*generator.new_state(np.random.SeedSequence(0, spawn_key=(1, 0))), single)
    np.testing.assert_array_equal(single, normals(10_000).astype(np.float32))


def moment_scores(x: Floats) -> list[float]:
    """Return z-scores of the raw moments 1 to 8 of normals: E x^k = (k − 1)!! for even k, else 0."""
    exact = {k: float(np.prod(np.arange(k - 1, 0, -2))) if k % 2 == 0 else 0.0 for k in range(1, 17)}
    scores, power = [], np.ones_like(x)
    for k in range(1, 9):
        power *= x
        scores.append(float((np.mean(power) - exact[k]) / np.sqrt((exact[2 * k] - exact[k] ** 2) / len(x))))
    return scores


def test_moments_of_normals_are_exact_up_to_the_eighth() -> None:
    x = normals(10_000_000, seed=1)
    assert np.abs(moment_scores(x)).max() < z_limit(8)
    assert np.abs(moment_scores(1.001 * x)).max() > z_limit(8)


@pytest.mark.long
def test_a_hundred_million_normals_pass_a_kolmogorov_smirnov_test() -> None:
    x = normals(100_000_000, seed=2)
    uniform = np.sort(ndtr(x))
    steps = np.arange(len(x) + 1) / len(x)

    def p_value(u: Floats) -> float:
        distance = max(float(np.max(steps[1:] - u)), float(np.max(u - steps[:-1])))
        return float(min(1.0, 2 * np.exp(-2 * len(u) * distance**2)))

    assert p_value(uniform) > FALSE_ALARM
    assert p_value(np.sort(ndtr(1.002 * x))) < FALSE_ALARM


@pytest.mark.slow
def test_tails_are_normal_up_to_six_sigma() -> None:
    """Counts beyond 3, 4, 5, 5.5 and 6 σ are Poisson; numbers beyond the base layer follow the normal tail."""
    batches, size = 125, 8_000_000
    edges = np.array([3, 4, 5, 5.5, 6.0])
    found, tail = np.zeros(len(edges)), []
    state = generator.new_state(np.random.SeedSequence(4))
    out = np.empty(size)
    for _ in range(batches):
        generator.fill_normals(*state, out)
        far = np.abs(out[np.abs(out) > edges[0]])
        found += (far[:, None] > edges).sum(axis=0)
        tail.append(far[far > generator.TAIL])
    expected = 2 * norm.sf(edges) * batches * size
    level = FALSE_ALARM / len(edges) / 2
    assert (poisson.sf(found - 1, expected) > level).all(), (found, expected)
    assert (poisson.cdf(found, expected) > level).all(), (found, expected)
    assert poisson.cdf(found[0], 1.1 * expected[0]) < level
    beyond = np.concatenate(tail)
    given = 1 - np.exp(log_ndtr(-beyond) - log_ndtr(-generator.TAIL))
    assert kstest(given, "uniform").pvalue > FALSE_ALARM
    assert kstest(given**1.05, "uniform").pvalue < FALSE_ALARM


@pytest.mark.parametrize("freedom", [0.5, 1, 1.5, 2, 2.5, 3, 10, 1000.5])
def test_chi_variables_have_their_distribution(freedom: float) -> None:
    x = chis(300_000, freedom, seed=7)
    assert kstest(x, chi(freedom).cdf).pvalue > FALSE_ALARM / 8
    assert kstest(x, chi(1.03 * freedom).cdf).pvalue < FALSE_ALARM / 8


def test_rows_of_chi_variables_have_falling_degrees_of_freedom() -> None:
    out = np.empty((3, 100_000))
    generator.fill_chi(*generator.new_state(np.random.SeedSequence(5)), 4.5, out)
    for row, x in enumerate(out):
        assert kstest(x, chi(4.5 - row).cdf).pvalue > FALSE_ALARM / 3


def correlation_score(x: Floats, y: Floats) -> float:
    return float(np.mean(x * y) / np.std(x) / np.std(y) * np.sqrt(len(x)))


def test_numbers_of_a_stream_are_independent() -> None:
    """Numbers and their squares are uncorrelated at lags of up to two rounds of lanes, and about the chunk's length."""
    x = normals(2_000_000, seed=8)
    lags = [*range(1, 2 * generator.LANES + 2), generator.CHUNK - 1, generator.CHUNK, generator.CHUNK + 1]
    scores = [correlation_score(y[:-lag], y[lag:]) for y in (x, x**2 - 1) for lag in lags]
    assert np.abs(scores).max() < z_limit(len(scores))
    assert abs(correlation_score(x[:-1], x[1:] + 0.01 * x[:-1])) > z_limit(len(scores))


def test_streams_are_independent_of_each_other() -> None:
    """Streams of neighbouring seeds, views and batches are uncorrelated, and their sum is again normal."""
    count = 200_000
    first = Draws(0, 1, 0, count).normal(1, 1).ravel()
    others = [Draws(*key, count).normal(1, 1).ravel() for key in ((1, 1, 0), (0, 2, 0), (0, 1, 1), (0, 1, 2))]
    scores = [correlation_score(*pair) for y in others for pair in ((first, y), (first**2 - 1, y**2 - 1))]
    assert np.abs(scores).max() < z_limit(len(scores))
    for other in others:
        assert kstest((first + other) / np.sqrt(2), "norm").pvalue > FALSE_ALARM / len(others)
    assert kstest((first + first) / np.sqrt(2), "norm").pvalue < FALSE_ALARM
