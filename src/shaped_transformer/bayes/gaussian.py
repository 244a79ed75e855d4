"""Gaussian processes with known features: likelihood, prediction and spectrum for each network of a batch (theory §9).

Given a network's features Φ = X_d/√n, its outputs are N(0, a·Φ Φᵀ), a the prior scale, and observations have noise σ²
besides. With more inputs than features the matrices are n × n, in the space of the features, else P × P.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..numerics.arrays import Floats

SINGULAR = 1e-13
"""Squared pivots below this share of their diagonal entry are rounding errors: the matrix is singular in float64."""


def log_likelihood(features: Floats, y: Floats, scale: float, noise: float) -> Floats:
    """Return log N(y; 0, a·Φ Φᵀ + σ²), summed over the outputs, for each network; −∞ where Φ overflowed.

    **Arguments:**

    - `features`: Φ, (networks, P, n).
    - `y`: observations, (P, D).
    - `scale`, `noise`: a and σ².

    **Raises:** `InputError` if the covariance is singular in float64.
    """
    (points, outputs), out = y.shape, np.full(len(features), -np.inf)
    finite = finite_networks(features)
    phi = np.sqrt(scale) * features[finite]
    if _in_feature_space(phi):
        factor, log_det = _cholesky(_transposed(phi) @ phi, noise)
        weights = _weights(factor, phi, y)
        rest = y - phi @ weights
        squares = np.sum(rest**2, axis=(1, 2)) / noise + np.sum(weights**2, axis=(1, 2))  # no digits cancel
        log_det += (points - phi.shape[-1]) * np.log(noise)
    else:
        factor, log_det = _cholesky(phi @ _transposed(phi), noise)
        squares = np.sum(_solved(factor, y) ** 2, axis=(1, 2))
    out[finite] = -(squares + outputs * log_det + points * outputs * np.log(2 * np.pi)) / 2
    return out


@dataclass(frozen=True, eq=False)
class Prediction:
    """Outputs at test points given the observations, for each network.

    **Attributes:**

    - `mean`: (networks, T, D).
    - `covariance`: (networks, T, T) if it was asked for, else variances, (networks, T).
    """

    mean: Floats
    covariance: Floats


def predict(
    features: Floats, tests: Floats, y: Floats, scale: float, noise: float, covariance: bool = False
) -> Prediction:
    """Return mean and variance of the outputs at test points, given the observations and each network's features.

    **Arguments:**

    - `features`: Φ at the training inputs, (networks, P, n), finite.
    - `tests`: Φ at the test points, (networks, T, n).
    - `y`, `scale`, `noise`: as in `log_likelihood`.
    - `covariance`: whether covariances of test points are returned instead of variances, default no.

    **Returns:** the prediction, not finite where the features at test points overflow.
    """
    phi, asked = np.sqrt(scale) * features, np.sqrt(scale) * tests
    in_feature_space = _in_feature_space(phi)
    factor, _ = _cholesky(_transposed(phi) @ phi if in_feature_space else phi @ _transposed(phi), noise)
    with np.errstate(over="ignore", invalid="ignore"):
        if in_feature_space:
            mean = asked @ _weights(factor, phi, y)
            half = np.sqrt(noise) * _solved(factor, _transposed(asked))
            if covariance:
                return Prediction(mean, _transposed(half) @ half)
            return Prediction(mean, np.sum(half**2, axis=1))
        half = _solved(factor, phi @ _transposed(asked))
        mean = _transposed(half) @ _solved(factor, y)
        if covariance:
            return Prediction(mean, asked @ _transposed(asked) - _transposed(half) @ half)
        own = np.sum(asked**2, axis=-1)
        left = own - np.sum(half**2, axis=1)
        return Prediction(mean, np.where(left <= SINGULAR * own, 0.0, left))  # rounding errors are no variance


@dataclass(frozen=True, eq=False)
class Spectra:
    """What the likelihood needs to know of each network, for every scale and noise at once.

    **Attributes:**

    - `values`: eigenvalues of Φ Φᵀ, (networks, r), r = min(P, n).
    - `squares`: squared parts of y along the eigenvectors, summed over the outputs, (networks, r).
    - `rest`: square of what is left of y, (networks,).
    - `points`, `outputs`: P and D.
    """

    values: Floats
    squares: Floats
    rest: Floats
    points: int
    outputs: int

    @classmethod
    def of(cls, features: Floats, y: Floats) -> Self:
        """Return the spectra of networks with features Φ, (networks, P, n); those of Φ that overflowed are NaN."""
        finite = finite_networks(features)
        phi, total = features[finite], np.sum(y**2)
        count = min(phi.shape[1:])
        values, squares = np.full((2, len(features), count), np.nan)
        if _in_feature_space(phi):
            found, vectors = np.linalg.eigh(_transposed(phi) @ phi)
            lengths = np.sqrt(np.maximum(found, SINGULAR * found[:, -1:]))[..., None]
            parts = _transposed(vectors) @ (_transposed(phi) @ y)
            parts = np.divide(parts, lengths, out=np.zeros_like(parts), where=lengths > 0)  # 0 where all units are dead
        else:
            found, vectors = np.linalg.eigh(phi @ _transposed(phi))
            parts = _transposed(vectors) @ y
        values[finite], squares[finite] = np.maximum(found, 0.0), np.sum(parts**2, axis=-1)
        return cls(values, squares, np.maximum(total - np.sum(squares, axis=1), 0.0), *y.shape)

    @classmethod
    def joined(cls, parts: Sequence["Spectra"]) -> Self:
        """Return the spectra of several batches, one after another."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.squares for part in parts]),
            np.concatenate([part.rest for part in parts]),
            parts[0].points,
            parts[0].outputs,
        )

    def log_likelihood(self, scale: float, noise: float) -> Floats:
        """Return the log-likelihood of each network at this scale a and noise σ², (networks,)."""
        total = scale * self.values + noise
        null = self.points - self.values.shape[1]
        out = np.sum(self.outputs * np.log(total) + self.squares / total, axis=1)
        if null:
            out += self.outputs * null * np.log(noise) + self.rest / noise
        out = -(out + self.points * self.outputs * np.log(2 * np.pi)) / 2
        return np.where(np.isnan(out), -np.inf, out)

    def slopes(self, scale: float, noise: float) -> Floats:
        """Return the derivatives of the log-likelihoods with respect to log a and log σ², (networks, 2)."""
        total = scale * self.values + noise
        by_value = (self.outputs - self.squares / total) / total
        null = self.points - self.values.shape[1]
        by_noise = noise * np.sum(by_value, axis=1)
        if null:
            by_noise += self.outputs * null - self.rest / noise
        out = -np.stack([scale * np.sum(by_value * self.values, axis=1), by_noise], axis=1) / 2
        return np.where(np.isnan(out), 0.0, out)


def finite_networks(features: Floats) -> NDArray[np.bool_]:
    """Return which networks have features whose squares are finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.sum(np.square(features), axis=(1, 2)))


def _in_feature_space(phi: Floats) -> bool:
    """Whether there are more inputs than features, so that matrices are n × n."""
    return phi.shape[1] > phi.shape[2]


def _transposed(a: Floats) -> Floats:
    return a.swapaxes(-1, -2)


def _weights(factor: Floats, phi: Floats, y: Floats) -> Floats:
    """Return the mean of the readout weights, (ΦᵀΦ + σ²)⁻¹Φᵀy, given the factor of the matrix."""
    return _solved(factor, _solved(factor, _transposed(phi) @ y), transposed=True)


def _cholesky(gram: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return the lower factor of gram + σ², and its log-determinant."""
    total = np.asarray(gram + noise * np.eye(gram.shape[-1]), np.float64)
    try:
        factor = np.asarray(np.linalg.cholesky(total), np.float64)
    except np.linalg.LinAlgError:
        factor = np.zeros_like(total)
    pivots, diagonal = (np.diagonal(a, axis1=-2, axis2=-1) for a in (factor, total))
    if not (pivots**2 > SINGULAR * diagonal).all():
        raise InputError(
            f"with noise {noise:g} the covariance of the observations is singular: repeated or dependent inputs need "
            "noise; give a larger noise, or smaller inputs"
        )
    return factor, np.asarray(2 * np.sum(np.log(pivots), axis=-1), np.float64)


def _solved(factor: Floats, right: Floats, transposed: bool = False) -> Floats:
    """Return L⁻¹·right, or L⁻ᵀ·right, for each lower-triangular L; `right` may be one matrix for all."""
    from scipy.linalg.lapack import dtrtrs

    rights = np.broadcast_to(right, (len(factor), *right.shape[-2:]))
    out = np.empty(rights.shape)
    for lower, one, place in zip(factor, rights, out, strict=True):
        place[:] = dtrtrs(lower.T, one, lower=0, trans=0 if transposed else 1)[0]
    return out
