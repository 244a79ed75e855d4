# ruff: noqa: T201
"""What shaping costs: `python benchmarks/attention.py` (two minutes) prints one table, all times from one run.

With `--device cuda --dtype bfloat16` it measures a GPU, at more tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
Row = tuple[str, float, str, dict[str, float]]
"""Name, unit, its symbol, and the numbers by form."""


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """PyTorch's fused attention."""
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=SCALE)


def shaped(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Ours, fused."""
    return shaped_attention(q, k, v, scale=SCALE, is_causal=causal)


def dense(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The definition, as matrices."""
    return shaped_attention_weights(q, k, scale=SCALE, is_causal=causal) @ v


def shaped_in_32_bits(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Ours, fused, in float32 throughout."""
    return shaped_attention(q, k, v, scale=SCALE, is_causal=causal, upcast=True)


FORMS: dict[str, Attention] = {"plain": plain, "shaped": shaped, "dense": dense}
FORMS_IN_16_BITS: dict[str, Attention] = {
    "plain": plain,
    "shaped": shaped,
    "upcast=True": shaped_in_32_bits,
    "dense": dense,
}


@dataclass(frozen=True)
class Setting:
    """Where and on what to measure.

    **Arguments:**

    - `device`, `dtype`: of all tensors, and the dtype by name.
    - `batch`: number of sequences.
    - `timed`, `stored`, `decoded`: numbers of tokens for the times of a pass, for memory, and before a decoded token.
    - `dense`: number of tokens above which the dense form is left out.
    - `inner`: how often a job runs for one time.
    """

    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    timed: tuple[int, ...] = (2048,)
    stored: tuple[int, ...] = (4096,)
    decoded: tuple[int, ...] = (2048,)
    dense: int = 4096
    inner: int = 1

    @property
    def forms(self) -> dict[str, Attention]:
        """The forms to compare, by the names of the columns."""
        return FORMS if self.dtype == "float32" else FORMS_IN_16_BITS

    def forms_at(self, tokens: int) -> dict[str, Attention]:
        """The forms that are measured at a number of tokens."""
        return {name: form for name, form in self.forms.items() if name != "dense" or tokens <= self.dense}

    @property
    def like(self) -> dict[str, Any]:
        """The options of new tensors."""
        return {"device": self.device, "dtype": getattr(torch, self.dtype)}

    def finish(self) -> None:
        """Wait until a GPU has computed what it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()


GPU: dict[str, Any] = {
    "batch": 4,
    "timed": (2048, 8192, 16384),
    "stored": (4096, 16384),
    "decoded": (2048, 16384),
    "inner": 5,
}
"""The setting on a GPU: enough work to fill it."""


def inputs(tokens: int, setting: Setting) -> list[Tensor]:
    """Queries, keys and values."""
    shape = (setting.batch, HEADS, tokens, HEAD_WIDTH)
    return [torch.randn(shape, **setting.like).requires_grad_() for _ in range(3)]


def step(form: Attention, tensors: list[Tensor], causal: bool) -> None:
    """One forward and backward pass."""
    q, k, v = tensors
    out = form(q, k, v, causal)
    torch.autograd.grad(out, tensors, torch.ones_like(out))


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int, setting: Setting) -> dict[str, float]:
    """Median seconds of each job, run in turns so that a slow moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            setting.finish()
            start = time.perf_counter()
            for _ in range(setting.inner):
                job()
            setting.finish()
            times[name].append((time.perf_counter() - start) / setting.inner)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def training(tokens: int, causal: bool, repeats: int, setting: Setting) -> dict[str, float]:
    """Seconds of a forward and backward pass in each form."""
    tensors = inputs(tokens, setting)
    jobs: dict[str, Callable[[], object]] = {
        n: lambda f=f: step(f, tensors, causal)  # type: ignore[misc]
        for n, f in setting.forms_at(tokens).items()
    }
    return interleaved(jobs, repeats, setting)


def decoding(tokens: int, repeats: int, setting: Setting) -> dict[str, float]:
    """Seconds per token of a layer that decodes after so many tokens, shaped against plain softmax attention."""
    jobs: dict[str, Callable[[], object]] = {}
    for name, layer in (
        ("plain", SoftmaxAttention(WIDTH, HEADS, causal=True)),
        ("shaped", ShapedAttention(WIDTH, HEADS, causal=True)),
    ):
        layer.to(**setting.like).eval()
        cache = Cache(1).layers[0]
        with torch.no_grad():
            layer(torch.randn(setting.batch, tokens, WIDTH, **setting.like), cache=cache)
        token = torch.randn(setting.batch, 1, WIDTH, **setting.like)
        jobs[name] = lambda layer=layer, cache=cache, token=token: [layer(token, cache=cache) for _ in range(20)]  # type: ignore[misc]
    with torch.no_grad():
        times = interleaved(jobs, repeats, replace(setting, inner=1))  # the cache grows with each token
    return {name: seconds / 20 for name, seconds in times.items()}


def added_memory(form: str, tokens: int, causal: bool, setting: Setting) -> float:
    """Megabytes that a forward and backward pass, its inputs included, adds at its peak."""
    return (
        memory_of_gpu(form, tokens, causal, setting) if setting.device == "cuda" else peak_memory(form, tokens, causal)
    )


def memory_of_gpu(form: str, tokens: int, causal: bool, setting: Setting) -> float:
    """The same of the memory that PyTorch hands out on a GPU."""
    step(setting.forms[form], inputs(64, setting), causal)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(setting.forms[form], inputs(tokens, setting), causal)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def peak_memory(form: str, tokens: int, causal: bool) -> float:
    """The same of a fresh process on the CPU."""
    command = [sys.executable, __file__, "--memory", form, str(tokens), str(int(causal))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak_memory(form: str, tokens: int, causal: bool) -> None:
    """The child's part."""
    step(FORMS[form], inputs(64, Setting()), causal)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    step(FORMS[form], inputs(tokens, Setting()), causal)
    print((status("VmHWM") - before) / 1024)


def status(field: str) -> int:
    """A line of Linux's account of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(repeats: int, setting: Setting) -> list[Row]:
    """All rows of the table."""
    rows: list[Row] = []
    for causal in (False, True):
        kind = "causal" if causal else "full"
        for tokens in setting.timed:
            t = training(tokens, causal, repeats, setting)
            rows.append((f"forward + backward, {kind}, T = {tokens}", 1e3, "ms", t))
        for tokens in setting.stored:
            memory = {form: added_memory(form, tokens, causal, setting) for form in setting.forms_at(tokens)}
            rows.append((f"peak memory, {kind}, T = {tokens}", 1.0, "MB", memory))
    for tokens in setting.decoded:
        t = decoding(tokens, 4 * repeats, setting)
        rows.append((f"one token of a layer, with the cache, after {tokens}", 1e6, "µs", t))
    return rows


def where(setting: Setting) -> str:
    """The machine, and what was measured on it."""
    if setting.device == "cpu":
        return f"{timing.machine()}; {torch.get_num_threads()} threads, float32, {HEADS} heads × {HEAD_WIDTH}"
    gpu = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {timing.machine()}"
    return f"{gpu}; {setting.dtype}, batch {setting.batch}, {HEADS} heads × {HEAD_WIDTH}"


def print_table(rows: list[Row], setting: Setting) -> None:
    """Print the table, and its numbers as JSON to standard error."""
    forms, others = list(setting.forms), [name for name in setting.forms if name != "shaped"]
    titles = ["plain attention" if form == "plain" else form for form in forms]
    heads = [*titles, *(f"shaped / {other}" for other in others)]
    print(f"{where(setting)}\n")
    print(f"| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name, unit, symbol, t in rows:
        cells = [f"{unit * t[form]:.3g} {symbol}" if form in t else "" for form in forms]
        ratios = [f"{t['shaped'] / t[other]:.3f}" if other in t else "" for other in others]
        print("| " + " | ".join([name, *cells, *ratios]) + " |")
    print(json.dumps({name: t for name, _, _, t in rows}), file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--memory", nargs=3, metavar=("FORM", "TOKENS", "CAUSAL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_peak_memory(arguments.memory[0], int(arguments.memory[1]), bool(int(arguments.memory[2])))
        return
    if arguments.device == "cpu" and arguments.dtype != "float32":
        parser.error("16 bits are measured on a GPU only: add --device cuda")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that CUDA can use")
    setting = Setting("cuda", arguments.dtype, **GPU) if arguments.device == "cuda" else Setting()
    print_table(measure(arguments.repeats, setting), setting)


if __name__ == "__main__":
    main()
