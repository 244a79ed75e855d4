"""Posteriors that draws of the prior do not reach: a population of networks is led there step by step (theory §9).

Sequential Monte Carlo (Del Moral, Doucet, Jasra, *Sequential Monte Carlo samplers*, 2006): the likelihood is raised to
powers from 0 to 1, each chosen such that the weights stay even. Between two powers networks are resampled, and moved by
elliptical slice sampling until they have forgotten where they were. The same steps follow the scale and the noise to
the largest evidence. The population consists of islands that never exchange networks: how they differ gives the errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import NotConverged
from ..io.progress import progress
from ..numerics.arrays import Floats
from . import gaussian
from .evidence import Hyperparameters, Search, Weighted, log_mean_exp
from .gaussian import Spectra
from .networks import Networks, Result, check_memory, in_batches
from .normals import CHOICES, PRIOR, Given, Particles, Streams, stage_of_move, uniforms
from .posterior import Posterior
from .slices import UNIFORMS, slice_move

ISLANDS = 16
"""Number of islands."""

SHARE, LEAST_PARTICLES = 8, 256
"""The population has a network for this many draws of the prior, but at least so many."""

EVEN = 0.5
"""Effective share of the population after each change of the power: smaller steps need more moves in all."""

FORGOTTEN = 0.5
"""Correlation with the state before the moves, of normals and of log-likelihoods, below which the moves suffice."""

MAX_MOVES = 1000
"""Moves after each change of the power at most."""

FORECAST, STUCK = 40, 4.0
"""After so many moves, tempering ends if it seems to need more than this many times `MAX_MOVES`."""

ROUND = 4
"""One move more at a time for each so many moves, before it is looked how much is forgotten."""

MAX_CLIMBS, LEAST_GAIN = 20, 0.02
"""Steps of scale and noise at most, and the gain of log evidence below which they end."""

MAX_ERROR = 0.5
"""Largest standard error of the log evidence."""

ADVICE = "Use more samples or noise, fewer observations, or a wider, shallower network"

STATE_NUMBERS = 2**21
"""Numbers in the states of a batch of moves: 16 megabytes, a few times over."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What the posterior is of: networks, observations y, (P, D), the seed, and the threads."""

    networks: Networks
    y: Floats
    seed: int
    workers: int | None

    def log_likelihood(self, state: Floats, at: Hyperparameters) -> Floats:
        """Return the log-likelihoods of networks with the given normals."""
        features = self.networks.features(Given(state))
        return gaussian.log_likelihood(features, self.y, at.scale, at.noise)


class Population:
    """Networks on islands; each network has a state, its normals, and an address, from which it is drawn again."""

    def __init__(self, problem: Problem, prior: Floats, power: float, at: Hyperparameters) -> None:
        """Choose the networks from draws of the prior with these log-likelihoods, at a first power."""
        count = max(min(LEAST_PARTICLES, len(prior)), len(prior) // SHARE)
        self.islands = min(ISLANDS, count)
        self.each = count // self.islands
        numbers, size = self.islands * self.each, problem.networks.normals()
        check_memory(
            numbers,
            2 * size,
            f"{numbers} networks with {size:,} normals each",
            "use fewer samples or a smaller network",
        )
        self.problem, self.at, self.power = problem, at, power
        self.rounds = 0
        draws = len(prior) // self.islands
        groups = (power * prior[: draws * self.islands]).reshape(self.islands, draws)
        self.log_evidence = log_mean_exp(groups, axis=1)
        chosen = self._chosen(groups) + np.arange(self.islands)[:, None] * draws
        self.numbers = chosen.reshape(-1, 1)
        self.coefficients = np.ones((numbers, 1))
        self.value = prior[self.numbers[:, 0]]
        self.state = np.empty((numbers, size))
        self.batch = max(1, min(problem.networks.batch_size(), STATE_NUMBERS // size))
        for some in np.array_split(np.arange(numbers), -(-numbers // self.batch)):
            self.state[some] = Streams(problem.seed, PRIOR, self.numbers[some, 0]).normal(1, size)[:, 0]

    def __len__(self) -> int:
        return len(self.state)

    def _chosen(self, log_weights: Floats) -> NDArray[np.int64]:
        """Return which networks of each island go on, (islands, each), by systematic resampling."""
        start = uniforms(self.problem.seed, CHOICES, [self.rounds], self.islands)[0]
        self.rounds += 1
        places = (start[:, None] + np.arange(self.each)) / self.each
        out = np.empty((self.islands, self.each), dtype=np.int64)
        for island, weights in enumerate(log_weights):
            total = np.cumsum(Weighted.of(weights).weights)
            out[island] = np.minimum(np.searchsorted(total, places[island], side="right"), len(weights) - 1)
        return out

    def reweight(self, increments: Floats) -> None:
        """Multiply the likelihoods by exp(increments), count this in the evidence, and resample each island."""
        groups = increments.reshape(self.islands, self.each)
        self.log_evidence = self.log_evidence + log_mean_exp(groups, axis=1)
        kept = (self._chosen(groups) + np.arange(self.islands)[:, None] * self.each).ravel()
        self.state, self.value = self.state[kept], self.value[kept]
        self.numbers, self.coefficients = self.numbers[kept], self.coefficients[kept]

    def move(self) -> None:
        """Move the networks until they have forgotten their states, or `MAX_MOVES` times: then islands differ more.

        **Raises:** `NotConverged` if they have hardly moved.
        """
        before, memory, moves = self.value.copy(), np.ones(len(self)), 0
        while moves < MAX_MOVES:
            count = 1 + moves // ROUND
            memory *= np.prod(np.cos(self._move_times(count)), axis=0)
            moves += count
            left = max(math.sqrt(np.mean(memory**2)), abs(_correlation(before, self.value)))
            if left < FORGOTTEN:
                return
            if moves > FORECAST and moves * math.log(FORGOTTEN) < STUCK * MAX_MOVES * math.log(left):
                raise NotConverged(
                    f"the posterior was not reached: at power {self.power:.2g} of the likelihood the networks hardly "
                    f"move. {ADVICE}"
                )

    def _move_times(self, count: int) -> Floats:
        """Move each network so many times, and return the angles, (count, networks)."""
        angles, first = np.empty((count, len(self))), self.numbers.shape[1]
        task = partial(self._moved, range(first, first + count))
        for some, (state, value, taken) in in_batches(task, len(self), self.batch, self.problem.workers):
            self.state[some], self.value[some], angles[:, some] = state, value, taken
        own = np.broadcast_to(np.arange(len(self))[:, None], (len(self), count))
        self.numbers = np.hstack([self.numbers, own])
        after = np.cumprod(np.vstack([np.cos(angles), np.ones(len(self))])[::-1], axis=0)[::-1].T
        new = np.sin(angles).T * after[:, 1:]
        self.coefficients = np.hstack([self.coefficients * after[:, :1], new])
        return angles

    def _moved(
        self, moves: range, some: NDArray[np.int64], cancelled: Callable[[], bool]
    ) -> tuple[Floats, Floats, Floats]:
        """Return states, log-likelihoods and angles of some networks after moves."""

        def target(state: Floats) -> Floats:
            if cancelled():
                raise InterruptedError
            return self.power * self.problem.log_likelihood(state, self.at)

        state, value, angles = self.state[some], self.power * self.value[some], []
        for stage in map(stage_of_move, moves):
            other = Streams(self.problem.seed, stage, some).normal(1, state.shape[1])[:, 0]
            chosen = uniforms(self.problem.seed, stage + 1, some, UNIFORMS)
            state, value, angle = slice_move(state, value, other, target, chosen)
            angles.append(angle)
        return state, value / self.power, np.stack(angles)

    def over_networks(self, task: Callable[[Floats], Result]) -> list[Result]:
        """Return `task(features)` for batches of networks, in their order."""

        def run(some: NDArray[np.int64], cancelled: Callable[[], bool]) -> Result:
            if cancelled():
                raise InterruptedError
            return task(self.problem.networks.features(Given(self.state[some])))

        results = in_batches(run, len(self), self.batch, self.problem.workers)
        return [result for _, result in sorted(results, key=lambda pair: int(pair[0][0]))]


def temper(problem: Problem, prior: Floats, at: Hyperparameters, search: Search, least: float) -> Posterior:
    """Return the posterior by tempering, from draws of the prior with log-likelihoods `prior` at scale and noise `at`.

    **Arguments:**

    - `problem`: what the posterior is of.
    - `prior`: log-likelihoods of the first draws of the prior, (samples,).
    - `at`: scale and noise at first.
    - `search`: which of them follow the largest evidence.
    - `least`: effective sample size to be reached.

    **Raises:** `NotConverged` if the networks hardly move, or if the islands disagree.
    """
    with progress("posterior", 1.0) as advance:
        power = _next_power(prior, 0.0, max(EVEN / 2, min(1.0, LEAST_PARTICLES / len(prior))))
        population = Population(problem, prior, power, at)
        population.move()
        advance(power)
        while population.power < 1:
            power = _next_power(population.value, population.power, EVEN)
            population.reweight((power - population.power) * population.value)
            advance(power - population.power)
            population.power = power
            population.move()
        if search.open:
            _climb(population, search)
        posterior = _posterior(population)
        if posterior.effective < least:
            population.move()
            posterior = _posterior(population)
    _check(posterior, population.islands, least)
    return posterior


def _next_power(log_likelihood: Floats, power: float, share: float) -> float:
    """Return the next power, at which this share of the draws is effective, or 1 if all powers are even enough."""

    def effective(following: float) -> float:
        return Weighted.of((following - power) * log_likelihood).effective / len(log_likelihood)

    if effective(1.0) >= share:
        return 1.0
    low, high = power, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= share else (low, middle)
    return max(low, power + 1e-6)


def _climb(population: Population, search: Search) -> None:
    """Follow scale and noise to the largest evidence, and the networks with them."""
    for _ in range(MAX_CLIMBS):
        spectra = Spectra.joined(population.over_networks(partial(Spectra.of, y=population.problem.y)))
        weights = np.repeat(population.log_evidence, population.each) - population.value
        best = search.best(spectra, weights, population.at, least=EVEN)
        change = spectra.log_likelihood(best.scale, best.noise) - population.value
        gain = Weighted.of(weights + population.value + change).log_evidence - float(
            log_mean_exp(population.log_evidence)
        )
        population.value = population.value + change
        population.reweight(change)
        population.at = best
        population.move()
        if gain < LEAST_GAIN:
            return


def _posterior(population: Population) -> Posterior:
    """Return the posterior of a population at power 1, with what the islands say about its errors."""
    at, y = population.at, population.problem.y

    def fitted(features: Floats) -> Floats:
        return gaussian.predict(features, features, y, at.scale, at.noise).mean.reshape(len(features), -1)

    found = np.concatenate(population.over_networks(fitted))
    islands = Weighted.of(population.log_evidence)
    shape = (population.islands, population.each, -1)
    effective = min(_effective(quantity.reshape(shape)) for quantity in (found, population.value))
    effective *= islands.effective / population.islands
    spread = float(np.std(islands.weights, ddof=1)) * population.islands
    error = spread / math.sqrt(population.islands)
    return Posterior(
        Particles(population.problem.seed, population.numbers, population.coefficients),
        np.repeat(islands.weights / population.each, population.each),
        at,
        islands.log_evidence,
        error,
        effective,
        tempered=True,
    )


def _check(posterior: Posterior, islands: int, least: float) -> None:
    """Raise `NotConverged` if the islands disagree."""
    if posterior.effective < least or posterior.error > MAX_ERROR:
        raise NotConverged(
            f"the posterior was not reached: {islands} groups of networks agree only as well as "
            f"{posterior.effective:.0f} independent networks would ({least:.0f} are needed), and their log evidence "
            f"has a standard error of {posterior.error:.2g} ({MAX_ERROR:g} is allowed). {ADVICE}"
        )


def _effective(values: Floats) -> float:
    """Return how many independent networks would make island means differ as these do, at most all networks.

    **Arguments:**

    - `values`: one quantity or several, (islands, networks of an island, quantities).
    """
    islands, each, _ = values.shape
    total = np.sum(np.var(values.reshape(islands * each, -1), axis=0))
    between = np.sum(np.var(values.mean(axis=1), axis=0, ddof=1))
    return float(min(islands * total / between, islands * each)) if between > 0 else float(islands * each)


def _correlation(first: Floats, second: Floats) -> float:
    """Return the correlation of two lists of numbers, 0 if one is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0
