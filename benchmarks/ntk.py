# ruff: noqa: T201, E402
"""Tangent kernels of deep ReLU perceptrons: without weights against real networks, in one run; and their dispersion.

`--dispersion` instead draws a million kernels of each of three perceptrons and holds them against the formula.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import timing

timing.one_core()

import torch  # it reads the number of threads when it is imported

import shaped_transformer as st
from shaped_transformer import ntk

SHAPES = ((50, 10), (20, 10), (60, 30))
"""Width and depth of the perceptrons of `--dispersion`."""


def seconds_per_draw(job: Callable[[int], object], draws: int) -> float:
    """Return the seconds that a draw takes, of `draws` after one that does not count."""
    job(1)
    start = time.perf_counter()
    job(draws)
    return (time.perf_counter() - start) / draws


def by_jacobian(mlp: ntk.Perceptron, x: torch.Tensor, draws: int) -> None:
    """Draw real networks and their kernels from Jacobians."""
    for _ in range(draws):
        ntk.of(ntk.module(mlp), x)


def compare(width: int, depth: int, inputs: int, draws: int) -> None:
    """Print seconds per draw of each way, and their ratios to the weightless one in single precision."""
    mlp = ntk.Perceptron(width, depth)
    x = np.random.default_rng(0).standard_normal((inputs, width))
    single = torch.as_tensor(x, dtype=torch.float32)
    jobs: dict[str, tuple[Callable[[int], object], int]] = {
        "weightless, float32": (lambda k: st.ntk.sample(mlp, x, k, 0, workers=1, dtype="float32"), 20 * draws),
        "weightless, float64": (lambda k: st.ntk.sample(mlp, x, k, 0, workers=1), 20 * draws),
        "real weights, float32, from inner products": (
            lambda k: st.ntk.sample(mlp, x, k, 0, workers=1, dtype="float32", weights=True),
            draws,
        ),
        "real weights, float32, `torch.func`": (lambda k: by_jacobian(mlp, single, k), draws),
    }
    print(f"{timing.machine()}; width {width}, {depth} hidden layers, {inputs} inputs, one core\n")
    print("| kernel of | seconds per network | times the first |\n| --- | --- | --- |")
    first = None
    for name, (job, count) in jobs.items():
        taken = seconds_per_draw(job, count)
        first = taken if first is None else first
        print(f"| {name} | {taken:.3g} | {taken / first:.3g} |", flush=True)


def disperse(samples: int) -> None:
    """Print the dispersion of drawn kernels beside the formula and the limit."""
    print("| M | L | formula | limit | drawn, bootstrap | drawn, log-normal error | tail reached | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for width, depth in SHAPES:
        start = time.perf_counter()
        kernels = ntk.sample(ntk.Perceptron(width, depth), np.ones((1, width)), samples, seed=0)[:, 0, 0]
        found = ntk.measure_dispersion(kernels)
        exact, limit = ntk.dispersion(width, depth), ntk.limit_dispersion(depth / width)
        reached, taken = "yes" if found.reached else "no", time.perf_counter() - start
        cells = (width, depth, f"{exact:.4g}", f"{limit:.4g}", found.bootstrap, found.lognormal, reached)
        print("| " + " | ".join(map(str, (*cells, f"{taken:.0f}"))) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--draws", type=int, default=5, help="real networks of each kind; weightless ones are 20 times")
    parser.add_argument("--dispersion", action="store_true", help="draw a million kernels of three perceptrons instead")
    parser.add_argument("--samples", type=int, default=1_000_000, help="draws with --dispersion")
    given = parser.parse_args()
    if given.dispersion:
        disperse(given.samples)
    else:
        compare(given.width, given.depth, given.inputs, given.draws)


if __name__ == "__main__":
    main()
