"""The strongest residual branches with which a shaped Transformer of a given size is stable (ours)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import statistics
from ..checks import check_count
from ..design.architecture import Architecture, shaped_transformer
from ..design.masks import Mask
from ..errors import InputError
from ..inputs import Covariance, equicorrelated
from ..io.progress import progress
from ..views import chain
from .stability import WINDOW

TAU0 = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Temperature constants of the frontier."""
SMALLEST = 0.01
"""γ below which a branch is as good as absent: the search ends there."""
PRECISION = 1.02
"""The search stops when the largest stable and the smallest unstable γ differ by less than this factor."""


@dataclass(frozen=True)
class Point:
    """A point of the frontier.

    **Attributes:** `tau0`; `gamma`: the largest γ found stable there, `None` if not even 0.01 is; `healthy`: share of
    paths at that γ (or at 0.01) that stay in the window and keep their rank, with its Wilson interval.
    """

    tau0: float
    gamma: float | None
    healthy: statistics.Share


@dataclass(frozen=True)
class Advice:
    """What γ to take, and how it trades against τ0.

    **Attributes:** the question (`depth`, `width`, `tokens`, `heads`, `mask`, `probability`, `rank_share`,
    `confidence`, `samples`, `seed`), and the answer: `tau0` and `gamma` (`None`: no such γ), `frontier`: a `Point` for
    each temperature constant, in increasing order.
    """

    depth: int
    width: int
    tokens: int
    heads: int
    mask: Mask
    probability: float
    rank_share: float
    confidence: float
    samples: int
    seed: int
    tau0: float
    gamma: float | None
    frontier: tuple[Point, ...]

    @property
    def architecture(self) -> Architecture | None:
        """The advised network, or `None` if there is no such γ."""
        return None if self.gamma is None else self._design(self.gamma, self.tau0)

    def _design(self, gamma: float, tau0: float) -> Architecture:
        return shaped_transformer(self.width, self.depth, gamma=gamma, tau0=tau0, heads=self.heads, mask=self.mask)

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        wanted = (
            f"at least {100 * self.probability:g} % of networks keep all eigenvalues of V in [{WINDOW[0]:g}, "
            f"{WINDOW[1]:g}] and {100 * self.rank_share:g} % of the input's effective rank over {self.depth} layers "
            f"(confidence {100 * self.confidence:g} %)"
        )
        if self.gamma is None:
            return f"no such gamma at tau0 = {self.tau0:g}: not even with gamma = {SMALLEST:g} is it sure that {wanted}"
        return f"gamma = {self.gamma:.3g} at tau0 = {self.tau0:g}: the largest with which {wanted}"

    def to_dict(self) -> dict[str, Any]:
        """Return question and answer as JSON values."""
        return asdict(self) | {"sentence": self.sentence}


def advise(
    depth: int,
    width: int,
    tokens: int,
    *,
    heads: int = 1,
    mask: Mask = "full",
    tau0: float = 1.0,
    probability: float = 0.95,
    rank_share: float = 0.5,
    confidence: float = 0.95,
    v0: Covariance | None = None,
    samples: int = 1024,
    seed: int = 0,
    taus: Sequence[float] = TAU0,
    workers: int | None = None,
) -> Advice:
    """Find the largest γ with which a shaped Transformer of this size is stable at initialisation, by the exact chain.

    Larger γ means stronger branches, which learn more, and stronger fluctuations. γ is found by bisection (in its
    logarithm, to 2 %), all designs being drawn from the same random numbers, so that their order is not blurred.

    **Arguments:**

    - `depth`, `width`, `tokens`: d, n, m. `heads`, `mask`: of the attention.
    - `tau0`: temperature constant of the advised network, default 1.
    - `probability`: share of networks that must keep all eigenvalues of V in [1e-4, 1e4], the window of [ST], and
      `rank_share` of the input's effective rank, up to the last layer.
    - `confidence`: with which this must be known: the one-sided lower Wilson bound of the share of `samples` drawn.
    - `v0`: initial covariance; default unit tokens with correlation 0.2, as in [ST].
    - `taus`: temperature constants of the frontier, to which `tau0` is added.
    - `seed`, `workers`: of the draws; threads, default all cores.

    **Returns:** an `Advice`; its `gamma` is `None` if there is no such γ between 0.01 and 1.

    **Raises:** `InputError` or `DefinitionError` for arguments out of range.
    """
    for name, value in (("probability", probability), ("rank_share", rank_share), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{name} must lie in (0, 1) (got {value:g})")
    if v0 is None and check_count(tokens, "tokens") > check_count(width, "width"):
        raise InputError(
            f"{tokens} equally correlated tokens need a width of at least {tokens} (got {width}): choose at most "
            f"{width} tokens or more width; from Python, v0= takes an input of lower rank"
        )
    start = equicorrelated(tokens, 0.2) if v0 is None else v0
    if len(start) != tokens:
        raise InputError(f"v0 is for {len(start)} tokens, but tokens = {tokens}")
    least = rank_share * float(statistics.effective_rank(np.asarray(np.linalg.eigvalsh(start)[::-1], dtype=np.float64)))
    grid = sorted({float(t) for t in taus} | {float(tau0)})
    if statistics.share(np.ones(samples), 2 * confidence - 1).low < probability:
        raise InputError(f"{samples} samples can never show {probability:g} with confidence {confidence:g}: draw more")

    def healthy(gamma: float, at: float) -> statistics.Share:
        arch = shaped_transformer(width, depth, gamma=gamma, tau0=at, heads=heads, mask=mask)
        e = chain.sample(arch, start, samples, seed, record=1, stop=WINDOW, workers=workers)
        return statistics.share((e.stopped > depth) & (e.effective_rank()[:, -1] >= least), 2 * confidence - 1)

    def point(at: float) -> Point:
        strong, weak = healthy(1.0, at), healthy(SMALLEST, at)
        if strong.low >= probability:
            return Point(at, 1.0, strong)
        if weak.low < probability:
            return Point(at, None, weak)
        low, high, found = SMALLEST, 1.0, weak
        while high / low > PRECISION:
            middle = math.sqrt(low * high)
            seen = healthy(middle, at)
            if seen.low >= probability:
                low, found = middle, seen
            else:
                high = middle
        return Point(at, low, found)

    points = []
    with progress("temperatures", len(grid)) as advance:
        for at in grid:
            points.append(point(at))
            advance(1)
    gamma = next(p.gamma for p in points if p.tau0 == tau0)
    question = (depth, width, tokens, heads, mask, probability, rank_share, confidence, samples, seed)
    return Advice(*question, tau0, gamma, tuple(points))
