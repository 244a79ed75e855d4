# ruff: noqa: T201
"""What a rehearsal takes: `python benchmarks/rehearsal.py` prints one table of one run (ten minutes on two cores).

Each case runs in a fresh process: the first steps of AdamW on one sequence of random tokens, in float32.
"""

import argparse
import resource
import subprocess
import sys
import time

CASES = (("llama-1.1b", 1), ("llama-1.1b", 3), ("llama-8b", 1), ("llama-8b", 3), ("llama-70b", 1))
"""Sizes of `weightless/sizes.yaml`, and numbers of steps."""


def job(name: str, tokens: int, steps: int) -> None:
    """Print seconds of a forward and backward pass and steps, what was estimated, and the peak memory in GiB."""
    import torch

    import shaped_transformer as st
    from shaped_transformer.rehearse.cost import estimate
    from shaped_transformer.weightless.measure import configuration

    config = configuration(name)
    ids = torch.randint(config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids}
    model = st.weightless.from_config(config).eval()
    expected = estimate(model, tokens, steps)
    optimiser = st.weightless.AdamW(model, lr=3e-4)
    start = time.perf_counter()
    model(**batch).loss.backward()
    optimiser.step()
    once = time.perf_counter() - start
    del model, optimiser
    start = time.perf_counter()
    st.rehearse.run(config, batch, lr=3e-4, steps=steps, clip=1.0)
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    cells = (f"{x:.3g}" for x in (once, whole, expected.seconds, peak))
    print(f"| {name} | {tokens} | {steps} |", " | ".join(cells), "|")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--only", help="one size")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job(given.job[0], int(given.job[1]), int(given.job[2]))
        return
    print("| model | tokens | steps | one pass and step, s | rehearsal, s | said beforehand, s | memory, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name, steps in CASES:
        if given.only in (None, name):
            command = [sys.executable, "-W", "ignore", __file__, "--job", name, str(given.tokens), str(steps)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
