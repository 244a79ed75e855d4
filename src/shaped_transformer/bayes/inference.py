"""From observations to the posterior: weights of the prior's draws where they suffice, else tempering (theory §9)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..numerics.arrays import Floats
from . import gaussian
from .evidence import Hyperparameters, Search, Weighted
from .gaussian import Spectra
from .networks import Result, check_memory, in_batches
from .normals import PRIOR, Particles, Streams
from .posterior import Posterior
from .tempering import Problem, temper


def infer(problem: Problem, samples: int, scale: float | None, noise: float | None, least: float) -> Posterior:
    """Return the posterior over networks.

    **Arguments:**

    - `problem`: networks, observations, seed and threads.
    - `samples`: draws of the prior.
    - `scale`, `noise`: a and σ²; `None` means by maximal evidence.
    - `least`: effective sample size, below which the posterior is reached by tempering.

    **Raises:** `InputError` if the covariance is singular; `NotConverged` if tempering fails too.
    """
    _check_rank(problem, noise)
    problem.networks.check_memory(problem.workers)
    if noise == 0 and scale is None:
        _log_likelihood(problem, samples, Hyperparameters(1.0, 0.0))  # refuses singular covariances
    if scale is None or noise is None:
        spectra = _spectra(problem, samples)
        search = Search.of(scale, noise, spectra, problem.y)
        at = search.best(spectra, np.zeros(samples))
        values = spectra.log_likelihood(at.scale, at.noise)
    else:
        at = Hyperparameters(scale, noise)
        search = Search(scale, noise, (scale, scale), (noise, noise))
        values = _log_likelihood(problem, samples, at)
    found = Weighted.of(values)
    if found.effective < least:
        return temper(problem, values, at, search, least)
    particles = Particles.of_prior(problem.seed, samples)
    return Posterior(particles, found.weights, at, found.log_evidence, found.error, found.effective, tempered=False)


def _check_rank(problem: Problem, noise: float | None) -> None:
    """Refuse noise 0 where every covariance is singular: more inputs than the last layer has units."""
    points, width = len(problem.y), problem.networks.architecture.width
    if noise == 0 and points > width:
        raise InputError(
            f"noise 0 needs at most as many inputs as the width {width} (got {points}): the outputs of {width} units "
            "span only as many dimensions; give noise, or a wider network"
        )


def _over_prior(problem: Problem, samples: int, task: Callable[[Floats], Result]) -> list[Result]:
    """Return `task(features)` for batches of the prior's draws, in their order."""

    def run(numbers: NDArray[np.int64], cancelled: Callable[[], bool]) -> Result:
        if cancelled():
            raise InterruptedError
        return task(problem.networks.features(Streams(problem.seed, PRIOR, numbers)))

    results = in_batches(run, samples, problem.networks.batch_size(), problem.workers, "prior")
    return [result for _, result in sorted(results, key=lambda pair: int(pair[0][0]))]


def _log_likelihood(problem: Problem, samples: int, at: Hyperparameters) -> Floats:
    """Return the log-likelihoods of the prior's draws."""
    task = partial(gaussian.log_likelihood, y=problem.y, scale=at.scale, noise=at.noise)
    return np.concatenate(_over_prior(problem, samples, task))


def _spectra(problem: Problem, samples: int) -> Spectra:
    """Return the spectra of the prior's draws."""
    rank = min(len(problem.y), problem.networks.architecture.width)
    check_memory(samples, 2 * rank, f"the spectra of {samples:,} draws", "ask for fewer samples")
    return Spectra.joined(_over_prior(problem, samples, partial(Spectra.of, y=problem.y)))
