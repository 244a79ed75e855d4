"""Deep linear networks: the prior of their outputs and the posterior, at finite width and in the limit [DL].

Given a matrix Q the outputs are Gaussian, with covariance Q between outputs and X Xᵀ/N₀ between inputs. Q is D × D
whatever the number of inputs, so that one output needs a quadrature and no draws (theory §9).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_count, check_number
from ..design.architecture import deep_linear
from ..errors import InputError, NotConverged, counted
from ..inputs import as_matrix
from ..numerics.arrays import Floats
from ..views import chain, sde
from .evidence import Weighted
from .mixture import Mixture, checked_levels
from .norms import log_normal, norm_of_products

LEAST_EFFECTIVE = 50
"""Effective sample size below which a posterior is refused."""

DROPPED = 1e-12
"""Draws of Q whose posterior weights together are below this are left out of predictions."""


@dataclass(frozen=True)
class DeepLinear:
    """The network f(x) = W_{L+1} ⋯ W₁ x/√(N₀ N^L), with independent N(0, 1) weights [DL].

    ```python
    network = st.bayes.DeepLinear(width=64, depth=16)
    network.density([0.0, 1.0], variance=1.0)  # more peaked than the normal density 0.399, 0.242
    X = np.random.default_rng(0).standard_normal((20, 5))
    posterior = network.fit(X, X[:, 0], noise=0.1)
    mean, std = posterior.predict(X[:2], return_std=True)
    posterior.log_evidence
    ```

    **Arguments:**

    - `width`: N, the number of units of each hidden layer.
    - `depth`: L, the number of hidden layers.
    - `outputs`: D, at most N; default 1.
    - `limit`: whether N and L are taken to infinity at this ratio L/N; default no.

    **Raises:** `InputError` for numbers out of range.
    """

    width: int
    depth: int
    outputs: int = 1
    limit: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "outputs"):
            check_count(getattr(self, name), name)
        if not isinstance(self.limit, bool):
            raise InputError(f"limit must be True or False (got {self.limit!r})")
        if self.outputs > self.width:
            raise InputError(
                f"{self.outputs} outputs of {self.width} hidden units are linearly dependent: use a width of at least "
                f"{self.outputs}"
            )

    def mixing(self, samples: int, seed: int, *, workers: int | None = None) -> Floats:
        """Draw Q, the covariance of the outputs for an input with |x|² = N₀, given the weights but W₁.

        At finite width it is the chain of a linear network that starts at the identity, in the limit its SDE.

        **Arguments:**

        - `samples`, `seed`, `workers`: as in `chain.sample`.

        **Returns:** (samples, D, D).
        """
        view = sde if self.limit else chain
        drawn = view.sample(
            deep_linear(self.width, self.depth), np.eye(self.outputs), samples, seed, record=1, workers=workers
        )
        return drawn.covariance[:, -1]

    def sample(self, X: ArrayLike, samples: int, seed: int) -> Floats:
        """Draw the outputs of random networks, (samples, P, D).

        **Arguments:**

        - `X`: inputs, (P, N₀).
        - `samples`, `seed`: number of networks, and the seed of their draws.
        """
        x = as_matrix(X, "inputs X")
        q = self.mixing(samples, seed)
        normals = np.random.default_rng([seed, 1]).standard_normal((samples, x.shape[1], self.outputs))
        return np.asarray(x @ (normals @ _root(q)) / math.sqrt(x.shape[1]))

    def density(self, f: ArrayLike, variance: float) -> Floats:
        """Return the density of one output of random networks at an input, by quadrature over Q.

        At finite width it is a Meijer G-function (Hanin and Zlokapa, arXiv 2104.11734).

        **Arguments:**

        - `f`: where.
        - `variance`: of the output, |x|²/N₀.

        **Raises:** `InputError` for several outputs or a variance that is not positive.
        """
        at, spread, weights = self._gaussians(f, variance)
        factors = weights / (np.sqrt(2 * np.pi) * spread)
        out = [float(np.sum(factors * np.exp(-((x / spread) ** 2) / 2))) for x in at.reshape(-1)]
        return np.asarray(out).reshape(at.shape)

    def distribution(self, f: ArrayLike, variance: float) -> Floats:
        """Return the probability that one output of random networks is at most f; arguments as of `density`."""
        from scipy.special import ndtr

        at, spread, weights = self._gaussians(f, variance)
        return np.asarray([float(weights @ ndtr(x / spread)) for x in at.reshape(-1)]).reshape(at.shape)

    def _gaussians(self, f: ArrayLike, variance: float) -> tuple[Floats, Floats, Floats]:
        """Return f, and the standard deviations and weights of the Gaussians that an output is a mixture of."""
        size = check_number(variance, "variance")
        try:
            at = np.asarray(f, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"f must hold finite numbers (got {f!r})") from None
        if not 0 < size < math.inf:
            raise InputError(f"variance must be a positive number (got {size:g})")
        if not np.isfinite(at).all():
            raise InputError("f must hold finite numbers")
        q, weights = self._nodes()
        some = weights > 0
        return at, np.sqrt(size * q[some]), weights[some]

    def _nodes(self) -> tuple[Floats, Floats]:
        """Return Q of one output as nodes and weights.

        **Raises:** `InputError` for several outputs.
        """
        if self.outputs > 1:
            raise InputError(f"this is for one output (got {self.outputs}): draw samples instead")
        return log_normal(self.depth / self.width) if self.limit else norm_of_products(self.width, self.depth)

    def fit(
        self, X: ArrayLike, y: ArrayLike, noise: float, *, prior_scale: float = 1.0, samples: int = 20000, seed: int = 0
    ) -> "DeepLinearPosterior":
        """Return the posterior given noisy outputs.

        **Arguments:**

        - `X`: inputs, (P, N₀).
        - `y`: observations, (P,) or (P, D): outputs plus Gaussian noise. Predictions have the same form.
        - `noise`: its variance σ².
        - `prior_scale`: by which outputs are multiplied, squared; default 1.
        - `samples`, `seed`: draws of Q for several outputs, default 20,000 and 0. One output needs none.

        **Raises:** `InputError` for arrays and numbers that do not fit, or noise 0 where the inputs are dependent;
        `NotConverged` where the draws have an effective sample size below 50.
        """
        x, targets = _observations(X, y, self.outputs)
        has_columns = np.ndim(y) == 2
        scale, sigma = check_number(prior_scale, "prior_scale"), check_number(noise, "noise")
        if not 0 < scale < math.inf or not 0 <= sigma < math.inf:
            raise InputError(
                f"noise must be at least 0 and prior_scale positive, both finite (got {sigma:g} and {scale:g})"
            )
        if self.outputs == 1:
            q, prior = self._nodes()
            q, prior = q[prior > 0, None, None], prior[prior > 0]
        else:
            q, prior = self.mixing(samples, seed), np.full(samples, 1 / samples)
        exact = self.outputs == 1
        return DeepLinearPosterior.of(x, targets, scale * q, prior, sigma, has_columns=has_columns, exact=exact)


@dataclass(frozen=True, eq=False, repr=False)
class DeepLinearPosterior:
    """A mixture of Gaussian processes k(x, x')·Q, k(x, x') = x·x'/N₀, over draws or nodes of Q.

    **Attributes:**

    - `inputs`: X, (P, N₀).
    - `mixing`: eigenvectors, (draws, D, D), and `strengths`: eigenvalues of Q, (draws, D).
    - `weights`: of the draws, summing to 1.
    - `targets`: y along the eigenvectors of X Xᵀ/N₀ and of Q, (draws, r, D), r the rank.
    - `vectors`, `values`: eigenvectors, (P, r), and eigenvalues of X Xᵀ/N₀.
    - `noise`: σ².
    - `has_columns`: whether y was (P, D), not (P,); predictions have the same form.
    - `log_evidence`, `log_evidence_error`: log of the marginal likelihood, and its standard error, 0 by quadrature.
    - `effective_sample_size`: of the draws; of a quadrature, infinity.
    """

    inputs: Floats
    mixing: Floats
    strengths: Floats
    weights: Floats
    targets: Floats
    vectors: Floats
    values: Floats
    noise: float
    has_columns: bool
    log_evidence: float
    log_evidence_error: float
    effective_sample_size: float

    def __repr__(self) -> str:
        sizes = f"{counted(len(self.inputs), 'input')}, {counted(self.mixing.shape[-1], 'output')}"
        return f"DeepLinearPosterior({sizes}, noise {self.noise:g}, log evidence {self.log_evidence:.6g})"

    @classmethod
    def of(
        cls, x: Floats, y: Floats, q: Floats, prior: Floats, noise: float, *, has_columns: bool, exact: bool
    ) -> "DeepLinearPosterior":
        """Weigh draws of Q, (draws, D, D), by the likelihood of y, (P, D).

        **Raises:** as `DeepLinear.fit`.
        """
        vectors, singular, _ = np.linalg.svd(x / math.sqrt(x.shape[1]), full_matrices=False)
        kept = singular > singular[:1] * 1e-12
        vectors, values = vectors[:, kept], singular[kept] ** 2
        points, outputs = y.shape
        left = points - len(values)
        if noise == 0 and left:
            raise InputError(
                f"noise 0 needs independent inputs ({points} inputs span {len(values)} dimensions): give a positive "
                "noise"
            )
        strengths, mixing = np.linalg.eigh(q)
        strengths = np.maximum(strengths, 0.0)
        parts = vectors.T @ y
        targets = parts @ mixing
        total = strengths[:, None, :] * values[:, None] + noise
        if not (total > 0).all():
            raise InputError("with noise 0 the covariance of some draws is singular: give a positive noise")
        log_likelihood = -np.sum(np.log(total) + targets**2 / total, axis=(1, 2)) / 2
        if left:
            rest = max(float(np.sum(y**2) - np.sum(parts**2)), 0.0)
            log_likelihood -= (left * outputs * math.log(noise) + rest / noise) / 2
        log_likelihood -= points * outputs * math.log(2 * math.pi) / 2
        found = Weighted.of(log_likelihood + np.log(prior * len(prior)))
        if not exact and found.effective < LEAST_EFFECTIVE:
            raise NotConverged(
                f"the posterior was not reached: {len(q):,} draws have an effective sample size of "
                f"{found.effective:.0f} ({LEAST_EFFECTIVE} are needed). Use more samples or a larger noise"
            )
        order = np.argsort(found.weights)
        some = np.sort(order[np.cumsum(found.weights[order]) > DROPPED])
        weights = found.weights[some] / found.weights[some].sum()
        error, effective = (0.0, math.inf) if exact else (found.error, found.effective)
        known = (targets[some], vectors, values, noise, has_columns, found.log_evidence, error, effective)
        return cls(x, mixing[some], strengths[some], weights, *known)

    def _along(self, tests: Floats) -> tuple[Floats, Floats]:
        """Return k(tests, X) along the eigenvectors of X Xᵀ/N₀, (T, r), and its share that the data determine."""
        cross = tests @ self.inputs.T / self.inputs.shape[1] @ self.vectors
        return cross, self.strengths[:, None, :] / (self.strengths[:, None, :] * self.values[:, None] + self.noise)

    def _moments(self, tests: Floats) -> tuple[Floats, Floats]:
        """Return means, (draws, T, D), and variances along the eigenvectors of Q, (draws, T, D)."""
        cross, gain = self._along(tests)
        means = cross @ (gain * self.targets)
        own = np.sum(tests**2, axis=1) / self.inputs.shape[1]
        reduced = cross**2 @ (gain * self.strengths[:, None, :])
        variances = np.maximum(own[:, None] * self.strengths[:, None, :] - reduced, 0.0)
        return means, variances

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Return the posterior mean of the outputs at test points, and if asked their standard deviation.

        **Arguments:**

        - `X`: test points, (T, N₀).
        - `return_std`: whether to return the standard deviation of the outputs too, without the noise. Default no.

        **Returns:** the mean, (T,) or (T, D) as y was; with the standard deviation, of the same shape.
        """
        tests = self._tests(X)
        mean = self._shaped(self._mean(tests))
        if not return_std:
            return mean
        variances = np.diagonal(self.output_covariance(tests), axis1=1, axis2=2)
        return mean, self._shaped(np.sqrt(variances))

    def _mean(self, tests: Floats) -> Floats:
        """Return the posterior means, (T, D)."""
        means, _ = self._moments(tests)
        return np.asarray(np.einsum("s,std,sed->te", self.weights, means, self.mixing))

    def output_covariance(self, X: ArrayLike) -> Floats:
        """Return the posterior covariance between the outputs at each test point, without the noise, (T, D, D).

        **Arguments:**

        - `X`: test points, (T, N₀).
        """
        means, variances = self._moments(self._tests(X))
        rotated = np.einsum("std,sed->ste", means, self.mixing)
        spread = rotated - np.einsum("s,ste->te", self.weights, rotated)
        between = np.einsum("s,ste,stf->tef", self.weights, spread, spread)
        return np.asarray(between + np.einsum("s,std,sed,sfd->tef", self.weights, variances, self.mixing, self.mixing))

    def _mixtures(self, X: ArrayLike) -> list[Mixture]:
        """Return the distribution of each output."""
        means, variances = self._moments(self._tests(X))
        rotated = np.einsum("std,sed->ste", means, self.mixing)
        own = np.einsum("std,sed->ste", variances, self.mixing**2)
        return [Mixture(self.weights, rotated[..., i : i + 1], own[..., i]) for i in range(rotated.shape[-1])]

    def predict_quantiles(
        self, X: ArrayLike, q: float | Sequence[float] = (0.05, 0.95), *, observed: bool = False
    ) -> Floats:
        """Return quantiles of the outputs at test points.

        **Arguments:**

        - `X`: test points, (T, N₀).
        - `q`: quantiles in (0, 1), default 5 % and 95 %.
        - `observed`: whether they are of new observations, output plus noise, and not of the output. Default no.

        **Returns:** (quantiles, T) or (quantiles, T, D), as y was; without the first axis for one number q.

        **Raises:** `InputError` for numbers that are no quantiles.
        """
        levels = checked_levels(q)
        noise = self.noise if observed else 0.0
        found = self._shaped(np.concatenate([m.quantiles(levels, noise) for m in self._mixtures(X)], axis=-1))
        return found[0] if isinstance(q, Real) else found

    def _shaped(self, values: Floats) -> Floats:
        """Return values with an axis of outputs only if y had one."""
        return values if self.has_columns else values[..., 0]

    def _tests(self, X: ArrayLike) -> Floats:
        return as_matrix(X, "test points X", columns=self.inputs.shape[1])


def _observations(X: ArrayLike, y: ArrayLike, outputs: int) -> tuple[Floats, Floats]:
    """Return inputs and observations as matrices, checked to belong together."""
    x, targets = as_matrix(X, "inputs X"), np.asarray(y)
    targets = as_matrix(targets[:, None] if targets.ndim == 1 else targets, "observations y")
    if targets.shape != (len(x), outputs):
        raise InputError(
            f"y must hold {counted(outputs, 'number')} for each of the {len(x)} inputs (got shape {np.shape(y)}): "
            "DeepLinear(..., outputs=) sets how many"
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(np.sum(targets**2)):
            raise InputError("y is so large that its squares overflow: rescale it")
    return x, targets


def _root(q: Floats) -> NDArray[np.float64]:
    """Return the symmetric roots of covariances."""
    values, vectors = np.linalg.eigh(q)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.swapaxes(-1, -2))
