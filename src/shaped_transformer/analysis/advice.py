"""The strongest residual branches with which a network of a given size is stable at initialisation."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_seed
from ..design.architecture import Architecture, default_gamma
from ..design.layers import Layer, Residual, ShapedAttention
from ..errors import InputError, counted
from ..estimates import Estimate
from ..inputs import Covariance
from ..io.progress import progress
from ..views import chain, sampling
from .criterion import PARALLEL, Criterion
from .search import SMALLEST, Counts, Plan, Stage, Trial, plan_for, search
from .sequential import SequentialTest

TAU0 = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Temperature constants of the frontier."""
STAGES = ("bracket", "test")
"""Stages of the search; each has draws of its own."""


@dataclass(frozen=True)
class FrontierPoint:
    """The largest stable γ at one temperature constant.

    **Attributes:**

    - `tau0`: the temperature constant.
    - `gamma`: the largest γ that a test accepted; `None` if not even 0.01 is stable.
    - `healthy`: share of healthy paths at that γ (or at 0.01), with its Wilson interval at 95 %.
    """

    tau0: float
    gamma: float | None
    healthy: Estimate[float]


@dataclass(frozen=True)
class Advice:
    """The advised γ, with the trials from which it was found.

    ```python
    advice = st.advise(st.shaped_transformer(16, 2), st.inputs.equicorrelated(2, 0.2), samples=100)
    print(advice.gamma, advice.architecture)
    ```

    **Attributes:**

    - `design`: the network whose γ was varied.
    - `criterion`: when it counts as stable.
    - `trials`: each γ that was tried, in the order of the search.
    - `complete`: whether the search ended; an interrupted one knows less.
    - `frontier`: a `FrontierPoint` for each temperature constant that was asked for, in increasing order.
    - `seed`: seed of all draws.
    """

    design: Architecture
    criterion: Criterion
    trials: tuple[Trial, ...]
    complete: bool = True
    frontier: tuple[FrontierPoint, ...] = ()
    seed: int = 0

    @property
    def gamma(self) -> float | None:
        """The largest γ that is surely stable; `None` if none is."""
        return max((t.gamma for t in self.trials if t.stage == "test" and t.decision == "above"), default=None)

    @property
    def architecture(self) -> Architecture | None:
        """The advised network, or `None` if no γ is stable."""
        return None if self.gamma is None else with_gamma(self.design, self.gamma)

    @property
    def training_gamma(self) -> float | None:
        """0.5/√d, the default for training: stronger branches learned worse in our short runs (docs/choosing.md).

        `None` if a skip is not √(1 − γ²): such networks were not measured.
        """
        skips = [layer.skip for layer in self.design.block if isinstance(layer, Residual)]
        return default_gamma(self.design.depth) if set(skips) == {None} else None

    @property
    def temperatures(self) -> tuple[tuple[float, float], ...]:
        """τ0 and τ = τ0√(n·n_k), by which the logits are divided, of each shaped attention of a block."""
        branches = [layer.branch for layer in self.design.block if isinstance(layer, Residual)]
        n = self.design.width
        return tuple((b.tau0, b.temperature(n)) for b in branches if isinstance(b, ShapedAttention))

    @property
    def sentence(self) -> str:
        """The advice in one sentence."""
        wanted = self.criterion
        stable = (
            f"at least {100 * wanted.probability:g} % of networks are healthy after "
            f"{counted(self.design.depth, 'layer')} (confidence {100 * wanted.confidence:g} %). In a healthy network "
            f"the eigenvalues of V stay within [{wanted.window[0]:g}, {wanted.window[1]:g}] times the input's mean "
            f"token norm, and the last layer has at least {100 * wanted.rank_share:g} % of the input's effective rank "
            f"and a mean |rho| of at most {PARALLEL:g}, unless the input's is larger"
        )
        if not self.complete:
            return self._known_so_far()
        if self.gamma is None:
            return f"no gamma from {SMALLEST:g} to 1 is surely stable. Stable means that {stable}"
        return f"gamma = {self.gamma:.3g} is the largest that the test accepted: {stable}"

    def _known_so_far(self) -> str:
        """What the trials of an interrupted search show."""
        probable = [t.gamma for t in self.trials if t.stage == "bracket" and t.decision == "above"]
        refuted = [t.gamma for t in self.trials if t.decision == "below"]
        if self.gamma is not None:
            known = f"gamma = {self.gamma:.3g} is stable, and a larger one may be too"
        elif probable:
            known = f"gamma = {max(probable):.3g} is probably stable"
        else:
            known = "no stable gamma is known"
        limit = f"; gamma = {min(refuted):.3g} is probably not" if refuted else ""
        return f"interrupted: {known}{limit}"

    def to_dict(self) -> dict[str, Any]:
        """Return the advice as JSON values."""
        return {
            "gamma": self.gamma,
            "training_gamma": self.training_gamma,
            "advised_architecture": None if self.architecture is None else self.architecture.to_dict(),
            "sentence": self.sentence,
            "complete": self.complete,
            "architecture": self.design.to_dict(),
            "criterion": asdict(self.criterion),
            "seed": self.seed,
            "trials": [asdict(trial) | {"share": asdict(trial.share)} for trial in self.trials],
            "frontier": [asdict(point) for point in self.frontier],
        }


def advise(
    architecture: Architecture,
    v0: ArrayLike,
    *,
    criterion: Criterion | None = None,
    taus: Sequence[float] = (),
    samples: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Advice:
    """Find the largest γ with which a network is stable at initialisation, by the exact chain (our criterion).

    Larger γ means stronger branches and stronger fluctuations. A bracket from few paths comes first. Then tests that
    are valid at every look (theory §6) accept or refuse γ in steps of 2 %, or of 10 % where a path is so long that a
    test can only have a few hundred. Each decision errs with a probability of at most 1 − `confidence`.

    ```python
    advice = st.advise(st.shaped_transformer(16, 4), st.inputs.equicorrelated(2, 0.2), samples=100)
    print(advice.gamma, advice.sentence)
    ```

    **Arguments:**

    - `architecture`: the network, with at least one residual layer. Its γ is the largest `scale` of these layers; the
      others keep their ratio to it.
    - `v0`: initial covariance, (m, m).
    - `criterion`: when a network is stable, default `Criterion()`.
    - `taus`: temperature constants for which the largest stable γ is searched too, the frontier; default none.
    - `samples`: most paths of one test; default as many as take about a minute on two cores, at most 4096.
    - `seed`: seed of all draws, default 0.
    - `workers`: number of threads, default all cores. The advice does not depend on it.

    **Returns:** an `Advice`; its `gamma` is `None` if no γ between 0.01 and 1 is stable.

    **Raises:** `InputError` or `DefinitionError` if an argument is out of range.
    """
    search = Search.of(architecture, v0, criterion=criterion, samples=samples, seed=seed, workers=workers)
    frontier = tuple(frontier_point(search, tau0) for tau0 in sorted({float(t) for t in taus}))
    return search.advice(list(search.trials()), frontier)


@dataclass(frozen=True, eq=False)
class Search:
    """A search for the largest stable γ, checked and ready to run.

    **Attributes:** as in `advise`, with

    - `test`: decides whether enough networks are healthy.
    - `plan`: numbers of paths, and precision.
    """

    architecture: Architecture
    v0: Covariance
    criterion: Criterion
    test: SequentialTest
    plan: Plan
    seed: int
    workers: int | None

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        v0: ArrayLike,
        *,
        criterion: Criterion | None = None,
        samples: int | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> "Search":
        """Return the search of `advise`, which takes the same arguments, after checks."""
        v = sampling.check_covariance(architecture, v0)
        sampling.initial_factor(v, architecture.width)
        if not any(isinstance(layer, Residual) for layer in architecture.block):
            raise InputError(
                "gamma is the strength of residual layers, and this network has none: add Residual(branch, scale=…)"
            )
        if all(layer.skip == 0 for layer in architecture.block if isinstance(layer, Residual)):
            raise InputError(
                "gamma is the strength of branches beside a skip, and this network has no skip: use Residual with "
                "skip=None, which is √(1 − γ²), or another preset"
            )
        wanted = criterion or Criterion()
        test = SequentialTest(wanted.probability, wanted.confidence)
        plan = plan_for(architecture, len(v), test, samples)
        return cls(architecture, v, wanted, test, plan, check_seed(seed), workers)

    def trials(self) -> Iterator[Trial]:
        """Yield the trials of the search, with a bar that shows how much is left at most."""
        with progress("advise", self.plan.paths) as advance:
            for trial in search(self._draw, self.test, self.plan):
                yield trial
                advance(self.plan.bracket if trial.stage == "bracket" else self.plan.samples)

    def advice(
        self, trials: Sequence[Trial], frontier: tuple[FrontierPoint, ...] = (), *, complete: bool = True
    ) -> Advice:
        """Return what the trials show."""
        return Advice(self.architecture, self.criterion, tuple(trials), complete, frontier, self.seed)

    def _draw(self, gamma: float, stage: Stage, most: int) -> Generator[Counts, None, None]:
        """Yield the numbers of healthy and other paths at γ, batch by batch."""
        arch = with_gamma(self.architecture, gamma)
        sequence = np.random.SeedSequence((self.seed, STAGES.index(stage)))
        stream = chain.stream(
            arch,
            self.v0,
            most,
            int(sequence.generate_state(1)[0]),
            batch=self.plan.batch[stage],
            stop=self.criterion.stop(self.v0),
            workers=self.workers,
        )
        with closing(stream) as batches:
            for ensemble in batches:
                healthy = int(np.sum(self.criterion.healthy(ensemble)))
                yield healthy, ensemble.samples - healthy


def frontier_point(search: Search, tau0: float) -> FrontierPoint:
    """Return the largest stable γ at a temperature constant, by the same search with that constant."""
    trials = replace(search, architecture=with_tau0(search.architecture, tau0)).trials()
    tests = [trial for trial in trials if trial.stage == "test"]
    accepted = [trial for trial in tests if trial.decision == "above"]
    if accepted:
        best = max(accepted, key=lambda trial: trial.gamma)
        return FrontierPoint(tau0, best.gamma, best.share)
    return FrontierPoint(tau0, None, min(tests, key=lambda trial: trial.gamma).share)


def with_gamma(architecture: Architecture, gamma: float) -> Architecture:
    """Return the network with γ as the largest scale of its residual layers; the others keep their ratio to it."""
    largest = max(layer.scale for layer in architecture.block if isinstance(layer, Residual))

    def scaled(layer: Layer) -> Layer:
        return replace(layer, scale=gamma * (layer.scale / largest)) if isinstance(layer, Residual) else layer

    return replace(architecture, block=tuple(scaled(layer) for layer in architecture.block))


def with_tau0(architecture: Architecture, tau0: float) -> Architecture:
    """Return the network with τ0 in all its shaped attention.

    **Raises:** `InputError` if it has none.
    """

    def cooled(layer: Layer) -> Layer:
        if isinstance(layer, Residual) and isinstance(layer.branch, ShapedAttention):
            return replace(layer, branch=replace(layer.branch, tau0=tau0))
        return layer

    block = tuple(cooled(layer) for layer in architecture.block)
    if not any(isinstance(layer, Residual) and isinstance(layer.branch, ShapedAttention) for layer in block):
        raise InputError(
            "tau0 is the temperature constant of shaped attention, and this network has none: leave out taus= "
            "(--frontier)"
        )
    return replace(architecture, block=block)
