"""Elliptical slice sampling: moves of Gaussian variables that leave a posterior unchanged, without step sizes.

Murray, Adams, MacKay, *Elliptical slice sampling*, AISTATS 2010 (arXiv 1001.0175).
"""

from collections.abc import Callable

import numpy as np

from ..numerics.arrays import Floats

MAX_TRIES = 60
"""Points of the ellipse that are tried; then the state stays where it is, which also leaves the posterior unchanged."""

UNIFORMS = MAX_TRIES + 1
"""Uniform numbers that a move uses at most."""


def slice_move(
    state: Floats, value: Floats, other: Floats, target: Callable[[Floats], Floats], uniforms: Floats
) -> tuple[Floats, Floats, Floats]:
    """Move each state to a point of the ellipse through it and another draw of the prior.

    **Arguments:**

    - `state`: independent N(0, 1) under the prior, (chains, numbers).
    - `value`: log-likelihood there, (chains,).
    - `other`: another draw of the prior for each chain, (chains, numbers).
    - `target`: returns the log-likelihoods of states, (some chains, numbers) → (some chains,).
    - `uniforms`: uniform numbers in (0, 1), (chains, `UNIFORMS`).

    **Returns:** the new states, their log-likelihoods, and the angles θ: state·cos θ + other·sin θ.
    """
    state, value = state.copy(), value.copy()
    threshold = value + np.log(uniforms[:, 0])
    angle = 2 * np.pi * uniforms[:, 1]
    low, high, taken = angle - 2 * np.pi, angle.copy(), np.zeros(len(angle))
    waiting = np.arange(len(state))
    for uniform in uniforms[:, 2:].T:
        at = angle[waiting, None]
        tried = state[waiting] * np.cos(at) + other[waiting] * np.sin(at)
        found = target(tried)
        accepted = found > threshold[waiting]
        done = waiting[accepted]
        state[done], value[done], taken[done] = tried[accepted], found[accepted], angle[done]
        waiting = waiting[~accepted]
        if not waiting.size:
            break
        below = angle < 0
        low, high = np.where(below, angle, low), np.where(below, high, angle)
        angle = low + (high - low) * uniform
    return state, value, taken
