r"""Activations: their values at a finite width, the constant c = 1/E σ(g)², and their drift and kernel in the limit.

Shaped activations become linear as the width n grows (theory §2):

- `ShapedReLU`: σ(x) = s₊ max(x, 0) + s₋ min(x, 0), s± = 1 + c±/√n [NC, ST];
- `ShapedSmooth`: σ(x) = s φ(x/s), s = a √n, φ(0) = 0, φ'(0) = 1 [NC].

Only these, and linear ones, have a proportional limit. The plain `Activation`s are for the finite views.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, model_validator

from ..errors import DefinitionError, NoProportionalLimit
from ..numerics import linalg
from ..numerics.arrays import Array
from .definition import Definition, Number, PositiveFloat, definition
from .functions import NamedFunction

Function = Callable[[Array], Array]


class AnyActivation(Definition, ABC):
    """Base class of activations. `width` is the width n of the network, on which shaping depends."""

    @abstractmethod
    def value(self, x: Array, width: float) -> Array:
        """Return σ(x), elementwise, in the dtype of `x`."""

    def linear_slope(self, width: float) -> float | None:
        """Return s if σ(x) = s·x at this width, else `None`."""
        return None

    def second_moment(self, width: float, gain: float = 1.0) -> float:
        """Return E σ(gain·g)², g ~ N(0, 1)."""
        return _second_moment(self, width, gain)

    def check(self, width: float, gain: float = 1.0) -> None:
        """Raise `DefinitionError` if the activation vanishes or overflows at this width."""
        moment = self.second_moment(width, gain)
        if not 1e-100 < moment < 1e100:
            raise DefinitionError(
                f"{self} has E sigma(g)^2 = {moment:g} at width {width:g}, so its layer cannot be normalised: "
                "choose parameters with which the signal neither vanishes nor overflows"
            )

    def with_input_gain(self, gain: float) -> "AnyActivation":
        """Return the activation σ̃ with σ(gain·x) = gain·σ̃(x); the default, σ itself, is for homogeneous σ."""
        return self

    def limit_obstacle(self) -> str | None:
        """Return why there is no proportional limit, or `None` if there is one."""
        return f"{self} is not shaped: it moves the covariance by an amount of order 1 in every layer, however wide"

    def drift(self, v: Array) -> Array:
        """Return b_σ(V), (…, m, m): n times the mean change of V over one layer, as n → ∞ (theory §4)."""
        raise NoProportionalLimit(self.limit_obstacle())

    def limit_rate(self) -> float:
        """Return the rate at which norms or correlations relax in the limit, per unit of time, which steps resolve."""
        return 0.0

    def limit_kernel(self, factor: Array, h: float) -> Array:
        """Return a factor of a positive semi-definite kernel equal to V + h·b_σ(V) + O(h²) (theory §4)."""
        raise NoProportionalLimit(self.limit_obstacle())


@definition
class ShapedReLU(AnyActivation):
    """Shaped ReLU: σ(x) = s₊ max(x, 0) + s₋ min(x, 0), s± = 1 + c±/√n [NC, ST; theory §2].

    ```python
    relu = st.ShapedReLU(c_plus=0.0, c_minus=-1.0)
    relu.value(np.array([-1.0, 1.0]), width=100)  # [-0.9, 1.0]
    ```

    **Arguments:**

    - `c_plus`, `c_minus`: the slopes minus 1, in units of 1/√n, default 0 and −1. Only (c₊ − c₋)² enters the limit;
      equal values give a linear network.
    """

    c_plus: Number = 0.0
    c_minus: Number = -1.0

    def slopes(self, width: float) -> tuple[float, float]:
        """Return (s₊, s₋) at width n."""
        return 1 + self.c_plus / math.sqrt(width), 1 + self.c_minus / math.sqrt(width)

    def value(self, x: Array, width: float) -> Array:
        plus, minus = self.slopes(width)
        out = x.dtype.type(plus) * x
        bend = np.maximum if plus >= minus else np.minimum
        return bend(out, x.dtype.type(minus) * x, out=out)

    def linear_slope(self, width: float) -> float | None:
        plus, minus = self.slopes(width)
        return plus if plus == minus else None

    def second_moment(self, width: float, gain: float = 1.0) -> float:
        plus, minus = self.slopes(width)
        return gain * gain * (plus * plus + minus * minus) / 2

    def limit_obstacle(self) -> str | None:
        return None

    def drift(self, v: Array) -> Array:
        scale, rho = _scale_and_correlation(v)
        bend = (self.c_plus - self.c_minus) ** 2 / (2 * np.pi)
        return bend * scale * (np.sqrt(1 - rho**2) - rho * np.arccos(rho))

    def limit_kernel(self, factor: Array, h: float) -> Array:
        """Return a factor of the kernel of the slopes 1 ± ½(c₊−c₋)√h, for which no error of order h^1.5 remains.

        Only the difference of the slopes enters the limit. So σ(x) = x + b|x|, b² = ¼(c₊−c₋)²h, E|u||v| has a closed
        form, and the kernel is V + h·b_σ(V) + O(h²).
        """
        if self.c_plus == self.c_minus:
            return factor
        b2 = (self.c_plus - self.c_minus) ** 2 * h / 4
        v = linalg.gram(factor)
        scale, rho = _scale_and_correlation(v)
        bent = (2 / np.pi) * scale * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))
        return linalg.semidefinite_factor((v + b2 * bent) / (1 + b2))


@definition
class Smooth(Definition):
    """A smooth φ with φ(0) = 0 and φ'(0) = 1, to be shaped by `ShapedSmooth`.

    ```python
    phi = st.Smooth(np.tanh, d2=0.0, d3=-2.0)
    st.ShapedSmooth(phi, a=1.0)
    ```

    **Arguments:**

    - `f`: φ, elementwise on arrays. To be saved it must be importable by name; the name `"module:name"` is accepted
      too, and imports the module.
    - `d2`, `d3`: φ''(0) and φ'''(0). `None` if they do not exist; such a network has no proportional limit.

    **Raises:** `DefinitionError` if φ(0), φ'(0), or a stated derivative does not agree with φ numerically.
    """

    f: NamedFunction
    d2: Number | None
    d3: Number | None

    @model_validator(mode="after")
    def _derivatives_agree(self) -> "Smooth":
        try:
            seen = _derivatives(self.f)
        except (Exception, SystemExit) as error:  # a function of the user may raise anything
            raise DefinitionError(f"phi must act elementwise on a float array, but raised {error!r}") from None
        stated = {"phi(0)": 0.0, "phi'(0)": 1.0, "phi''(0)": self.d2, "phi'''(0)": self.d3}
        for (name, want), (low, high) in zip(stated.items(), seen, strict=True):
            if want is None:
                continue
            allowed = 1e-3 * (1 + abs(want)) if "''" not in name else 0.02 * (1 + abs(want))
            if not (abs(low - want) <= allowed and abs(high - want) <= allowed):
                raise DefinitionError(
                    f"{name} = {want:g} is expected, but phi has {low:.4g} from the left and {high:.4g} from the right"
                    + ("; give d2=None, d3=None if the derivative does not exist" if "''" in name else "")
                )
        return self


def _derivatives(f: Function) -> list[tuple[float, float]]:
    """Return one-sided derivatives of orders 0 to 3 at 0, (left, right), from a polynomial through 7 nearby points."""
    step = 0.02
    points = np.arange(7) * step
    powers = np.vander(points / step, increasing=True)
    sides = [np.linalg.solve(powers, np.asarray(f(sign * points), dtype=np.float64)) for sign in (-1, 1)]
    return [
        tuple(math.factorial(k) * side[k] * (sign / step) ** k for side, sign in zip(sides, (-1, 1), strict=True))
        for k in range(4)
    ]


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(math.sqrt(math.pi) / 2 * x), dtype=x.dtype)


def _softsign(x: Array) -> Array:
    return x / (1 + np.abs(x))


SMOOTH: dict[str, tuple[Function, float | None, float | None]] = {
    "tanh": (np.tanh, 0.0, -2.0),
    "erf": (_erf, 0.0, -math.pi / 2),
    "arctan": (np.arctan, 0.0, -2.0),
    "sin": (np.sin, 0.0, -1.0),
    "softsign": (_softsign, None, None),  # the second derivative jumps from +2 to -2 at 0
}
"""The φ that have a name, with φ''(0) and φ'''(0). Each has φ(0) = 0 and φ'(0) = 1, for which erf is rescaled."""


@lru_cache
def _smooth_of_name(phi: str) -> Smooth:
    """Return the entry of `SMOOTH` as a `Smooth`."""
    return Smooth(*SMOOTH[phi])


def _checked_phi(phi: Any) -> Any:
    """Return φ; refuse a name that `SMOOTH` does not have."""
    if isinstance(phi, str) and phi not in SMOOTH:
        raise ValueError(f"phi must be one of {', '.join(SMOOTH)} or a Smooth(f, d2, d3) (got {phi!r})")
    return phi


EXPLODED_NORM = 1e10
"""Norm of a token that explodes within a step of the limit; it is beyond the default window of paths."""


@definition
class ShapedSmooth(AnyActivation):
    """Shaped smooth activation: σ(x) = s φ(x/s), s = a √n [NC; theory §2].

    In the limit the norm of one token explodes with positive probability if and only if β = ¾φ''(0)² + φ'''(0) > 0
    [NC]. Softsign has no limit, as φ'' jumps at 0 (theory §4, a result of this project).

    ```python
    tanh = st.ShapedSmooth("tanh", a=1.0)
    st.shaped_mlp(64, 16, activation=tanh)
    ```

    **Arguments:**

    - `phi`: a name (`"tanh"`, `"erf"`, `"arctan"`, `"sin"`, `"softsign"`) or a `Smooth(f, d2, d3)`.
    - `a`: scale of the activation's argument, in units of √n; a larger a is nearer to linear.
    """

    phi: Annotated[str | Smooth, BeforeValidator(_checked_phi)]
    a: PositiveFloat

    @property
    def smooth(self) -> Smooth:
        """φ with its derivatives."""
        return _smooth_of_name(self.phi) if isinstance(self.phi, str) else self.phi

    def value(self, x: Array, width: float) -> Array:
        s = self.a * math.sqrt(width)
        return np.asarray(s * self.smooth.f(x / s), dtype=x.dtype)

    def with_input_gain(self, gain: float) -> "ShapedSmooth":
        return self if gain == 1 else ShapedSmooth(self.phi, self.a / gain)

    def limit_obstacle(self) -> str | None:
        if self.smooth.d2 is None or self.smooth.d3 is None:
            return (
                f"ShapedSmooth({self.phi!r}) has no second derivative at 0, so that one layer moves the norms by order "
                "1/√n, not 1/n; choose tanh, erf, arctan or a Smooth with d2 and d3"
            )
        return None

    def drift(self, v: Array) -> Array:
        d2, d3 = self.smooth.d2, self.smooth.d3
        if d2 is None or d3 is None:
            return super().drift(v)
        norm = linalg.diagonal(v)
        row, column = norm[..., :, None], norm[..., None, :]
        quadratic = row * column + v * (2 * v - 3)
        return (d2**2 / 4 * quadratic + d3 / 2 * v * (row + column - 2)) / self.a**2

    def limit_rate(self) -> float:
        """Return the larger of |β|/a², the rate at which norms relax to 1, and ¾φ''²/a², that of correlations."""
        d2, d3 = self.smooth.d2, self.smooth.d3
        bend = 3 / 4 * (d2 or 0.0) ** 2
        return max(abs(bend + (d3 or 0.0)), bend) / self.a**2

    def limit_kernel(self, factor: Array, h: float) -> Array:
        """Return a factor of a kernel whose norms follow their drift exactly over the step.

        Its correlations are those of V + h·r·(v·vᵀ + 2·V∘V), r = φ''²/(4a²), v = diag V. This sum is positive
        semi-definite, and φ''' changes no correlation (theory §4).
        """
        d2, d3 = self.smooth.d2, self.smooth.d3
        if d2 is None or d3 is None:
            return super().limit_kernel(factor, h)
        v = linalg.gram(factor)
        norm = linalg.diagonal(v)
        moved = _logistic(norm, h * (3 / 4 * d2**2 + d3) / self.a**2)
        if d2 == 0:
            return linalg.scale_rows(_root_of_ratio(moved, norm), factor)
        bent = v + h * d2**2 / (4 * self.a**2) * (norm[..., :, None] * norm[..., None, :] + 2 * v**2)
        return linalg.scale_rows(_root_of_ratio(moved, linalg.diagonal(bent)), linalg.semidefinite_factor(bent))


def _logistic(v: Array, rate: float) -> Array:
    """Return the solution at time 1 of dv/dt = rate·v(v − 1), or at least `EXPLODED_NORM` if it explodes earlier."""
    below = np.exp(rate) - v * np.expm1(rate)
    exploded = np.maximum(EXPLODED_NORM, 100 * v)
    return np.where(v > 0, np.minimum(np.divide(v, below, out=exploded.copy(), where=below > 0), exploded), 0.0)


def _root_of_ratio(a: Array, b: Array) -> Array:
    """Return √(a/b), and 0 where b = 0, as for a token of norm 0."""
    return np.sqrt(np.divide(a, b, out=np.zeros_like(b), where=b > 0))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _gelu(x: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x), dtype=x.dtype)


def _silu(x: Array) -> Array:
    from scipy.special import expit

    return np.asarray(x * expit(x), dtype=x.dtype)


PlainName = Literal["relu", "gelu", "silu", "tanh", "identity"]

PLAIN: dict[PlainName, Function] = {
    "relu": _relu,
    "gelu": _gelu,
    "silu": _silu,
    "tanh": np.tanh,
    "identity": lambda x: x,
}
"""The plain activations by name."""


@definition
class Activation(AnyActivation):
    """A plain activation, the same at every width. Only the identity has a proportional limit.

    ```python
    gelu = st.Activation("gelu")
    gelu.value(np.array([-1.0, 1.0]), width=100)  # [-0.159, 0.841]
    ```

    **Arguments:**

    - `name`: `"relu"`, `"gelu"` (x·Φ(x), not its tanh approximation), `"silu"`, `"tanh"` or `"identity"`.
    """

    name: PlainName

    def value(self, x: Array, width: float) -> Array:
        return PLAIN[self.name](x)

    def linear_slope(self, width: float) -> float | None:
        return 1.0 if self.name == "identity" else None

    def limit_obstacle(self) -> str | None:
        return None if self.name == "identity" else super().limit_obstacle()

    def drift(self, v: Array) -> Array:
        return np.zeros_like(v) if self.name == "identity" else super().drift(v)

    def limit_kernel(self, factor: Array, h: float) -> Array:
        return factor if self.name == "identity" else super().limit_kernel(factor, h)


def _scale_and_correlation(v: Array) -> tuple[Array, Array]:
    """Return √(V^αα V^ββ) and ρ^αβ; the latter is clipped to [−1, 1], and 0 for a token of norm 0."""
    norm = np.sqrt(np.maximum(linalg.diagonal(v), 0))
    scale = norm[..., :, None] * norm[..., None, :]
    return scale, np.clip(np.divide(v, scale, out=np.zeros_like(v), where=scale > 0), -1, 1)


@lru_cache(maxsize=256)
def _second_moment(activation: AnyActivation, width: float, gain: float) -> float:
    """Return E σ(gain·g)² by Gauss–Legendre quadrature on each half line, so that a kink at 0 costs no accuracy."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    g = 7.0 * (nodes + 1)  # (0, 14): the tail beyond is below 1e-40
    density = 7.0 * weights * np.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)
    with np.errstate(over="ignore"):
        return float(sum(density @ activation.value(gain * side, width) ** 2 for side in (-g, g)))
