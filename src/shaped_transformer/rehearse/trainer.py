"""The steps of an optimiser on one network, real or weightless, and what they change."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .. import weightless
from ..probe.passes import norms_of_gradients
from .optimisers import Plan
from .rehearsal import Course
from .updates import RealUpdates, weightless_updates


class Trainer:
    """The optimisers of a network, and what their steps change.

    **Arguments:**

    - `model`: real or weightless, at initialisation.
    - `plan`: how it is trained.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self._model, self._plan = model, plan
        self._real = RealUpdates(model)
        self._optimisers = plan.make(model)
        self._rates = [[group["lr"] for group in one.param_groups] for one in self._optimisers]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Clear the gradients, and record what real weights meet while the context lasts."""
        for one in self._optimisers:
            one.zero_grad()
        with self._real.watching():
            yield

    def step(self, course: Course, step: int) -> str | None:
        """Make a step of the optimisers and measure it, or return which gradient is not finite."""
        norms = norms_of_gradients(self._model)
        if bad := next((name for name, norm in norms.items() if not math.isfinite(norm)), None):
            return f", in the gradient of {bad}"
        total, clipped, rate = math.hypot(*norms.values()), 1.0, self._plan.rate(step)
        if self._plan.clip is not None:
            clipped = min(1.0, self._plan.clip / (total + 1e-6))
            clip(self._model, self._plan.clip)
        for one, some in zip(self._optimisers, self._rates, strict=True):
            for group, full in zip(one.param_groups, some, strict=True):
                group["lr"] = rate * full
        self._real.begin(self._optimisers)
        for one in self._optimisers:
            one.step()
        moved = weightless_updates(self._model) | self._real.end()
        course.add_update({"gradient_total": total, "clipped": clipped, "rate": rate}, norms, moved)
        return None


def clip(model: nn.Module, norm: float) -> None:
    """Clip the gradients of all parameters by their global norm."""
    if hasattr(model, "weightless"):
        weightless.clip_grad_norm_(model, norm)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), norm)
