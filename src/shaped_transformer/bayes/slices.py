"""Elliptical slice sampling: moves of Gaussian variables that leave a posterior unchanged, without step sizes.

Murray, Adams, MacKay, *Elliptical slice sampling*, AISTATS 2010 (arXiv 1001.0175).
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..numerics.arrays import Floats

MAX_TRIES = 100
"""Points of the ellipse that are tried; then the state stays where it is, which also leaves the posterior unchanged."""


def slice_move(
    state: Floats,
    value: Floats,
    other: Floats,
    target: Callable[[Floats], Floats],
    randoms: Sequence[np.random.Generator],
) -> tuple[Floats, Floats, Floats]:
    """Move each state to a point of the ellipse through it and another draw of the prior.

    **Arguments:**

    - `state`: independent N(0, 1) under the prior, (chains, numbers).
    - `value`: log-likelihood there, (chains,).
    - `other`: another draw of the prior for each chain, (chains, numbers).
    - `target`: returns the log-likelihoods of states, (some chains, numbers) → (some chains,).
    - `randoms`: a source of uniform numbers for each chain.

    **Returns:** the new states, their log-likelihoods, and the angles θ: state·cos θ + other·sin θ.
    """
    state, value = state.copy(), value.copy()
    threshold = value + np.log([1 - random.random() for random in randoms])
    angle = np.array([2 * np.pi * random.random() for random in randoms])
    low, high, taken = angle - 2 * np.pi, angle.copy(), np.zeros(len(angle))
    waiting = np.arange(len(state))
    for _ in range(MAX_TRIES):
        at = angle[waiting, None]
        tried = state[waiting] * np.cos(at) + other[waiting] * np.sin(at)
        found = target(tried)
        accepted = found > threshold[waiting]
        done = waiting[accepted]
        state[done], value[done], taken[done] = tried[accepted], found[accepted], angle[done]
        waiting = waiting[~accepted]
        if not waiting.size:
            break
        for i in map(int, waiting):
            low[i], high[i] = (angle[i], high[i]) if angle[i] < 0 else (low[i], angle[i])
            angle[i] = low[i] + (high[i] - low[i]) * randoms[i].random()
    return state, value, taken
