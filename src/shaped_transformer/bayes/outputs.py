"""Draws of the prior: V_d at training inputs, with test points appended, exactly in distribution (theory §9)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import check_count, check_seed
from ..design.architecture import Architecture
from ..inputs import as_matrix
from ..numerics.arrays import Floats
from .networks import Networks, check_memory, check_networks, in_batches
from .normals import FURTHER, PRIOR, Streams


@dataclass(frozen=True, eq=False, repr=False)
class Outputs:
    """Covariances V_d of random networks: given V_d, an output of the network is N(0, V_d).

    ```python
    drawn = st.bayes.sample(st.deep_linear(8, 2), np.eye(3), samples=10, seed=0, tests=np.ones((2, 3)))
    drawn.covariance.shape, drawn.cross.shape, drawn.tests.shape  # (10, 3, 3), (10, 2, 3), (10, 2)
    ```

    **Attributes:**

    - `covariance`: of the training inputs, (samples, P, P).
    - `cross`: of test points with training inputs, (samples, T, P).
    - `tests`: variances at the test points, (samples, T), or their covariances, (samples, T, T), if drawn jointly.
    """

    covariance: Floats
    cross: Floats
    tests: Floats

    def __repr__(self) -> str:
        samples, tests, points = self.cross.shape
        return f"Outputs({samples:,} samples of {points} training inputs and {tests} test points)"


def sample(
    architecture: Architecture,
    inputs: ArrayLike,
    samples: int,
    seed: int,
    *,
    tests: ArrayLike | None = None,
    joint: bool = False,
    workers: int | None = None,
) -> Outputs:
    """Draw the covariance of a network's last layer at training inputs and test points, for random weights.

    The distribution is that of `network.sample` and `chain.sample`. Test points are appended: each has the right joint
    distribution with the training inputs, but the draws at the training inputs do not depend on the test points, nor
    those of a test point on the others.

    ```python
    arch = st.shaped_mlp(width=16, depth=2, activation=st.Activation("relu"))
    drawn = st.bayes.sample(arch, [[1.0, 0.5], [1.0, -0.5]], samples=100, seed=0, tests=[[1.0, 2.0]])
    drawn.cross.mean(axis=0)  # of the test point with the two inputs
    ```

    **Arguments:**

    - `architecture`: a network whose layers treat inputs one by one: `Dense`, `MLP`, norms.
    - `inputs`: X, (P, p): P training inputs with p features. V0 = X Xᵀ/p, as in `inputs.from_vectors`. Residual layers
      need p ≤ n.
    - `samples`: number of networks.
    - `seed`: whole number; sample i depends on the seed and i only.
    - `tests`: test points, (T, p); default none.
    - `joint`: whether the test points also have their joint distribution with each other. Then they depend on each
      other; the training inputs still do not depend on them. Default no.
    - `workers`: number of threads; `None` (the default) means all cores.

    **Returns:** `Outputs`.

    **Raises:** `InputError` for attention, for arrays that do not fit, or more samples than fit into memory.
    """
    x = as_matrix(inputs, "inputs")
    asked = np.empty((0, x.shape[1])) if tests is None else as_matrix(tests, "test points", columns=x.shape[1])
    networks = Networks(check_networks(architecture, x.shape[1]), x)
    samples, seed = check_count(samples, "samples"), check_seed(seed)
    points, count = len(x), len(asked)
    numbers = points * (points + count) + (count**2 if joint else count)
    check_memory(samples, numbers, f"{samples:,} draws", "ask for fewer samples or inputs")
    networks.check_memory(workers)
    out = Outputs(
        np.empty((samples, points, points)),
        np.empty((samples, count, points)),
        np.empty((samples, count, count) if joint else (samples, count)),
    )
    task = partial(_draw, networks, asked, seed, joint)
    for batch, (covariance, cross, own) in in_batches(task, samples, networks.batch_size(count), workers, "prior"):
        out.covariance[batch], out.cross[batch], out.tests[batch] = covariance, cross, own
    return out


def _draw(
    networks: Networks,
    tests: Floats,
    seed: int,
    joint: bool,
    numbers: NDArray[np.int64],
    cancelled: Callable[[], bool],
) -> tuple[Floats, Floats, Floats]:
    """Return the arrays of `Outputs` for the networks with these numbers."""
    if cancelled():
        raise InterruptedError
    known, further = Streams(seed, PRIOR, numbers), Streams(seed, FURTHER, numbers)
    features = networks.features(known, tests, further, joint)
    own, asked = np.split(features, [len(networks.inputs)], axis=1)
    variances = asked @ asked.swapaxes(-1, -2) if joint else np.sum(asked**2, axis=-1)
    return own @ own.swapaxes(-1, -2), asked @ own.swapaxes(-1, -2), variances
