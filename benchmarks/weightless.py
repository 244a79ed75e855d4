# ruff: noqa: T201
"""What a pass without weights costs: `python benchmarks/weightless.py` prints one table of one run (ten minutes)."""

import argparse
import json
import resource
import time
from dataclasses import asdict
from pathlib import Path

import timing
import torch

from shaped_transformer import nn, weightless
from shaped_transformer.weightless.measure import Measurement, measure

CASES = (
    ("gpt2-124m", 16),
    ("gpt2-1.6b", 16),
    ("llama-1.1b", 16),
    ("llama-8b", 16),
    ("llama-70b", 16),
    ("llama-405b", 16),
    ("llama-8b", 256),
    ("llama-8b", 1024),
)
"""Sizes and numbers of tokens."""

REAL = ("gpt2-124m", "llama-1.1b")
"""Sizes that are measured with real weights too."""

CHECKPOINTED = (("llama-8b", 256),)
"""Cases that are measured with checkpointing too."""


def middle(found: list[Measurement]) -> Measurement:
    """Return the measurement of median total time, with the largest memory."""
    chosen = sorted(found, key=lambda one: one.total)[len(found) // 2]
    return Measurement(**asdict(chosen) | {"gigabytes": max(one.gigabytes for one in found)})


def rows(repeats: int, largest: int) -> list[dict[str, object]]:
    """Measure all cases and return a row for each."""
    out: list[dict[str, object]] = []
    for name, tokens in CASES:
        if tokens > largest:
            continue
        kinds: list[tuple[str, dict[str, bool]]] = [("weightless", {})]
        kinds += [("weightless, checkpointing", {"checkpointing": True})] if (name, tokens) in CHECKPOINTED else []
        kinds += [("real weights", {"real": True})] if name in REAL else []
        for kind, options in kinds:
            found = middle([measure(name, tokens, **options) for _ in range(1 if tokens > 256 else repeats)])
            out.append({"model": name, "tokens": tokens, "kind": kind} | asdict(found))
            print(line(out[-1]), flush=True)
    return out


def line(row: dict[str, object]) -> str:
    """Return a line of the table."""
    billions = float(str(row["parameters"])) / 1e9
    seconds = " | ".join(f"{float(str(row[name])):.3g}" for name in ("build", "forward", "backward"))
    memory = float(str(row["gigabytes"]))
    return f"| {row['model']} | {billions:.3g} | {row['tokens']} | {row['kind']} | {seconds} | {memory:.3g} |"


def ratios(found: list[dict[str, object]]) -> list[str]:
    """Return sentences that compare building and running real weights with running, and building, without."""
    out = []
    for name in REAL:
        seconds = {
            str(row["kind"]): [float(str(row[part])) for part in ("build", "forward", "backward")]
            for row in found
            if row["model"] == name and row["tokens"] == 16
        }
        real, passes = sum(seconds["real weights"]), sum(seconds["weightless"][1:])
        whole = sum(seconds["weightless"])
        out.append(
            f"- {name}, 16 tokens: building and running real weights takes {real / passes:.3g} times as long as a pass "
            f"without weights, and {real / whole:.3g} times as long as building and a pass"
        )
    return out


def train(width: int, steps: int) -> None:
    """Print the loss, the seconds and the memory after each step of gradient descent of a very wide network."""
    torch.manual_seed(0)
    model = weightless.build(lambda: nn.ShapedTransformer(width=width, depth=2, heads=64), seed=0)
    optimiser = weightless.SGD(model, lr=0.5, momentum=0.9)
    x, y = torch.randn(1, 4, width), torch.randn(1, 4, width)
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e9:.3g} billion parameters")
    start = time.perf_counter()
    for step in range(steps):
        optimiser.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        weightless.clip_grad_norm_(model, 1.0)
        optimiser.step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"step {step}: loss {float(loss.detach()):.3g}, {time.perf_counter() - start:.3g} s, {peak:.3g} GB")


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each case; the median is shown")
    parser.add_argument("--largest", type=int, default=1024, help="largest number of tokens")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--train", action="store_true", help="instead train a network of width 65,536 for ten steps")
    given = parser.parse_args()
    if given.train:
        train(65_536, 10)
        return
    print(timing.machine())
    print("\n| model | billion parameters | tokens | | build, s | forward, s | backward, s | memory, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    found = rows(given.repeats, given.largest)
    print("\n" + "\n".join(ratios(found)))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
