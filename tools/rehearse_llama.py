# ruff: noqa: T201
"""Rehearse Llama 3 8B at its published rate and at ten times the rate; print the table of docs/rehearse.md.

python tools/rehearse_llama.py; --size llama-1.1b for another size of weightless/sizes.yaml.
"""

import argparse
import statistics
import time

import torch

import shaped_transformer as st
from shaped_transformer.rehearse.roles import role
from shaped_transformer.rehearse.verdict import judge
from shaped_transformer.weightless.measure import configuration

RATE, WARMUP, TOKENS, STEPS = 3e-4, 8000, 16, 3
"""Peak rate and warm-up of Llama 3 8B (The Llama 3 Herd of Models, arXiv 2407.21783, §3.4.1)."""

SETTINGS = {
    "published, with its warm-up": (RATE, WARMUP),
    "published, without warm-up": (RATE, 0),
    "ten times, without warm-up": (10 * RATE, 0),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="llama-8b")
    config = configuration(parser.parse_args().size)
    ids = torch.randperm(config.vocab_size, generator=torch.Generator().manual_seed(0))[None, :TOKENS]
    print("| rate | loss at steps 0–3 | stream | logits of attention | queries, keys | values | MLP | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    sentences = []
    for name, (rate, warmup) in SETTINGS.items():
        begun = time.perf_counter()
        result = st.rehearse.run(
            config,
            {"input_ids": ids, "labels": ids},
            lr=rate,
            steps=STEPS,
            warmup=warmup,
            clip=1.0,
            options={"betas": (0.9, 0.95)},
        )
        data = result.data.isel(draw=0)
        minutes = (time.perf_counter() - begun) / 60
        first = data["effective_update"].sel(update=1)
        kinds = (("query", "key"), ("value",), ("MLP in", "MLP out"))
        moved = [[float(x) for x in first if role(str(x["weight"].values)) in some] for some in kinds]
        cells = [
            " → ".join(f"{x:.3g}" for x in data["loss"].values),
            f"{float(data['stream_change'].sel(step=1).max()):.2g}",
            f"{float(data['attention_range'].sel(step=data['step'][-1]).max()):.3g}",
            *(f"{statistics.median(some):.2g}" for some in moved),
            f"{minutes:.1f}",
        ]
        print("|", " | ".join([name, *cells]), "|", flush=True)
        sentences.append(f"{name}: {judge(result).sentence}")
    print("\n" + "\n".join(sentences))


if __name__ == "__main__":
    main()
