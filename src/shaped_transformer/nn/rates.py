"""Learning rates by parameter group: the rule that lets one rate serve all widths and depths.

The rule is ours, in the manner of μP; docs/nn.md derives it and shows the check over width and depth.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..errors import InputError
from .block import ShapedBlock
from .checks import check_module

WIDTH, DEPTH, GAMMA = 64, 64, 0.2
"""Where the factors below were measured; the rule carries them elsewhere."""
EMBEDDING, HEAD, HIDDEN, GAINS, OTHER = 40.0, 4.0, 0.1, 4.0, 4.0
"""Rates over lr there."""
LOGITS = 1.25
"""Of queries and keys, times √n, beside the other weights of the block."""
LARGEST = 4.0
"""Of the share of a branch, for gains and logits: beyond it a softmax saturates, however few the branches are."""


def parameter_groups(model: nn.Module, lr: float, weight_decay: float | None = None) -> list[dict[str, Any]]:
    """Sort the parameters of a shaped Transformer into groups with a learning rate each, for Adam and its relatives.

    ```python
    optimiser = torch.optim.AdamW(st.nn.parameter_groups(model, lr=2e-3), weight_decay=0.1)
    ```

    An update of Adam moves every entry by about its rate η, all in the gradient's direction. A weight matrix of fan-in
    n then changes its output by η·n; the 2d branches, of strength γ each, add up to d·γ·η·n. So that one step changes
    what the network does by an amount that depends on neither width nor depth:

    - embeddings (entries of order 1): 40·lr;
    - maps outside the blocks (head, patches), fan-in f: 4·lr·64/f;
    - weights of a block: 0.1·lr·(64/n)·s, with the share s = 64·0.2/(d·γ) of a branch;
    - its queries and keys: 0.125·√n·lr·(64/n)·min(s, 4), because the logits are divided by √n more than they would be
      without the shaped temperature, and a softmax must not saturate in a step;
    - gains and slopes: 4·lr·min(s, 4);
    - all else (positions, norms): 4·lr.

    **Arguments:**

    - `model`: any module that holds `ShapedBlock`s: `ShapedTransformer`, the models of `st.hf`, one of your own.
    - `lr`: the one rate, 2e-3 being a good start.
    - `weight_decay`: of matrices and embeddings; default `None`, the optimiser's own. Gains, slopes and norms have
      none in any case.

    **Returns:** groups for an optimiser, each with `params`, `lr` and a `name`, and with `weight_decay` where it is not
    the optimiser's.

    **Raises:** `InputError` for what is no module, or has no shaped block, and if `lr` is not positive.
    """
    check_module(model, "give the model itself, not its parameters, as its blocks tell the rates")
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not lr > 0:
        raise InputError(f"lr must be a positive number (got {lr!r})")
    blocks = [module for module in model.modules() if isinstance(module, ShapedBlock)]
    if not blocks:
        raise InputError(
            f"{type(model).__name__} has no ShapedBlock: give a model of st.nn or st.hf, or rates of your own"
        )
    found: dict[tuple[str, float], list[nn.Parameter]] = {}
    seen: set[int] = set()

    def put(name: str, rate: float, parameter: nn.Parameter) -> None:
        if id(parameter) not in seen and parameter.requires_grad:
            seen.add(id(parameter))
            found.setdefault((name, rate), []).append(parameter)

    for block in blocks:
        for name, rate, parameter in _in_block(block, len(blocks)):
            put(name, lr * rate, parameter)
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) and not name.endswith("positions"):
                put("embeddings", lr * EMBEDDING, parameter)
            elif isinstance(module, nn.Linear) and parameter.dim() == 2:
                put("head", lr * HEAD * WIDTH / module.in_features, parameter)
            else:
                put("other", lr * OTHER, parameter)
    of_matrices: dict[str, Any] = {} if weight_decay is None else {"weight_decay": weight_decay}
    return [
        {"params": parameters, "lr": rate, "name": name}
        | ({"weight_decay": 0.0} if name in ("gains", "other") else of_matrices)
        for (name, rate), parameters in found.items()
    ]


def _in_block(block: ShapedBlock, depth: int) -> Iterator[tuple[str, float, nn.Parameter]]:
    """Group, rate over lr, and parameter, of all that lies inside a block."""
    for residual in (block.attention, block.mlp):
        share = DEPTH * GAMMA / (depth * residual.scale)
        bounded = min(share, LARGEST)
        for parameter in residual.norm.parameters():
            yield "other", OTHER, parameter
        maps = {id(m.weight): name for name, m in residual.branch.named_modules() if isinstance(m, nn.Linear)}
        for parameter in residual.branch.parameters():
            if id(parameter) not in maps:
                yield "gains", GAINS * bounded, parameter
                continue
            hidden = HIDDEN * share * WIDTH / block.width
            logits = HIDDEN * bounded * WIDTH / block.width
            if maps[id(parameter)] in ("query", "key"):
                yield "queries and keys", logits * LOGITS * math.sqrt(block.width), parameter
            else:
                yield "hidden", hidden, parameter
