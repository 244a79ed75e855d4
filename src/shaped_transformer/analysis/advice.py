"""The strongest residual branches with which a shaped Transformer of a given size is stable (our criterion)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..checks import check_count
from ..design.architecture import Architecture, shaped_transformer
from ..design.masks import Mask
from ..errors import InputError
from ..estimates import Estimate, share
from ..inputs import Covariance, equicorrelated
from ..io.progress import progress
from ..observables import effective_rank
from ..views import chain
from ..views.stopping import WINDOW

TAU0 = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Temperature constants of the frontier."""
SMALLEST = 0.01
"""Smallest γ that the search tries: weaker branches have next to no effect."""
PRECISION = 1.02
"""The search stops when the largest stable and the smallest unstable γ differ by less than this factor."""
CORRELATION = 0.2
"""Correlation of the tokens of the default input, as in [ST]."""


@dataclass(frozen=True)
class FrontierPoint:
    """The largest stable γ at one temperature constant.

    **Attributes:**

    - `tau0`: the temperature constant.
    - `gamma`: the largest γ that was found stable, `None` if not even 0.01 is.
    - `healthy`: share of paths at that γ (or at 0.01) that stay in the window and keep their rank, with its Wilson
      interval.
    """

    tau0: float
    gamma: float | None
    healthy: Estimate[float]


@dataclass(frozen=True)
class Advice:
    """The advised γ, and its trade-off with τ0.

    ```python
    advice = st.advise(depth=2, width=16, tokens=2, samples=100, taus=(0.5,))
    for point in advice.frontier:
        print(point.tau0, point.gamma, point.healthy)
    ```

    **Attributes:**

    - `depth`, `width`, `tokens`, `heads`, `mask`, `probability`, `rank_share`, `confidence`, `samples`, `seed`, `tau0`:
      the arguments of `advise`.
    - `gamma`: the largest stable γ at `tau0`; `None` if there is none.
    - `frontier`: a `FrontierPoint` for each temperature constant, in increasing order.
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
    frontier: tuple[FrontierPoint, ...]

    @property
    def architecture(self) -> Architecture | None:
        """The advised network, or `None` if no γ is stable."""
        if self.gamma is None:
            return None
        return shaped_transformer(
            self.width, self.depth, gamma=self.gamma, tau0=self.tau0, heads=self.heads, mask=self.mask
        )

    @property
    def sentence(self) -> str:
        """The advice in one sentence."""
        wanted = (
            f"at least {100 * self.probability:g} % of networks keep all eigenvalues of V in [{WINDOW[0]:g}, "
            f"{WINDOW[1]:g}] and {100 * self.rank_share:g} % of the input's effective rank over {self.depth} layers "
            f"(confidence {100 * self.confidence:g} %)"
        )
        if self.gamma is None:
            return f"no such gamma at tau0 = {self.tau0:g}: not even with gamma = {SMALLEST:g} is it sure that {wanted}"
        return f"gamma = {self.gamma:.3g} at tau0 = {self.tau0:g}: the largest with which {wanted}"

    def to_dict(self) -> dict[str, Any]:
        """Return arguments and advice as JSON values."""
        return asdict(self) | {"sentence": self.sentence}


@dataclass(frozen=True)
class _Search:
    """The search for the largest stable γ of networks of one size, which all use the same random numbers."""

    depth: int
    width: int
    heads: int
    mask: Mask
    v0: Covariance
    least_rank: float
    probability: float
    confidence: float
    samples: int
    seed: int
    workers: int | None

    def healthy(self, gamma: float, tau0: float) -> Estimate[float]:
        """Return the share of networks that stay in the window and keep their rank; its `low` is a one-sided bound."""
        arch = shaped_transformer(self.width, self.depth, gamma=gamma, tau0=tau0, heads=self.heads, mask=self.mask)
        e = chain.sample(arch, self.v0, self.samples, self.seed, record=1, stop=WINDOW, workers=self.workers)
        return self.one_sided((e.stopped > self.depth) & (e.effective_rank()[:, -1] >= self.least_rank))

    def one_sided(self, events: Any) -> Estimate[float]:
        """Return the share of true entries, whose lower bound holds with probability `confidence`."""
        return share(events, 2 * self.confidence - 1)

    def largest_gamma(self, tau0: float) -> FrontierPoint:
        """Return the largest stable γ at a temperature constant, by bisection in log γ."""
        strong, weak = self.healthy(1.0, tau0), self.healthy(SMALLEST, tau0)
        if strong.low >= self.probability:
            return FrontierPoint(tau0, 1.0, strong)
        if weak.low < self.probability:
            return FrontierPoint(tau0, None, weak)
        low, high, at_low = SMALLEST, 1.0, weak
        while high / low > PRECISION:
            middle = math.sqrt(low * high)
            at_middle = self.healthy(middle, tau0)
            if at_middle.low >= self.probability:
                low, at_low = middle, at_middle
            else:
                high = middle
        return FrontierPoint(tau0, low, at_low)

    def frontier(self, taus: Sequence[float]) -> tuple[FrontierPoint, ...]:
        """Return the largest stable γ at each temperature constant."""
        points = []
        with progress("temperatures", len(taus)) as advance:
            for tau0 in taus:
                points.append(self.largest_gamma(tau0))
                advance(1)
        return tuple(points)


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

    Larger γ means stronger branches, which learn more, and stronger fluctuations. The search bisects log γ until γ is
    known to 2 %. All designs use the same random numbers, so that noise does not blur their order.

    ```python
    advice = st.advise(depth=4, width=16, tokens=2, samples=100, taus=())
    print(advice.gamma, advice.sentence)
    ```

    **Arguments:**

    - `depth`: number of blocks d.
    - `width`: width n.
    - `tokens`: number of tokens m.
    - `heads`: heads of the attention, default 1.
    - `mask`: mask of the attention, default none.
    - `tau0`: temperature constant of the advised network, default 1.
    - `probability`: share of networks that must keep all eigenvalues of V in [1e-4, 1e4], the window of [ST], and
      `rank_share` of the input's effective rank, up to the last layer. Default 0.95.
    - `rank_share`: share of the input's effective rank, default 0.5.
    - `confidence`: confidence with which this must be known, default 0.95: the one-sided lower Wilson bound of the
      share among `samples` networks must reach `probability`.
    - `v0`: initial covariance, (m, m); default unit tokens with correlation 0.2, as in [ST].
    - `samples`: paths of the chain for each design, default 1024.
    - `seed`: seed of all designs, default 0.
    - `taus`: temperature constants of the frontier; `tau0` is added to them.
    - `workers`: number of threads, default all cores.

    **Returns:** an `Advice`; its `gamma` is `None` if no γ between 0.01 and 1 is stable.

    **Raises:** `InputError` or `DefinitionError` if an argument is out of range.
    """
    for name, value in (("probability", probability), ("rank_share", rank_share), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{name} must lie in (0, 1) (got {value:g})")
    v0 = _default_input(tokens, width) if v0 is None else v0
    if len(v0) != tokens:
        raise InputError(f"v0 is for {len(v0)} tokens, but tokens = {tokens}")
    common: dict[str, Any] = {"depth": depth, "width": width, "heads": heads, "mask": mask, "probability": probability}
    common |= {"confidence": confidence, "samples": samples, "seed": seed}
    eigenvalues = np.asarray(np.linalg.eigvalsh(v0)[::-1], dtype=np.float64)
    search = _Search(v0=v0, least_rank=rank_share * float(effective_rank(eigenvalues)), workers=workers, **common)
    if search.one_sided(np.ones(samples)).low < probability:
        raise InputError(f"{samples} samples can never show {probability:g} with confidence {confidence:g}: draw more")
    frontier = search.frontier(sorted({float(t) for t in taus} | {float(tau0)}))
    gamma = next(point.gamma for point in frontier if point.tau0 == tau0)
    return Advice(tokens=tokens, rank_share=rank_share, tau0=tau0, gamma=gamma, frontier=frontier, **common)


def _default_input(tokens: int, width: int) -> Covariance:
    """Return equally correlated tokens; their rank is their number, which must not exceed the width."""
    if check_count(tokens, "tokens") > check_count(width, "width"):
        raise InputError(
            f"{tokens} equally correlated tokens need a width of at least {tokens} (got {width}): choose at most "
            f"{width} tokens or more width; from Python, v0= takes an input of lower rank"
        )
    return equicorrelated(tokens, CORRELATION)
