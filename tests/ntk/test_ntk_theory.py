"""The dispersion of tangent kernels: finite size against its recursion, the limit, the phases, measured intervals."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import shaped_transformer as st


def recursion(width: int, depth: int) -> float:
    """E Θ²/(E Θ)² from the state (α, β) of E[‖x'‖² g gᵀ | x] = α‖x‖²I + βxxᵀ, layer by layer, with a = 1."""
    step = np.array([[1 + 1 / width, 2 / width], [4 / width, 1 + 3 / width]])
    growth, total = 1 + 5 / width, 0.0
    for first in range(1, depth + 2):
        for last in range(first, depth + 2):
            if first == last:
                middle = 1.0
            else:
                start: NDArray[np.float64] = np.array([2.0 / width, 0.0])  # E[Wᵀδδᵀ W | δ] = (2/M)‖δ‖² I
                alpha, beta = np.linalg.matrix_power(step, last - first - 1) @ start
                middle = (width + 1) / 2 * alpha + beta
            total += (2 - (first == last)) * growth ** (first - 1) * middle * growth ** (depth + 1 - last)
    return total / (depth + 1) ** 2


@pytest.mark.parametrize(("width", "depth", "value"), [(50, 10, 2.05), (20, 10, 5.96), (60, 30, 7.03)])
def test_finite_size_is_the_recursion(width: int, depth: int, value: float) -> None:
    found = st.ntk.dispersion(width, depth)
    assert found == pytest.approx(recursion(width, depth), rel=1e-12)
    assert found == pytest.approx(value, abs=0.006)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 2.0])
def test_the_limit_of_a_linear_network_is_the_closed_form(ratio: float) -> None:
    shrinking = (1 - math.exp(-3 * ratio)) / (3 * ratio)
    closed = math.exp(2 * ratio) / 3 * (1 + 4 / (3 * ratio) * (1 - shrinking))
    assert st.ntk.limit_dispersion(ratio, slopes=(1, 1)) == pytest.approx(closed, rel=1e-9)
    wide = st.ntk.dispersion(4000, int(4000 * ratio), slopes=(1, 1 - 4000**-0.5))
    assert wide == pytest.approx(closed, rel=0.03)  # a shaped ReLU tends to the linear network


def test_slopes_matter_up_to_a_factor_and_in_any_order() -> None:
    one = st.ntk.dispersion(20, 5, 1.5, slopes=(1.0, -0.4), bias_gradients=True)
    assert st.ntk.dispersion(20, 5, 0.375, slopes=(0.8, 2.0), bias_gradients=True) == pytest.approx(one, rel=1e-12)


def test_without_bias_gradients_the_variance_of_the_weights_does_not_matter() -> None:
    assert st.ntk.dispersion(20, 7, 1.0) == pytest.approx(st.ntk.dispersion(20, 7, 5.0), rel=1e-12)


@pytest.mark.parametrize("ratio", [0.01, 0.2, 1.0, 3.0])
def test_the_limit_is_the_closed_form(ratio: float) -> None:
    shrinking = (1 - math.exp(-6 * ratio)) / (6 * ratio)
    closed = math.exp(5 * ratio) / 3 * (1 + 2 / (3 * ratio) * (1 - shrinking))
    assert st.ntk.limit_dispersion(ratio) == pytest.approx(closed, rel=1e-9)


def with_biases(ratio: float, norm: float) -> float:
    """The limit at σ_w² = 2 with bias gradients: theory §8's closed form of its three integrals."""
    x = 5 * ratio
    growth = math.exp(x)
    weights = norm**2 * st.ntk.limit_dispersion(ratio)
    plain = 2 * (growth - 1 - x) / x**2
    shrinking = (1 - math.exp(-6 * ratio)) / (6 * ratio)
    joint = 2 / 3 * ((x - 1) * growth + 1) / x**2 + 4 / (3 * ratio) * ((growth - 1) / x - growth * shrinking)
    return (weights + norm * (plain + joint) + plain) / (norm + 1) ** 2


@pytest.mark.parametrize("norm", [0.3, 1.0, 4.0])
def test_the_limit_with_bias_gradients_is_the_closed_form(norm: float) -> None:
    found = st.ntk.limit_dispersion(0.7, bias_gradients=True, input_norm=norm)
    assert found == pytest.approx(with_biases(0.7, norm), rel=1e-9)


@pytest.mark.parametrize("variance", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("biases", [False, True])
def test_finite_size_tends_to_the_limit_in_each_phase(variance: float, biases: bool) -> None:
    limit = st.ntk.limit_dispersion(0.5, variance, bias_gradients=biases)
    errors = [
        abs(st.ntk.dispersion(width, width // 2, variance, bias_gradients=biases) - limit) for width in (200, 800)
    ]
    assert errors[1] < 0.3 * errors[0] < 0.1 * limit


def test_the_limit_at_zero_depth_is_one_and_the_first_matrix_may_have_another_width() -> None:
    assert st.ntk.limit_dispersion(0.0) == pytest.approx(1)
    assert st.ntk.limit_dispersion(0.0, bias_gradients=True) == pytest.approx(1)
    one = st.ntk.dispersion(30, 1, input_width=3)  # Θ = (10 + 1)-weighted sum of two terms of which one varies
    assert one > 1
    assert one != pytest.approx(st.ntk.dispersion(30, 1))


def test_deep_ordered_and_chaotic_networks_overflow_nowhere() -> None:
    for variance in (0.1, 50.0):
        found = st.ntk.dispersion(1000, 2000, variance, bias_gradients=True)
        assert math.isfinite(found)
        assert found >= 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 3), {}, "width must be a whole number"),
        ((3, 0), {}, "depth must be a whole number"),
        ((3, 3, 0.0), {}, "weight_variance must be positive"),
        ((3, 3, math.nan), {}, "weight_variance must be positive"),
        ((3, 3), {"input_norm": -1}, "input_norm must be positive"),
        ((3, 3), {"input_width": 0}, "input_width must be a whole number"),
        ((3, 3), {"slopes": (0, 0)}, "not both 0"),
        ((3, 3), {"slopes": 1.0}, "slopes must be two numbers"),
        ((3, 3), {"slopes": (1, 2, 3)}, "slopes must be two numbers"),
        ((1, 1000), {}, "which overflows"),
    ],
)
def test_wrong_sizes_are_one_line(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message) as error:
        st.ntk.dispersion(*arguments, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf, 200.0])
def test_a_wrong_ratio_is_one_line(ratio: float) -> None:
    with pytest.raises(st.InputError):
        st.ntk.limit_dispersion(ratio)


def test_both_intervals_hold_the_ratio_where_the_tail_is_reached() -> None:
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for run in range(100):
        found = st.ntk.measure_dispersion(np.exp(0.5 * rng.standard_normal(4000)), seed=run)
        assert found.reached
        held += [one.low <= math.exp(0.25) <= one.high for one in (found.bootstrap, found.lognormal)]
    assert (held > 85).all()  # of 100 at 95 %, fewer than 86 once in 10⁴


def test_where_the_tail_is_not_reached_the_interval_is_wider_than_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    held = np.zeros(2)
    for run in range(100):
        found = st.ntk.measure_dispersion(np.exp(1.5 * rng.standard_normal(2000)), seed=run)
        assert not found.reached
        held += [one.low <= math.exp(2.25) <= one.high for one in (found.bootstrap, found.honest)]
    assert held[0] < 80  # the bootstrap does not know what it has not seen
    assert held[1] > 90


@pytest.mark.parametrize(
    "values", [[1.0] * 9, [[1.0] * 20], [0.0] * 20, [1.0] * 19 + [-1], [1.0] * 19 + [math.nan], "theta"]
)
def test_what_is_no_draw_of_a_kernel_is_refused(values: Any) -> None:
    with pytest.raises(st.InputError):
        st.ntk.measure_dispersion(values)


def test_a_constant_kernel_has_the_ratio_one() -> None:
    found = st.ntk.measure_dispersion(np.full(20, 3e200))
    assert (found.bootstrap.value, found.honest.low, found.honest.high) == pytest.approx((1, 1, 1))
