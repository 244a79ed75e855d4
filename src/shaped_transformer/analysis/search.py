"""The search for the largest γ that is stable: a bracket from a few paths, then tests that are valid at every look."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import InputError, counted
from ..estimates import Estimate, share_of_counts
from .sequential import Decision, SequentialTest

SMALLEST = 0.01
"""Smallest γ that the search tries: weaker branches have next to no effect."""
LARGEST = 1.0
"""Largest γ: the branch without a skip."""
NUMBERS = 1.6e11
"""Numbers that the paths of one test may take at most: a minute on two cores."""
MOST = 4096
"""Most paths of a test, however small the problem."""
FEWEST_LOOKS = 1.9
"""Fewest paths of a test, over those that decide if all are healthy: one may be unhealthy."""

Stage = Literal["bracket", "test"]
"""The two stages of the search."""
Counts = tuple[int, int]
"""Healthy and other paths."""
Draw = Callable[[float, Stage, int], Generator[Counts, None, None]]
"""Draws paths at γ, at most so many, and yields the counts of each batch. Both stages have draws of their own."""


@dataclass(frozen=True)
class Plan:
    """How many paths the search may draw and how finely it searches.

    **Attributes:**

    - `samples`: most paths of each test.
    - `precision`: factor within which γ is found.
    """

    samples: int
    precision: float

    @property
    def bracket(self) -> int:
        """Paths at each γ of the bracket."""
        return -(-self.samples // 16)

    @property
    def batch(self) -> dict[Stage, int]:
        """Paths between two looks: half of those of the bracket, which two threads draw, and a sixteenth of a test."""
        return {"bracket": -(-self.bracket // 2), "test": self.bracket}

    @property
    def paths(self) -> int:
        """Paths that a search draws at most, unless its bracket is far off: those of the bracket and of three tests."""
        halvings = math.log2(math.log(LARGEST / SMALLEST) / math.log(self.precision))
        return (1 + math.ceil(halvings)) * self.bracket + 3 * self.samples


def plan_for(architecture: Architecture, tokens: int, test: SequentialTest, samples: int | None = None) -> Plan:
    """Return the plan for a network, from its size alone, so that the advice does not depend on the machine.

    γ is known to 2 %, or to 10 % where fewer than a thousand paths can be drawn in a test.

    **Arguments:**

    - `architecture`: the network.
    - `tokens`: number of tokens m.
    - `test`: the test, which a number of healthy paths must be able to decide.
    - `samples`: most paths of each test; `None` (the default) is what takes about a minute.

    **Raises:** `InputError` if so few samples can never decide.
    """
    n, m = architecture.width, tokens
    path = architecture.depth * len(architecture.block) * m**2 * (n + m)
    least = test.fewest
    if samples is None:
        chosen = max(min(MOST, int(NUMBERS / path)), math.ceil(FEWEST_LOOKS * least))
    elif check_count(samples, "samples") < least:
        raise InputError(
            f"{counted(samples, 'sample')} cannot show a share of {test.bound:g} with confidence "
            f"{test.confidence:g}: draw at least {least} samples"
        )
    else:
        chosen = samples
    return Plan(chosen, 1.02 if chosen > MOST // 4 else 1.1)


@dataclass(frozen=True)
class Trial:
    """The paths that were drawn at one γ, and what they decide.

    **Attributes:**

    - `gamma`: γ.
    - `stage`: `"bracket"`, or `"test"`, whose decision is certain.
    - `healthy`, `unhealthy`: numbers of paths.
    - `decision`: whether the share of healthy networks is `"above"` or `"below"` the wanted probability, or `"open"`.
    """

    gamma: float
    stage: Stage
    healthy: int
    unhealthy: int
    decision: Decision

    @property
    def share(self) -> Estimate[float]:
        """The share of healthy paths with its Wilson interval."""
        return share_of_counts(self.healthy, self.healthy + self.unhealthy)


def search(draw: Draw, test: SequentialTest, plan: Plan) -> Iterator[Trial]:
    """Yield the trials of a search for the largest stable γ.

    The bracket bisects log γ; a γ passes if the share among a few paths reaches the wanted probability. From its lower
    end the tests go up by the plan's precision while γ is accepted, or down by its square root until it is.

    **Arguments:**

    - `draw`: draws paths at a γ.
    - `test`: decides whether enough networks are healthy.
    - `plan`: numbers of paths, and precision.

    **Returns:** trials in the order of the search; the largest γ that a test accepted is the result.
    """
    low, high = SMALLEST, LARGEST
    trial = _bracket_trial(draw, LARGEST, test.bound, plan)
    yield trial
    if trial.decision == "above":
        low = LARGEST
    while high / low > plan.precision:
        middle = math.sqrt(low * high)
        trial = _bracket_trial(draw, middle, test.bound, plan)
        yield trial
        low, high = (middle, high) if trial.decision == "above" else (low, middle)
    trial = _test_trial(draw, low, test, plan)
    yield trial
    accepted = trial.decision == "above"
    gamma = _next(low, plan.precision, up=accepted)
    while gamma is not None:
        trial = _test_trial(draw, gamma, test, plan)
        yield trial
        if (trial.decision == "above") != accepted:
            return
        gamma = _next(gamma, plan.precision, up=accepted)


def _next(gamma: float, precision: float, *, up: bool) -> float | None:
    """Return the next γ to test, or `None` at the end of its range."""
    if up:
        return None if gamma >= LARGEST else min(LARGEST, gamma * precision)
    return None if gamma <= SMALLEST else max(SMALLEST, gamma / math.sqrt(precision))


def _bracket_trial(draw: Draw, gamma: float, bound: float, plan: Plan) -> Trial:
    """Return a trial of few paths, which ends as soon as too many are unhealthy."""
    tolerated = int((1 - bound) * plan.bracket)
    healthy = unhealthy = 0
    with closing(draw(gamma, "bracket", plan.bracket)) as batches:
        for good, bad in batches:
            healthy, unhealthy = healthy + good, unhealthy + bad
            if unhealthy > tolerated:
                break
    return Trial(gamma, "bracket", healthy, unhealthy, "below" if unhealthy > tolerated else "above")


def _test_trial(draw: Draw, gamma: float, test: SequentialTest, plan: Plan) -> Trial:
    """Return a trial that ends as soon as the test decides, or can no longer accept γ with the paths that are left."""
    healthy = unhealthy = 0
    decision: Decision = "open"
    with closing(draw(gamma, "test", plan.samples)) as batches:
        for good, bad in batches:
            healthy, unhealthy = healthy + good, unhealthy + bad
            decision = test.decide(healthy, unhealthy)
            if decision != "open" or test.decide(plan.samples - unhealthy, unhealthy) != "above":
                break
    return Trial(gamma, "test", healthy, unhealthy, decision)
