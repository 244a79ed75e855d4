"""Tangent kernels of many random networks at once, exactly in distribution and without their weights."""

from contextlib import closing
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from ..checks import check_count, check_seed
from ..errors import InputError, counted
from ..io.progress import progress
from ..numerics import compilation
from ..numerics.arrays import Floats
from ..numerics.draws import Draws
from ..views.parallel import run_in_threads
from ..views.sampling import keep_freed_memory, physical_memory
from ..weightless.recording.record import record
from .batched import Batch, BatchedLinear
from .modules import Network, check_network, linear_maps, module
from .perceptron import Perceptron

STREAM = 8
"""Number of the random streams; smaller ones belong to the views."""

BATCH_BYTES = 2**27
"""Bytes of the vectors that a batch keeps between its passes."""

MAX_BATCH = 2048
"""Largest number of networks in a batch."""

MAX_MEMORY_SHARE = 0.5
"""Fraction of the machine's memory that kernels may take."""


def sample(
    network: Network,
    inputs: ArrayLike,
    samples: int,
    seed: int,
    *,
    outputs: int = 1,
    bias_gradients: bool = False,
    weights: bool = False,
    dtype: Literal["float64", "float32"] = "float64",
    workers: int | None = None,
) -> Floats:
    """Draw the tangent kernels of random networks, without weights and exactly in distribution (theory §8).

    The kernel of an input pair and an output pair is Σ (x_s·x'_t)(g_s·g'_t) over weight matrices, and over the tokens s
    and t of the two inputs. A layer of width n takes O(R²n) operations, R = inputs × tokens, instead of O(R n²).

    ```python
    mlp = st.ntk.Perceptron(width=50, depth=10)
    theta = st.ntk.sample(mlp, np.eye(2, 50), samples=100, seed=0)  # (100, 2, 2)
    ```

    **Arguments:**

    - `network`: a `Perceptron`, or an `Architecture` of width n with a linear output, as `st.ntk.module` makes them.
    - `inputs`: P vectors, (P, coordinates); of an architecture also (P, m, n), P inputs of m tokens, of which the
      outputs read the last. Vectors are taken as they are: those of the theory have ‖x‖² of order n.
    - `samples`: number of networks.
    - `seed`: of all draws. The first ones stay the same when `samples` grows; they do not depend on `workers`.
    - `outputs`: D, default 1.
    - `bias_gradients`: whether every linear map has biases, which are 0; default no.
    - `weights`: whether weights are drawn for real, as the ground truth; default no.
    - `dtype`: of the vectors, default float64. Inner products are in float64 in either case.
    - `workers`: number of threads, default all cores.

    **Returns:** Θ, (samples, P·D, P·D): output k of input i has the number i·D + k.

    **Raises:** `InputError` for inputs that do not fit the network, kernels that overflow or do not fit into memory.
    """
    check_network(network)
    check_count(samples, "samples")
    outputs = check_count(outputs, "outputs")
    check_count(1 if workers is None else workers, "workers")
    if dtype not in ("float64", "float32"):
        raise InputError(f"dtype must be 'float64' or 'float32' (got {dtype!r})")
    model = batched_module(network, outputs)
    x = checked_inputs(network, inputs).to(getattr(torch, dtype))
    rows = len(x) * outputs
    _check_memory(samples, rows)
    size = batch_size(model, x, outputs, weights=weights)
    compilation.load_all()
    task = partial(_draw, model, x, check_seed(seed), size, (outputs, bias_gradients, weights, dtype))
    batches = -(-samples // size)
    out = np.empty((samples, rows, rows))
    with (
        progress("tangent kernels", batches) as advance,
        closing(run_in_threads(task, batches, workers)) as results,
    ):
        for batch, kernel in results:
            place = slice(batch * size, min((batch + 1) * size, samples))
            out[place] = kernel[: place.stop - place.start]
            advance(1)
    if not np.isfinite(out).all():
        raise InputError("kernels overflow: use fewer layers, smaller weights or smaller inputs")
    return out


def _draw(
    model: nn.Module, x: torch.Tensor, seed: int, size: int, options: tuple[int, bool, bool, str], batch: int, **_: Any
) -> Floats:
    """Return the kernels of one batch, (size, P·D, P·D)."""
    keep_freed_memory()
    outputs, bias_gradients, weights, dtype = options
    draws = Draws(seed, STREAM, batch, size, dtype)
    drawn = Batch(draws, len(x), outputs, bias_gradients, weights)
    rows = x.expand(size, outputs, *x.shape).reshape(-1, *x.shape[1:])
    with drawn.active(), torch.enable_grad():
        out = model(rows).view(size, outputs, len(x), outputs)
        out.diagonal(dim1=1, dim2=3).sum().backward()
    return drawn.finish().view(size, len(x) * outputs, -1).numpy()


@lru_cache(maxsize=4)
def batched_module(network: Network, outputs: int) -> nn.Module:
    """Return the network's module with batched linear maps in place of its own, whose weights are never drawn."""
    model, recordings = record(partial(module, network, outputs), torch.float64)
    for name, layer in linear_maps(model).items():
        std = recordings[f"{name}.weight"].law(layer.weight.shape).std
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, BatchedLinear(layer.in_features, layer.out_features, std))
    return model


def checked_inputs(network: Network, inputs: ArrayLike) -> torch.Tensor:
    """Return the inputs as a tensor.

    **Raises:** `InputError` where they do not fit the network.
    """
    try:
        x = np.array(inputs, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"inputs must be numbers, (inputs, coordinates) (got {type(inputs).__name__})") from None
    perceptron = isinstance(network, Perceptron)
    width = network.coordinates if isinstance(network, Perceptron) else network.width
    if x.ndim not in ((2,) if perceptron else (2, 3)) or x.shape[-1] != width or 0 in x.shape:
        shape = f"(inputs, {width})" + ("" if perceptron else f" or (inputs, tokens, {width})")
        raise InputError(f"inputs must be {shape} for this network (got {x.shape})")
    if not np.isfinite(x).all():
        raise InputError("inputs must be finite numbers (got NaN or infinity)")
    return torch.from_numpy(x)


def batch_size(model: nn.Module, x: torch.Tensor, outputs: int, *, weights: bool) -> int:
    """Return the number of networks in a batch, which depends on the problem only."""
    rows = x[..., 0].numel() * outputs
    maps = [layer for layer in model.modules() if isinstance(layer, BatchedLinear)]
    numbers = sum(2 * rows * (one.in_features + one.out_features) for one in maps)
    numbers += weights * sum(one.in_features * one.out_features for one in maps)
    return int(np.clip(BATCH_BYTES // (numbers * x.element_size()), 1, MAX_BATCH))


def _check_memory(samples: int, rows: int) -> None:
    """Check that the kernels fit into memory.

    **Raises:** `InputError` otherwise.
    """
    needed, memory = 8.0 * samples * rows**2, physical_memory()
    if needed > MAX_MEMORY_SHARE * memory:
        raise InputError(
            f"{counted(samples, 'kernel')} of {counted(rows, 'row')} take {needed / 1e9:.1f} GB, more than half of "
            f"this machine's {memory / 1e9:.1f} GB: ask for fewer samples, inputs or outputs"
        )
