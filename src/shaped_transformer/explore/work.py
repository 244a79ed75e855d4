"""The work behind a page: a design is drawn in small steps, each of which makes its picture more precise."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from ..analysis.advice import Advice, Search
from ..analysis.stability import Stability, stability
from ..analysis.verdict import Verdict, verdict
from ..design.architecture import Architecture
from ..errors import InputError, NoProportionalLimit
from ..views import sde
from ..views.by_name import VIEWS
from ..views.ensemble import Ensemble, joined
from ..views.stopping import DEFAULT_WINDOW
from . import limits
from .state import Subject

SEED = 0
"""Seed of all draws: the same design has the same picture."""
MOST_STEPS = 2000
"""Most time steps of the SDE."""


@dataclass(frozen=True)
class Study:
    """What is known of a design so far.

    **Attributes:**

    - `subject`: the network and its input.
    - `networks`: whether real networks are wanted.
    - `drawn`: the paths of each view, and the number of batches that they are.
    - `stability`: effects of the parameters, once measured.
    - `advice`: the strongest stable γ, once found; `None` also if the design has no γ.
    - `notes`: what is not drawn, and why: "No SDE", "No real networks", "No effects", "No advice".
    - `steps`: number of steps that were taken.
    - `done`: whether nothing is left to do.
    """

    subject: Subject
    networks: bool = False
    drawn: Mapping[str, tuple[Ensemble, int]] = field(default_factory=dict, hash=False)
    stability: Stability | None = None
    advice: Advice | None = None
    notes: tuple[str, ...] = ()
    steps: int = 0
    done: bool = False

    @property
    def ensembles(self) -> dict[str, Ensemble]:
        """The paths of each view, in the order of legends."""
        return {view: self.drawn[view][0] for view in VIEWS if view in self.drawn}

    @cached_property
    def verdict(self) -> Verdict | None:
        """The verdict on the chain; `None` before its first paths."""
        return verdict(self.ensembles["chain"]) if "chain" in self.drawn else None

    @property
    def size(self) -> tuple[Architecture, int]:
        """The network, and the number of tokens: what the work depends on."""
        return self.subject.architecture, len(self.subject.v0)

    @property
    def enough_networks(self) -> bool:
        """Whether all real networks that may be wanted are drawn."""
        return self.paths("network") >= limits.networks_for(*self.size) if self.paths("network") else False

    def lacks(self, what: str) -> bool:
        """Return whether a note says why there is no such thing, such as "No SDE"."""
        return any(note.startswith(what) for note in self.notes)

    def noted(self, note: str) -> "Study":
        """Return the study with one more note."""
        return replace(self, notes=(*self.notes, note))

    def paths(self, view: str) -> int:
        """Return the number of paths of a view."""
        return self.drawn[view][0].samples if view in self.drawn else 0


def advance(study: Study) -> Study:
    """Return a design after the next step of its work, the most useful one; each takes at most a few seconds.

    The first picture comes from one small batch of the chain, then the SDE follows. Real networks are drawn as soon
    as they are wanted. Then the number of paths is doubled again and again; at the end come the advice and
    the effects of the parameters.

    **Arguments:**

    - `study`: what is known so far; if it is done, it is returned.

    **Raises:** `InterruptedError` in `parallel.cancel_when`, when the work is not wanted any more.
    """
    if study.done:
        return study
    step = next((step for wanted, step in _plan(study) if wanted), None)
    if step is None:
        return replace(study, done=True)
    return replace(step(study), steps=study.steps + 1)


def _plan(study: Study) -> list[tuple[bool, Callable[[Study], Study]]]:
    """Return the possible steps, the most useful first, each with whether there is anything to do."""
    chain = study.paths("chain")
    enough = limits.paths_for(*study.size)
    return [
        (chain == 0, partial(_draw, view="chain", most=enough)),
        (study.networks and not study.lacks("No real networks") and not study.enough_networks, _draw_networks),
        (study.paths("sde") < chain and not study.lacks("No SDE"), _draw_limit),
        (chain < enough, partial(_draw, view="chain", most=enough)),
        (study.advice is None and not study.lacks("No advice"), _find_advice),
        (study.stability is None and not study.lacks("No effects"), _measure_effects),
    ]


def _draw(study: Study, view: str, most: int, batch: int | None = None) -> Study:
    """Draw as many paths of a view as there are already, or its first batch."""
    size = batch or limits.batch_for(*study.size)
    old, batches = study.drawn.get(view, (None, 0))
    wanted = size if old is None else min(old.samples, most - old.samples)
    options: dict[str, Any] = {"batch": size, "stop": DEFAULT_WINDOW, "record": limits.RECORDS, "skip": batches}
    whole = -(-wanted // size) * size  # the next paths continue after whole batches
    stream = VIEWS[view].stream(study.subject.architecture, study.subject.v0, whole, SEED, **options)
    with closing(stream) as parts:
        new = list(parts)
    together = joined(new if old is None else [old, *new])
    return replace(study, drawn={**study.drawn, view: (together, batches + len(new))})


def _draw_limit(study: Study) -> Study:
    """Draw as many paths of the SDE as there are of the chain, or note why there is none."""
    arch, tokens = study.size
    try:
        sde.check_limit(arch)
        if (steps := sde.check_steps(arch, tokens)) > MOST_STEPS:
            raise InputError(f"it takes {steps:,} time steps, which are too many for this page")
    except (NoProportionalLimit, InputError) as error:
        return study.noted(f"No SDE: {error}.")
    return _draw(study, "sde", most=study.paths("chain"))


def _draw_networks(study: Study) -> Study:
    """Draw more of the real networks that are wanted, or note why they are not drawn."""
    try:
        most = limits.networks_for(*study.size)
    except InputError as error:
        return study.noted(f"No real networks: {error}.")
    return _draw(study, "network", most=most, batch=min(limits.NETWORK_BATCH, -(-most // 2)))


def _measure_effects(study: Study) -> Study:
    """Measure what 10 % more of each parameter changes, or note that it takes too long."""
    samples = limits.changed_for(*study.size)
    if not samples:
        return study.noted("No effects of 10 % more: they take too long for this page. The command predict has them.")
    return replace(study, stability=stability(study.subject.architecture, study.subject.v0, samples=samples, seed=SEED))


def _find_advice(study: Study) -> Study:
    """Find the strongest stable γ, or note why there is none."""
    try:
        search = Search.of(
            study.subject.architecture, study.subject.v0, samples=limits.tested_for(*study.size), seed=SEED
        )
    except InputError as error:
        return study.noted(f"No advice: {error}.")
    return replace(study, advice=search.advice(list(search.trials())))
