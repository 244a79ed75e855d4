# ruff: noqa: T201
"""Draw the pictures of docs/probe.md, a healthy, a collapsing and an exploding model, and print their verdicts.

python tools/probe_pictures.py
"""

from pathlib import Path
from typing import Any

import torch
import transformers

import shaped_transformer as st
from shaped_transformer.plotting.probe import plot
from shaped_transformer.plotting.style import save
from shaped_transformer.probe.verdict import judge

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
IDS = torch.randint(200, (4, 16), generator=torch.Generator().manual_seed(0))
BATCH = {"input_ids": IDS, "labels": IDS}
DRAWS = 100
SIZES: dict[str, Any] = {"vocab_size": 200, "hidden_size": 128, "num_hidden_layers": 32, "num_attention_heads": 4}


def models() -> dict[str, Any]:
    """Return the configurations of the three models and their classes."""
    bert = transformers.BertConfig(intermediate_size=256, initializer_range=0.08, **SIZES)
    shaped = st.hf.ShapedTransformerConfig(**SIZES)
    loud = st.hf.ShapedTransformerConfig(**SIZES, gamma=0.5, skip=1.0)
    causal, masked = transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM
    return {"healthy": (shaped, causal), "collapsing": (bert, masked), "exploding": (loud, causal)}


def build(cls: Any, config: Any) -> Any:
    """Return a model of a configuration."""
    return cls.from_config(config)


def main() -> None:
    """Draw the pictures."""
    for name, (config, cls) in models().items():
        torch.manual_seed(0)
        model = build(cls, config)
        result = st.probe.run(model, BATCH)
        comparison = result.compare(st.probe.expected(model, BATCH, draws=DRAWS))
        save(plot(result, comparison), FOLDER / f"probe-{name}")
        (FOLDER / f"probe-{name}.svg").unlink()
        print(f"{name}: {judge(result, comparison).sentence}")


if __name__ == "__main__":
    main()
