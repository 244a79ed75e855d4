"""Norms of the stream and of its gradient through depth, in many random networks at once and without their weights."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import check_count, check_seed
from ..errors import InputError
from ..io.progress import progress
from ..numerics import compilation
from ..numerics.arrays import Floats
from ..numerics.draws import Draws
from ..views.parallel import run_in_threads
from .batched import Batch
from .modules import Network, check_network
from .sampling import batch_size, batched_module, checked_inputs

STREAM = 9
"""Number of the random streams; smaller ones belong to the views and to the kernels."""


@dataclass(frozen=True, eq=False, repr=False)
class StreamNorms:
    """Squared norms of the stream and of its gradient, summed over the tokens of an input.

    **Attributes:**

    - `forward`: ‖X_ℓ‖² of the input, ℓ = 0, and after each layer, (samples, d + 1, P).
    - `backward`: ‖∂f/∂X_ℓ‖² at the same places, (samples, d + 1, P).
    """

    forward: Floats
    backward: Floats

    def __repr__(self) -> str:
        samples, layers, inputs = self.forward.shape
        return f"StreamNorms({samples:,} samples, {layers - 1} layers, {inputs} inputs)"


def stream_norms(
    network: Network,
    inputs: ArrayLike,
    samples: int,
    seed: int,
    *,
    weights: bool = False,
    workers: int | None = None,
) -> StreamNorms:
    """Draw the norms of the stream and of the gradient of a random linear output, jointly exact in distribution.

    The output f reads the last token with N(0, 1/n) weights, so that ‖∂f/∂X_d‖² is about 1. The width may be any: a
    layer takes O(m² n) operations for m tokens, and no weight is drawn (theory §7).

    ```python
    drawn = st.ntk.stream_norms(st.ntk.Perceptron(width=100, depth=10), np.ones((1, 100)), samples=50, seed=0)
    np.log(drawn.backward[:, 0, 0] / drawn.backward[:, -1, 0]).mean()  # about −5/2 · depth/width
    ```

    **Arguments:**

    - `network`, `inputs`, `samples`, `seed`, `weights`, `workers`: as in `st.ntk.sample`. Each input is a network of
      its own only in its gradient: the weights are shared.

    **Returns:** `StreamNorms`.

    **Raises:** `InputError` as `st.ntk.sample`.
    """
    check_network(network)
    check_count(samples, "samples")
    check_count(1 if workers is None else workers, "workers")
    model = batched_module(network, 1)
    x = checked_inputs(network, inputs)
    size = batch_size(model, x, 1, weights=weights)
    compilation.load_all()
    task = partial(_draw, model, x, check_seed(seed), size, weights)
    batches = -(-samples // size)
    out = np.empty((2, samples, network.depth + 1, len(x)))
    with progress("norms", batches) as advance, closing(run_in_threads(task, batches, workers)) as results:
        for batch, found in results:
            place = slice(batch * size, min((batch + 1) * size, samples))
            out[:, place] = found[:, : place.stop - place.start]
            advance(1)
    if not np.isfinite(out).all():
        raise InputError("norms overflow: use fewer layers or smaller weights")
    return StreamNorms(out[0], out[1])


def _draw(model: Any, x: Tensor, seed: int, size: int, weights: bool, batch: int, **_: Any) -> Floats:
    """Return forward and backward norms of one batch, (2, size, d + 1, P)."""
    drawn = Batch(Draws(seed, STREAM, batch, size), len(x), 1, bias_gradients=False, weights=weights)
    rows = x.expand(size, *x.shape).reshape(-1, *x.shape[1:]).requires_grad_()
    with drawn.active(), torch.enable_grad():
        streams = model.streams(rows)
        gradients = torch.autograd.grad(model.read(streams[-1]).sum(), streams)
    return np.stack([_squares(streams, size), _squares(gradients, size)])


def _squares(streams: Sequence[Tensor], size: int) -> Floats:
    """Return the squared norms of each network's inputs at each layer, (size, d + 1, P)."""
    squares = [one.detach().double().square().flatten(1).sum(1).view(size, -1) for one in streams]
    return torch.stack(squares, dim=1).numpy()
