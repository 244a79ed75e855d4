"""Bayesian regression with networks of finite width, as an estimator of scikit-learn."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from ..checks import check_count, check_number, check_seed
from ..design.activations import Activation
from ..design.architecture import Architecture, shaped_mlp
from ..errors import InputError
from ..numerics.arrays import Floats
from .inference import infer
from .mixture import Mixture, checked_levels
from .networks import Networks, check_networks
from .tempering import Problem

DEFAULT_LEAST = 100
"""Effective sample size that is asked for by default, if there are at least four times as many samples."""


class Regressor(RegressorMixin, BaseEstimator):
    """Exact Bayesian regression with random networks of finite width: no training, no infinite width (theory §9).

    The prior of a function is f = √a·X_d w/√n: a network of the architecture at initialisation with a Gaussian readout
    w. Given the covariance V_d of the last layer, f is a Gaussian process, so the posterior is a mixture of Gaussian
    processes: over draws of V_d, each with the likelihood of the observations as its weight. Where few draws would
    carry all the weight, networks are led to the posterior by tempering.

    ```python
    x = np.linspace(-2, 2, 20)
    features = np.stack([x, np.ones(20)], axis=1)  # networks have no biases: a constant feature makes one
    model = st.bayes.Regressor(noise=0.01, samples=500).fit(features, np.sin(x))
    mean, std = model.predict([[0.5, 1.0]], return_std=True)
    model.log_evidence_, model.effective_sample_size_
    ```

    **Arguments:**

    - `architecture`: a network whose layers treat inputs one by one (`Dense`, `MLP`, norms). `None` (the default) is a
      ReLU network of width 64 and depth 2.
    - `noise`: variance σ² of the observations' noise, default 0.1; `None` chooses it by maximal evidence.
    - `prior_scale`: a, default 1; `None` chooses it by maximal evidence. At a = 1, f has about the variance ‖x‖²/p.
    - `samples`: networks that are drawn from the prior, default 4096.
    - `seed`: whole number, default 0; the same seed gives the same posterior.
    - `min_effective_samples`: effective sample size below which the draws' weights are not trusted and the posterior is
      reached by tempering. `None` (the default) is 100, or a quarter of `samples` if that is less.
    - `workers`: number of threads; `None` (the default) means all cores.

    Neither X nor y is centred or scaled; do it beforehand, for example by `StandardScaler` in a pipeline.

    **Attributes** after `fit`:

    - `log_evidence_`, `log_evidence_error_`: log of the marginal likelihood of y, and its Monte-Carlo standard error.
      The error is that of a given noise and scale; chosen ones make the evidence a maximum.
    - `effective_sample_size_`: of the posterior's networks.
    - `noise_`, `prior_scale_`: as given or chosen.
    - `tempered_`: whether tempering was needed.
    - `architecture_`, `X_train_`, `y_train_`, `n_features_in_`, and `feature_names_in_` if X has names.
    """

    def __init__(
        self,
        architecture: Architecture | None = None,
        *,
        noise: float | None = 0.1,
        prior_scale: float | None = 1.0,
        samples: int = 4096,
        seed: int = 0,
        min_effective_samples: float | None = None,
        workers: int | None = None,
    ) -> None:
        self.architecture = architecture
        self.noise = noise
        self.prior_scale = prior_scale
        self.samples = samples
        self.seed = seed
        self.min_effective_samples = min_effective_samples
        self.workers = workers

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Find the posterior.

        **Arguments:**

        - `X`: inputs, (P, p). Residual layers need p ≤ n.
        - `y`: observations, (P,), or (P, D) for several outputs, which share the network and have the same noise.

        **Returns:** the estimator.

        **Raises:** `InputError` for arguments that do not fit; `NotConverged` if the posterior is out of reach.
        """
        x, targets = _validated(self, X, y, y_numeric=True, multi_output=True)
        self.architecture_ = _default() if self.architecture is None else self.architecture
        networks = Networks(check_networks(self.architecture_, x.shape[1]), x)
        samples, scale, noise = self._checked()
        columns = _columns(targets)
        problem = Problem(networks, columns, check_seed(self.seed), self.workers)
        self._posterior = infer(problem, samples, scale, noise, self._least(samples))
        self.X_train_, self.y_train_ = x, targets
        self.noise_, self.prior_scale_ = self._posterior.at.noise, self._posterior.at.scale
        self.log_evidence_, self.log_evidence_error_ = self._posterior.log_evidence, self._posterior.error
        self.effective_sample_size_, self.tempered_ = self._posterior.effective, self._posterior.tempered
        return self

    def predict(self, X: ArrayLike, return_std: bool = False, return_cov: bool = False) -> Any:
        """Return the posterior mean of f, and if asked its standard deviation or covariance.

        Each point is predicted as if it were the only one: what else is asked changes nothing. For covariances, the
        points are drawn jointly.

        **Arguments:**

        - `X`: test points, (T, p).
        - `return_std`: whether to return the standard deviation of f too, without the noise. Default no.
        - `return_cov`: whether to return the covariance of f between the points too. Default no.

        **Returns:** the mean, (T,) or (T, D); with the standard deviation, of the same shape, or the covariance, (T, T)
        or (T, T, D).

        **Raises:** `InputError` for points that do not fit, or if both are asked for.
        """
        if return_std and return_cov:
            raise InputError("ask for return_std or return_cov, not both: std is the root of the diagonal of cov")
        if return_cov:
            tests, networks, columns = self._asked(X)
            mean, covariance = self._posterior.covariance(networks, columns, tests, self.workers)
            return self._shaped(mean), self._shaped(covariance)
        mixtures = self._mixtures(X)
        mean = self._shaped(np.concatenate([mixture.mean() for mixture in mixtures]))
        if not return_std:
            return mean
        return mean, self._shaped(np.sqrt(np.concatenate([mixture.variance() for mixture in mixtures])))

    def predict_quantiles(
        self, X: ArrayLike, q: float | Sequence[float] = (0.05, 0.95), *, observed: bool = False
    ) -> Floats:
        """Return quantiles of the predictive distribution, which is a mixture and not Gaussian.

        ```python
        model = st.bayes.Regressor(samples=100).fit(np.eye(3), [1.0, 0.0, -1.0])
        low, high = model.predict_quantiles(np.eye(3), (0.05, 0.95))
        ```

        **Arguments:**

        - `X`: test points, (T, p).
        - `q`: quantiles in (0, 1), default 5 % and 95 %.
        - `observed`: whether they are of new observations, f plus noise, and not of f. Default no.

        **Returns:** (quantiles, T) or (quantiles, T, D); without the first axis for one number q.

        **Raises:** `InputError` for numbers that are no quantiles.
        """
        levels = checked_levels(q)
        mixtures = self._mixtures(X)
        noise = self.noise_ if observed else 0.0
        found = np.concatenate([mixture.quantiles(levels, noise) for mixture in mixtures], axis=1)
        found = found[..., 0] if self.y_train_.ndim == 1 else found
        return found[0] if isinstance(q, Real) else found

    def log_predictive_density(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Return the log-density of new observations, each given the training data.

        ```python
        model = st.bayes.Regressor(samples=100).fit(np.eye(3), [1.0, 0.0, -1.0])
        model.log_predictive_density(np.eye(3), [0.9, 0.1, -1.0]).mean()
        ```

        **Arguments:**

        - `X`: test points, (T, p).
        - `y`: observations there, (T,) or (T, D).

        **Returns:** (T,); of several outputs it is the joint density.

        **Raises:** `InputError` for observations of another shape, or of density zero or infinity, as without noise.
        """
        check_is_fitted(self)
        tests, targets = _validated(self, X, y, reset=False, y_numeric=True, multi_output=True)
        if targets.shape[1:] != self.y_train_.shape[1:]:
            expected = (len(tests), *self.y_train_.shape[1:])
            raise InputError(f"y must have the outputs of fit, the shape {expected} (got {targets.shape})")
        mixtures = self._mixtures(tests)
        ends = np.cumsum([mixture.means.shape[1] for mixture in mixtures])[:-1]
        parts = np.split(_columns(targets), ends)
        found = np.concatenate([m.log_density(part, self.noise_) for m, part in zip(mixtures, parts, strict=True)])
        if not np.isfinite(found).all():
            i = int(np.argmin(np.isfinite(found)))
            raise InputError(
                f"the density of observation {i} is zero or infinite: without noise f is certain there, so fit with "
                "noise"
                if self.noise_ == 0
                else f"the density of observation {i} is too small for a number: y there is far from all predictions"
            )
        return found

    def _asked(self, X: ArrayLike) -> tuple[Floats, Networks, Floats]:
        """Return test points, the networks at the training inputs, and the observations as columns."""
        check_is_fitted(self)
        tests = _validated(self, X, reset=False)
        return tests, Networks(self.architecture_, self.X_train_), _columns(self.y_train_)

    def _mixtures(self, X: ArrayLike) -> list[Mixture]:
        """Return the predictive distributions of groups of test points."""
        tests, networks, columns = self._asked(X)
        return self._posterior.predict(networks, columns, tests, self.workers)

    def _shaped(self, values: Floats) -> Floats:
        """Return values with an axis of outputs only if y had one."""
        return values[..., 0] if self.y_train_.ndim == 1 else values

    def _checked(self) -> tuple[int, float | None, float | None]:
        """Return samples, prior scale and noise, checked."""
        scale = None if self.prior_scale is None else check_number(self.prior_scale, "prior_scale")
        noise = None if self.noise is None else check_number(self.noise, "noise")
        if scale is not None and not 0 < scale < math.inf:
            raise InputError(f"prior_scale must be positive, or None to choose it by the evidence (got {scale:g})")
        if noise is not None and not 0 <= noise < math.inf:
            raise InputError(f"noise is a variance: at least 0, or None to choose it by the evidence (got {noise:g})")
        return check_count(self.samples, "samples"), scale, noise

    def _least(self, samples: int) -> float:
        """Return the effective sample size that is asked for."""
        if self.min_effective_samples is None:
            return min(DEFAULT_LEAST, samples / 4)
        least = check_number(self.min_effective_samples, "min_effective_samples")
        if not 0 <= least <= samples:
            raise InputError(
                f"min_effective_samples must be between 0 and the number of samples, {samples:,} (got {least:g}): ask "
                "for fewer, or draw more samples"
            )
        return least


def _default() -> Architecture:
    """Return the default architecture."""
    return shaped_mlp(width=64, depth=2, activation=Activation("relu"))


def _columns(targets: NDArray[Any]) -> Floats:
    """Return observations, (P,) or (P, D), as numbers in columns, (P, D).

    **Raises:** `InputError` for what is no number, or too large.
    """
    try:
        with np.errstate(over="ignore"):
            columns = targets.astype(np.float64).reshape(len(targets), -1)
            size = np.sum(columns**2)
    except (TypeError, ValueError) as error:
        raise InputError(f"y must hold numbers ({error})") from None
    if not np.isfinite(size):
        raise InputError("y is infinite, or so large that its squares are: rescale it")
    return columns


def _validated(estimator: Regressor, *arrays: Any, **options: Any) -> Any:
    """Return arrays that scikit-learn has validated.

    **Raises:** `InputError` with its message in one line.
    """
    try:
        return validate_data(estimator, *arrays, dtype=np.float64, **options)
    except ValueError as error:
        raise InputError(" ".join(str(error).split())) from None
