# ruff: noqa: T201
"""What shaping costs: `python benchmarks/attention.py` (two minutes) prints one table, all times from one run."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timing
import torch
from torch.nn import functional

from shaped_transformer.nn import Cache, ShapedAttention, SoftmaxAttention
from shaped_transformer.nn.functional import shaped_attention, shaped_attention_weights

HEADS, HEAD_WIDTH = 8, 64
WIDTH = HEADS * HEAD_WIDTH
SCALE = WIDTH**-0.5 * HEAD_WIDTH**-0.5
Tensor = torch.Tensor
Attention = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """PyTorch's fused attention."""
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=SCALE)


def shaped(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Ours, fused."""
    return shaped_attention(q, k, v, scale=SCALE, is_causal=causal)


def dense(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The definition, as matrices."""
    return shaped_attention_weights(q, k, scale=SCALE, is_causal=causal) @ v


FORMS: dict[str, Attention] = {"plain": plain, "shaped": shaped, "dense": dense}


def inputs(tokens: int) -> list[Tensor]:
    """Queries, keys and values of one sequence."""
    return [torch.randn(1, HEADS, tokens, HEAD_WIDTH, requires_grad=True) for _ in range(3)]


def step(form: Attention, tensors: list[Tensor], causal: bool) -> None:
    """One forward and backward pass."""
    q, k, v = tensors
    out = form(q, k, v, causal)
    torch.autograd.grad(out, tensors, torch.ones_like(out))


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each job, run in turns so that a slow moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def training(tokens: int, causal: bool, repeats: int) -> dict[str, float]:
    """Seconds of a forward and backward pass in each form."""
    tensors = inputs(tokens)
    return interleaved({n: lambda f=f: step(f, tensors, causal) for n, f in FORMS.items()}, repeats)  # type: ignore[misc]


def decoding(tokens: int, repeats: int) -> dict[str, float]:
    """Seconds per token of a layer that decodes after so many tokens, shaped against plain softmax attention."""
    jobs: dict[str, Callable[[], object]] = {}
    for name, layer in (
        ("plain", SoftmaxAttention(WIDTH, HEADS, causal=True)),
        ("shaped", ShapedAttention(WIDTH, HEADS, causal=True)),
    ):
        cache = Cache(1).layers[0]
        with torch.no_grad():
            layer.eval()(torch.randn(1, tokens, WIDTH), cache=cache)
        token = torch.randn(1, 1, WIDTH)
        jobs[name] = lambda layer=layer, cache=cache, token=token: [layer(token, cache=cache) for _ in range(20)]  # type: ignore[misc]
    with torch.no_grad():
        return {name: seconds / 20 for name, seconds in interleaved(jobs, repeats).items()}


def peak_memory(form: str, tokens: int, causal: bool) -> float:
    """Megabytes that a forward and backward pass, its inputs included, adds to a fresh process at its peak."""
    command = [sys.executable, __file__, "--memory", form, str(tokens), str(int(causal))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak_memory(form: str, tokens: int, causal: bool) -> None:
    """The child's part."""
    step(FORMS[form], inputs(64), causal)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    step(FORMS[form], inputs(tokens), causal)
    print((status("VmHWM") - before) / 1024)


def status(field: str) -> int:
    """A line of Linux's account of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs=3, metavar=("FORM", "TOKENS", "CAUSAL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_peak_memory(arguments.memory[0], int(arguments.memory[1]), bool(int(arguments.memory[2])))
        return
    rows = []
    for causal in (False, True):
        kind = "causal" if causal else "full"
        t = training(2048, causal, arguments.repeats)
        rows.append((f"forward + backward, {kind}, T = 2048", 1e3, "ms", t))
        memory = {form: peak_memory(form, 4096, causal) for form in FORMS}
        rows.append((f"peak memory, {kind}, T = 4096", 1.0, "MB", memory))
    rows.append(("one token of a layer, with the cache, after 2048", 1e6, "µs", decoding(2048, 4 * arguments.repeats)))
    print(f"{timing.machine()}; {torch.get_num_threads()} threads, float32, {HEADS} heads × {HEAD_WIDTH}\n")
    print("| | plain attention | shaped | dense | shaped / plain | shaped / dense |\n|---|---|---|---|---|---|")
    for name, unit, symbol, t in rows:
        cells = [f"{unit * t[form]:.3g} {symbol}" if form in t else "" for form in FORMS]
        ratios = [f"{t['shaped'] / t[other]:.3f}" if other in t else "" for other in ("plain", "dense")]
        print("| " + " | ".join([name, *cells, *ratios]) + " |")
    print(json.dumps({name: t for name, _, _, t in rows}), file=sys.stderr)


if __name__ == "__main__":
    main()
