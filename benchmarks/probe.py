# ruff: noqa: T201
"""What a probe costs beside a plain forward and backward pass: time and peak memory, each in a fresh process.

python benchmarks/probe.py prints the table in benchmarks/README.md; --quick takes a smaller model.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

JOBS = ("plain", "probe of 1 layer", "probe of 12 layers", "probe of 12 layers, no labels")
TOKENS, REPEATS = 256, 3


def model_and_batch(*, quick: bool) -> tuple[Any, dict[str, Any]]:
    """Return GPT-2 small with random weights, or a smaller one, and a batch of 256 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 192, "n_head": 3, "vocab_size": 5000} if quick else {}
    config = GPT2Config(bos_token_id=0, eos_token_id=0, **sizes)
    ids = torch.randint(config.vocab_size, (1, TOKENS))
    model: Any = GPT2LMHeadModel(config)
    return model.eval(), {"input_ids": ids, "labels": ids}


def job(name: str, *, quick: bool) -> None:
    """Print the least seconds and processor seconds of a job, after one that does not count, and the peak MiB."""
    import shaped_transformer as st

    torch.set_num_threads(2)
    model, batch = model_and_batch(quick=quick)

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        model(**batch).loss.backward()

    def probe() -> None:
        st.probe.run(model, batch, layers="transformer.h.5" if name == "probe of 1 layer" else None)

    if "no labels" in name:
        del batch["labels"]
    work = plain if name == "plain" else probe
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024
    print(*(min(column) for column in zip(*times[1:], strict=True)), peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job")
    options = parser.parse_args()
    if options.job:
        job(options.job, quick=options.quick)
        return
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in JOBS}
    for _ in range(options.rounds):  # in turn, since the machine's speed varies
        for name in JOBS:
            command = [sys.executable, __file__, "--job", name] + ["--quick"] * options.quick
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(tuple(map(float, out.split())))
    base = [statistics.median(row[i] for row in found["plain"]) for i in range(3)]
    print("| pass | seconds | over plain | processor seconds | over plain | peak MiB | over plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        medians = [statistics.median(row[i] for row in rows) for i in range(3)]
        cells = [f"{one:.4g} | {one / plain:.2f}" for one, plain in zip(medians, base, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
