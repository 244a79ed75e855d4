# ruff: noqa: T201
"""Coordinate check of the learning rates: how far the same few steps move the stream, over width and depth.

python benchmarks/coordinate_check.py prints the table in docs/nn.md. Flat is right: one rate then serves all sizes.
"""

import math
from typing import Any

import torch
from torch import nn

import shaped_transformer as st

VOCABULARY, TOKENS, BATCH, STEPS = 64, 16, 4, 4


class Language(nn.Module):
    """A shaped Transformer between embeddings and head, as users build it."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(VOCABULARY, width)
        self.body = st.nn.ShapedTransformer(
            width, depth, 4, gamma=0.5 / math.sqrt(depth), causal=True, shaping="learn", learnable_slopes=True
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.head.weight, std=width**-0.5)

    def forward(self, ids: Any) -> tuple[Any, Any]:
        stream = self.body(self.embeddings(ids))
        return stream, self.head(self.norm(stream))


def moved(width: int, depth: int, *, grouped: bool) -> float:
    """Return how far a few small steps of Adam move the stream at the end, over its size, a mean over two seeds.

    **Arguments:** `grouped`: whether rates go by `parameter_groups`; else one rate is for all.
    """
    changes = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = Language(width, depth)
        lr = 1e-4
        optimiser = torch.optim.AdamW(
            st.nn.parameter_groups(model, lr) if grouped else model.parameters(), lr=lr, weight_decay=0
        )
        ids = torch.randint(0, VOCABULARY, (STEPS + 1, BATCH, TOKENS))
        ids[..., 1:] = ids[..., :1]  # something to be learnt: all tokens are the first one
        with torch.no_grad():
            before = model(ids[-1])[0]
        for batch in ids[:-1]:
            logits = model(batch)[1]
            loss: Any = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            changes.append(float((model(ids[-1])[0] - before).norm() / before.norm()))
    return sum(changes) / 2


WIDTHS, DEPTHS = (32, 64, 128, 256), (4, 8, 16, 32, 64)
AT = (8, 32)
"""Depth of the table's row over widths, width of that over depths."""


def main() -> None:
    """Print the table."""
    for name, sizes in (("n", [(n, AT[0]) for n in WIDTHS]), ("d", [(AT[1], d) for d in DEPTHS])):
        print(f"| {name} | " + " | ".join(str(size[name == "d"]) for size in sizes) + " | largest over smallest |")
        print("|---" * (len(sizes) + 2) + "|")
        for title, grouped in (("parameter_groups", True), ("one rate for all", False)):
            moves = [moved(*size, grouped=grouped) for size in sizes]
            cells = " | ".join(f"{move:.3f}" for move in moves)
            print(f"| {title} | {cells} | {max(moves) / min(moves):.2f} |")


if __name__ == "__main__":
    main()
