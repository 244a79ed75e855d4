"""Whether a share exceeds a bound, decided while draws come in: a test that is valid at every look (theory §6)."""

import math
from dataclasses import dataclass
from typing import Literal

Decision = Literal["above", "below", "open"]

SHAPE = 0.5
"""Second parameter of the prior density ∝ (1 − p)^(SHAPE − 1) above the bound: most weight is near p = 1."""


@dataclass(frozen=True)
class SequentialTest:
    """Test whether a share p lies above or below a bound p₀, with a decision after every draw.

    The evidence for p > p₀ is the likelihood of the draws, averaged over a prior on (p₀, 1), over that at p₀. Under
    any p ≤ p₀ it is a supermartingale that begins at 1, so that it ever exceeds 1/(1 − confidence) with a probability
    of at most 1 − confidence (Ville's inequality). So one may look after every draw, and stop at any time. The same
    holds for p < p₀. A Wilson bound, looked at as often, errs several times as often.

    **Arguments:**

    - `bound`: p₀, in (0, 1).
    - `confidence`: of each decision, default 0.95.
    """

    bound: float
    confidence: float = 0.95

    def decide(self, successes: int, failures: int) -> Decision:
        """Return `"above"` or `"below"` where the draws so far decide, else `"open"`."""
        least = -math.log(1 - self.confidence)
        if log_evidence(successes, failures, self.bound) >= least:
            return "above"
        if log_evidence(failures, successes, 1 - self.bound) >= least:
            return "below"
        return "open"

    @property
    def fewest(self) -> int:
        """How many draws, all successes, decide for `"above"`."""
        draws = 1
        while self.decide(draws, 0) != "above":
            draws += 1
        return draws


def log_evidence(successes: int, failures: int, bound: float) -> float:
    """Return the logarithm of the evidence for p > p₀ in draws of a share p.

    ∫ p^s (1 − p)^f π(p) dp / (p₀^s (1 − p₀)^f) over (p₀, 1), π(p) ∝ (1 − p)^(−1/2).
    """
    from scipy.special import betaincc, betaln

    tail = float(betaincc(successes + 1, failures + SHAPE, bound))
    if tail <= 0:
        return -math.inf
    prior = SHAPE * math.log1p(-bound) - math.log(SHAPE)
    likelihood = successes * math.log(bound) + failures * math.log1p(-bound)
    return float(betaln(successes + 1, failures + SHAPE)) + math.log(tail) - prior - likelihood
