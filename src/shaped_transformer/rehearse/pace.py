"""How far a rehearsal has come: most of the time of a large model goes into updates that are made and dropped."""

from collections.abc import Callable


class Pace:
    """Advances a bar by one for each step, and meanwhile as updates are made.

    **Arguments:**

    - `advance`: of the bar.
    - `entries`: of the matrices whose updates are made in each pass.
    - `steps`: number of steps of the optimiser.
    """

    def __init__(self, advance: Callable[[float], None], entries: int, steps: int) -> None:
        self._advance, self._step, self._done = advance, 0, 0.0
        forward = [entries * step for step in range(steps + 1)]
        self._work = [one + (one + one + entries if step < steps else 0) for step, one in enumerate(forward)]

    def made(self, entries: float) -> None:
        """Note that updates were made: entries times the steps that they are of."""
        share = min(entries / self._work[self._step], 1 - self._done) if self._work[self._step] else 0.0
        self._done += share
        self._advance(share)

    def finish_step(self) -> None:
        """Note that a step, with all its passes, is over."""
        self._advance(1 - self._done)
        self._step, self._done = self._step + 1, 0.0
