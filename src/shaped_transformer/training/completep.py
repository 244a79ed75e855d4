"""CompleteP: how initialisation and learning rates of pre-norm Transformers follow width and depth (arXiv 2505.01618).

The rules are those of its authors' code (EleutherAI/nanoGPT-mup, branch completep), for embeddings and heads that are
not tied. With m = n/32 and l = d/4, the size over that of the smallest network, and an exponent α:

- branches are multiplied by l^(−α), the head's logits by 1/m, those of attention by 1/(n/H) in place of its root;
- matrices of blocks: N(0, 0.02²/m), rate × l^(α−1)/m, ε × l^(−α)/m, weight decay × m;
- embeddings and the head: N(0, 0.02²), ε × 1/m; norms within blocks: rate × l^(α−1), ε × l^(−α)/m.

Adam does not tell a multiplier c of a matrix in the forward pass from one in its initialisation and rate, with ε and
weight decay × 1/c. So the multipliers of head and logits stand there: the network is that of the variant `pre-norm`.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

BASE_WIDTH, BASE_DEPTH = 32, 4
"""Size of the network at which all rates are one."""
STD, EPSILON = 0.02, 1e-8
"""Standard deviation of weights, and ε of Adam, at that size."""
Rule = tuple[float, float, float, float]
"""Factors of standard deviation, rate, ε and weight decay."""


def branch_scale(depth: int, alpha: float) -> float:
    """Return the multiplier of the branches; networks with fewer blocks than the base have that of the base."""
    return _times_deeper(depth) ** -alpha


def initialise_(model: Any, alpha: float) -> None:
    """Draw the matrices of a model anew."""
    for parameter, (std, *_) in _rules(model, alpha):
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=STD * std)


def completep_groups(model: Any, lr: float, weight_decay: float, alpha: float) -> list[dict[str, Any]]:
    """Return the groups of parameters for AdamW.

    **Arguments:**

    - `model`: of `st.hf`, as `initialise_` left it.
    - `lr`, `weight_decay`: at the base size.
    - `alpha`: α, 1 for CompleteP.
    """
    found: dict[Rule, list[nn.Parameter]] = {}
    for parameter, rule in _rules(model, alpha):
        found.setdefault(rule, []).append(parameter)
    return [
        {"params": parameters, "lr": lr * rate, "eps": EPSILON * epsilon, "weight_decay": weight_decay * decay}
        for (_, rate, epsilon, decay), parameters in found.items()
    ]


def _rules(model: Any, alpha: float) -> Iterator[tuple[nn.Parameter, Rule]]:
    """Yield each parameter with its factors."""
    config = model.config
    m, depth = config.hidden_size / BASE_WIDTH, _times_deeper(config.num_hidden_layers)
    head_size = config.hidden_size / config.num_attention_heads
    for name, parameter in model.named_parameters():
        part = name.split(".")[-2]
        rate, epsilon = (depth ** (alpha - 1), depth**-alpha / m) if "layers" in name else (1.0, 1 / m)
        if parameter.dim() < 2:
            yield parameter, (1.0, rate, epsilon, 0.0)
        elif "layers" in name:
            c = head_size**-0.5 if part == "query" else 1.0
            yield parameter, (c / math.sqrt(m), c * rate / m, epsilon / c, m / c)
        elif part in ("head", "score"):
            yield parameter, (1 / m, 1 / m, 1.0, m)
        else:
            yield parameter, (1.0, 1.0, epsilon, 1.0)


def _times_deeper(depth: int) -> float:
    """Return l, at least 1."""
    return max(1.0, depth / BASE_DEPTH)
