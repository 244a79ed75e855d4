"""How much the tangent kernel of a ReLU perceptron varies: E Θ²/(E Θ)² at finite size and in the limit (theory §8)."""

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
    bias_gradients: bool = False,
    input_norm: float = 1.0,
    input_width: int | None = None,
) -> float:
    """Return E Θ²/(E Θ)² of Θ(x, x) of a ReLU `Perceptron` with one output, at finite width and depth (theory §8).

    Without bias gradients it depends neither on σ_w² nor on x. With them Θ = Σ_ℓ (‖x^ℓ⁻¹‖² + 1)‖δ^ℓ‖².

    ```python
    round(st.ntk.dispersion(width=50, depth=10), 3)  # 2.05
    ```

    **Arguments:**

    - `width`: M.
    - `depth`: L, the number of hidden layers.
    - `weight_variance`: σ_w², default 2; it matters with bias gradients only.
    - `bias_gradients`: whether every linear map has biases, which are 0; default no.
    - `input_norm`: ‖x‖², default 1; it matters with bias gradients only.
    - `input_width`: number of coordinates of x, default M.

    **Returns:** the ratio, exact without bias gradients. With them, networks of which a whole layer is 0 (probability
    2^(−M) a layer) are counted as if their later ReLUs were on or off at random.

    **Raises:** `InputError` for arguments out of range, or a ratio beyond the largest number.
    """
    last = check_count(depth, "depth") + 1
    n0 = check_count(check_count(width, "width") if input_width is None else input_width, "input_width")
    log_a, norm = math.log(_positive(weight_variance, "weight_variance") / 2), _positive(input_norm, "input_norm")
    _check_size(depth * math.log1p(5 / width))
    layers = np.arange(1, last + 1)
    # Means over a^L: of A = ‖x‖²‖δ‖², and of B = ‖δ‖² with bias gradients; both are scaled so that none overflows.
    log_bias = (1.0 - layers) * log_a if bias_gradients else np.full(last, -np.inf)
    unit = max(0.0, float(log_bias.max()))
    first = norm * np.where(layers > 1, width / n0, 1.0) * math.exp(-unit)
    bias = np.exp(log_bias - unit)
    total = 0.0
    for early in range(last):
        between = np.arange(last - early)
        joint = ((1 + 5 / width) ** between + 2 * (1 - 1 / width) ** between) / 3
        before, after = (1 + 5 / width) ** early, (1 + 5 / width) ** (last - layers[early:])
        a, b, later_a, later_b = first[early], bias[early], first[early:], bias[early:]
        terms = after * (before * joint * a * later_a + a * later_b + joint * b * later_a + b * later_b)
        total += 2 * float(terms.sum()) - float(terms[0])
    return total / float(first.sum() + bias.sum()) ** 2


def limit_dispersion(
    ratio: float, weight_variance: float = 2.0, *, bias_gradients: bool = False, input_norm: float = 1.0
) -> float:
    """Return the limit of `dispersion` as depth and width grow with L/M → λ (theory §8).

    ```python
    round(st.ntk.limit_dispersion(0.2), 3)  # 2.168
    ```

    **Arguments:**

    - `ratio`: λ = L/M.
    - `weight_variance`: σ_w², default 2. With bias gradients the limit is 1 in the ordered phase, σ_w² < 2, and that
      without them in the chaotic phase, σ_w² > 2.
    - `bias_gradients`: whether every linear map has biases, which are 0; default no.
    - `input_norm`: ‖x‖², held fixed, of inputs with M coordinates; default 1. It matters at σ_w² = 2 with bias
      gradients only.

    **Returns:** the ratio.

    **Raises:** `InputError` for arguments out of range, or a ratio beyond the largest number.
    """
    from scipy.integrate import quad

    rate, variance = _positive(ratio, "ratio", least=0.0), _positive(weight_variance, "weight_variance")
    norm = _positive(input_norm, "input_norm")
    _check_size(5 * rate)
    if bias_gradients and variance < 2:
        return 1.0
    weights, biases = (norm, 1.0) if bias_gradients and variance == 2 else (1.0, 0.0)

    def at_distance(u: float) -> float:
        """Return the sum over pairs of layers at this distance, in units of the depth."""
        joint = (math.exp(5 * rate * u) + 2 * math.exp(-rate * u)) / 3
        rest = 5 * rate * (1 - u)
        after = (1 - u) * (math.expm1(rest) / rest if rest > 0 else 1.0)  # ∫ e^(5λ(1 − t)) over the places of the pair
        both = (1 - u) * math.exp(rest) * joint
        return weights**2 * both + (weights * biases * (1 + joint) + biases**2) * after

    value, _ = quad(at_distance, 0, 1, epsabs=0, epsrel=1e-10)
    return 2 * value / (weights + biases) ** 2


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
        raise InputError(f"the ratio is about e^{log_ratio:.0f}, beyond the largest number: take a smaller depth/width")
