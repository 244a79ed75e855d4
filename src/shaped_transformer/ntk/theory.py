"""How much the tangent kernel of a perceptron of ReLU kind varies: E Θ²/(E Θ)², finite and in the limit (theory §8)."""

import math

import numpy as np

from ..checks import check_count, check_number
from ..errors import InputError

LARGEST_LOG = 700.0
"""Logarithm of the largest ratio that a number of double precision can hold."""


def dispersion(
    width: int,
    depth: int,
    weight_variance: float = 2.0,
    *,
    slopes: tuple[float, float] = (1.0, 0.0),
    bias_gradients: bool = False,
    input_norm: float = 1.0,
    input_width: int | None = None,
) -> float:
    """Return E Θ²/(E Θ)² of Θ(x, x) of a `Perceptron` of ReLU kind with one output, at its width and depth (theory §8).

    Without bias gradients it depends neither on σ_w² nor on x. With them Θ = Σ_ℓ (‖x^ℓ⁻¹‖² + 1)‖δ^ℓ‖².

    ```python
    round(st.ntk.dispersion(width=50, depth=10), 3)  # 2.05
    round(st.ntk.dispersion(width=50, depth=10, slopes=(1, 0.9)), 3)  # 1.361
    ```

    **Arguments:**

    - `width`: M.
    - `depth`: L, the number of hidden layers.
    - `weight_variance`: σ_w², default 2; it matters with bias gradients only.
    - `slopes`: s₊ and s₋ of the activation above and below 0, default those of ReLU; (1, 1) is a linear network.
    - `bias_gradients`: whether every linear map has biases, which are 0; default no.
    - `input_norm`: ‖x‖², default 1; it matters with bias gradients only.
    - `input_width`: number of coordinates of x, default M.

    **Returns:** the ratio, exact without bias gradients. With them, networks of which ReLUs have set a whole layer to 0
    (probability 2^(−M) a layer) are counted as if their later ReLUs were on or off at random.

    **Raises:** `InputError` for arguments out of range, or a ratio beyond the largest number.
    """
    last = check_count(depth, "depth") + 1
    n0 = check_count(check_count(width, "width") if input_width is None else input_width, "input_width")
    mean_square, growth = _growth(slopes)
    variance, norm = _positive(weight_variance, "weight_variance"), _positive(input_norm, "input_norm")
    log_a, grows, shrinks = math.log(variance * mean_square), 1 + growth / width, 1 - 1 / width
    _check_size(depth * math.log(grows))
    layers = np.arange(1, last + 1)
    # Means over a^L: of A = ‖x‖²‖δ‖², and of B = ‖δ‖² with bias gradients; both are scaled so that none overflows.
    log_bias = (1.0 - layers) * log_a if bias_gradients else np.full(last, -np.inf)
    unit = max(0.0, float(log_bias.max()))
    first = norm * np.where(layers > 1, width / n0, 1.0) * math.exp(-unit)
    bias = np.exp(log_bias - unit)
    total = 0.0
    for early in range(last):
        between = np.arange(last - early)
        joint = (grows**between + 2 * shrinks**between) / 3
        before, after = grows**early, grows ** (last - layers[early:])
        a, b, later_a, later_b = first[early], bias[early], first[early:], bias[early:]
        terms = after * (before * joint * a * later_a + a * later_b + joint * b * later_a + b * later_b)
        total += 2 * float(terms.sum()) - float(terms[0])
    return total / float(first.sum() + bias.sum()) ** 2


def limit_dispersion(
    ratio: float,
    weight_variance: float = 2.0,
    *,
    slopes: tuple[float, float] = (1.0, 0.0),
    bias_gradients: bool = False,
    input_norm: float = 1.0,
) -> float:
    """Return the limit of `dispersion` as depth and width grow with L/M → λ (theory §8).

    ```python
    round(st.ntk.limit_dispersion(0.2), 3)  # 2.168
    ```

    **Arguments:**

    - `ratio`: λ = L/M.
    - `weight_variance`: σ_w², default 2. With bias gradients the limit is 1 in the ordered phase, a = σ_w²(s₊² + s₋²)/2
      < 1, and that without them in the chaotic phase, a > 1.
    - `slopes`: s₊ and s₋, held fixed, default those of ReLU; of shaped ones, which tend to 1, give (1, 1).
    - `bias_gradients`: whether every linear map has biases, which are 0; default no.
    - `input_norm`: ‖x‖², held fixed, of inputs with M coordinates; default 1. It matters at a = 1 with bias
      gradients only.

    **Returns:** the ratio.

    **Raises:** `InputError` for arguments out of range, or a ratio beyond the largest number.
    """
    from scipy.integrate import quad

    rate, variance = _positive(ratio, "ratio", least=0.0), _positive(weight_variance, "weight_variance")
    norm = _positive(input_norm, "input_norm")
    mean_square, growth = _growth(slopes)
    _check_size(growth * rate)
    critical = math.isclose(variance * mean_square, 1, rel_tol=1e-9)
    if bias_gradients and variance * mean_square < 1 and not critical:
        return 1.0
    weights, biases = (norm, 1.0) if bias_gradients and critical else (1.0, 0.0)

    def at_distance(u: float) -> float:
        """Return the sum over pairs of layers at this distance, in units of the depth."""
        joint = (math.exp(growth * rate * u) + 2 * math.exp(-rate * u)) / 3
        rest = growth * rate * (1 - u)
        after = (1 - u) * (math.expm1(rest) / rest if rest > 0 else 1.0)  # ∫ e^(qλ(1 − t)) over the pair's places
        both = (1 - u) * math.exp(rest) * joint
        return weights**2 * both + (weights * biases * (1 + joint) + biases**2) * after

    value, _ = quad(at_distance, 0, 1, epsabs=0, epsrel=1e-10)
    return 2 * value / (weights + biases) ** 2


def _growth(slopes: tuple[float, float]) -> tuple[float, float]:
    """Return E d² of a unit's slope d, s₊ or s₋ with probability ½ each, and 3κ − 1 with κ = E d⁴/(E d²)².

    **Raises:** `InputError` unless they are two numbers, not both 0.
    """
    try:
        plus, minus = (check_number(slope, "slopes") for slope in slopes)
    except (TypeError, ValueError):
        raise InputError(f"slopes must be two numbers (got {slopes!r})") from None
    largest = max(abs(plus), abs(minus))
    if not 0 < largest < math.inf:
        raise InputError(f"slopes must be finite and not both 0 (got {slopes!r})")
    squares = (plus / largest) ** 2, (minus / largest) ** 2
    fourth = 2 * (squares[0] ** 2 + squares[1] ** 2) / (squares[0] + squares[1]) ** 2
    return largest**2 * (squares[0] + squares[1]) / 2, 3 * fourth - 1


def _positive(value: float, name: str, least: float | None = None) -> float:
    """Return a finite positive number, or at least `least`.

    **Raises:** `InputError` otherwise.
    """
    number = check_number(value, name)
    if not (number > 0 if least is None else number >= least) or number == math.inf:
        raise InputError(f"{name} must be {'positive' if least is None else f'at least {least:g}'} (got {value!r})")
    return number


def _check_size(log_ratio: float) -> None:
    """Check that a ratio of about this logarithm is a number of double precision.

    **Raises:** `InputError` otherwise.
    """
    if not log_ratio < LARGEST_LOG:
        raise InputError(f"the ratio is about e^{log_ratio:.0f}, which overflows: use a smaller depth/width")
