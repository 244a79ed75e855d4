# ruff: noqa: T201
"""Probe published configurations at initialisation, before and after `st.hf.shape_`; print the tables of docs/probe.md.

python tools/probe_configurations.py
"""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from probe_pictures import models

import shaped_transformer as st
from shaped_transformer.io.yaml import read_yaml
from shaped_transformer.weightless.measure import SIZES

TOKENS = 16
NUMBERS = ("token_norm", "mean_absolute_correlation", "effective_rank", "gradient_norm")
LLAMA_3 = {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}
"""What `sizes.yaml` leaves at the defaults of transformers."""


def published(size: str, **options: Any) -> Any:
    """Return a configuration of `sizes.yaml`."""
    entry = read_yaml(SIZES)[size]
    return getattr(transformers, entry["class"])(**entry["sizes"], **options)


def shaped(config: Any, cls: Any) -> Any:
    """Return a new model with shaped attention."""
    return st.hf.shape_(cls.from_config(config))


def draw(config: Any, cls: Any, draws: int, *, shape: bool = False) -> dict[str, Any]:
    """Return each number in each draw at the input, the middle and the last layer, (draws, 3), and `seconds`.

    The gradient is divided by that of the last layer.
    """
    ids = 100 + torch.randperm(100, generator=torch.Generator().manual_seed(0))[None, :TOKENS]
    begun = time.perf_counter()
    source = partial(shaped, config, cls) if shape else config
    found = st.probe.expected(source, {"input_ids": ids, "labels": ids}, draws, cls=None if shape else cls)
    at = [0, (len(found.layers) - 1) // 2, -1]
    numbers: dict[str, Any] = {name: found.draws(name)[:, at] for name in NUMBERS}
    numbers["gradient_norm"] = numbers["gradient_norm"] / numbers["gradient_norm"][:, -1:]
    return numbers | {"seconds": time.perf_counter() - begun}


def cell(samples: Any) -> str:
    """Return the median and 5–95 % of draws, with three digits."""
    low, median, high = (
        f"{x:.3g}" if x < 1000 else f"{float(f'{x:.3g}'):,.0f}" for x in np.quantile(samples, (0.05, 0.5, 0.95))
    )
    return median if low == high else f"{median} ({low}–{high})"


def main() -> None:
    """Print both tables."""
    causal = transformers.AutoModelForCausalLM
    gpt2, llama = published("gpt2-124m"), published("llama-8b", **LLAMA_3)
    bert, masked = models()["collapsing"]
    plain = {
        "GPT-2 124M": draw(gpt2, causal, 40),
        "Llama 3 8B": draw(llama, causal, 20),
        "Llama 3 70B": draw(published("llama-70b", **LLAMA_3), causal, 10),
    }
    print("| model, layer | token norm | mean \\|ρ\\| | effective rank | gradient over that of the last layer |")
    for model, numbers in plain.items():
        for i, place in enumerate(("input", "middle", "last")):
            print("|", " | ".join([f"{model}, {place}", *(cell(numbers[name][:, i]) for name in NUMBERS)]), "|")
        print(f"{model}: {len(numbers['token_norm'])} draws in {numbers['seconds']:.0f} s")
    pairs = {
        "GPT-2 124M": (plain["GPT-2 124M"], draw(gpt2, causal, 40, shape=True)),
        "Llama 3 8B": (plain["Llama 3 8B"], draw(llama, causal, 20, shape=True)),
        "BERT of the second picture": (draw(bert, masked, 40), draw(bert, masked, 40, shape=True)),
    }
    print("| model | attention | mean \\|ρ\\|, last layer | effective rank, middle | last layer | gradient, input |")
    for model, before_after in pairs.items():
        for attention, numbers in zip(("softmax", "shaped"), before_after, strict=True):
            chosen = (
                numbers["mean_absolute_correlation"][:, 2],
                numbers["effective_rank"][:, 1],
                numbers["effective_rank"][:, 2],
                numbers["gradient_norm"][:, 0],
            )
            print("|", " | ".join([model, attention, *map(cell, chosen)]), f"| {numbers['seconds']:.0f} s")


if __name__ == "__main__":
    main()
