"""Learning rates by parameter group: the rule by which one rate fits all widths and depths.

The rule is ours, in the manner of μP; docs/nn.md derives it and shows the check over width and depth.
"""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import nn

from ..checks import check_count
from ..errors import InputError
from .block import ShapedBlock
from .checks import check_module

REFERENCE_WIDTH, REFERENCE_DEPTH, REFERENCE_GAMMA = 64, 64, 0.2
"""Where the rates below were measured; the rule carries them to other sizes."""
EMBEDDING_RATE, HEAD_RATE, HIDDEN_RATE, GAIN_RATE, OTHER_RATE = 40.0, 4.0, 0.1, 4.0, 4.0
"""Rates at the reference sizes, in units of `lr`."""
QUERY_KEY_RATE = 1.25
"""Rate of queries and keys over that of the block's other weights, in units of √n."""
LARGEST_SHARE = 4.0
"""Upper bound of a branch's share for gains, queries and keys: beyond it a softmax saturates within a few steps."""


def head_std(width: int) -> float:
    """Return the standard deviation with which a head starts: √64/n, and 1/√n below width 64.

    The first steps move the stream in the direction of the head's rows. With the usual N(0, 1/n) they move the outputs
    by a further √n. So the head starts smaller in wider models, as in μP (Yang et al., arXiv 2203.03466). At width 64
    both are the same. In narrower models √64/n would give logits larger than the stream's entries.

    ```python
    head = torch.nn.Linear(256, 1000, bias=False)
    torch.nn.init.normal_(head.weight, std=st.nn.head_std(256))
    ```

    **Arguments:**

    - `width`: n, the head's fan-in.

    **Raises:** `InputError` unless it is a whole number of at least 1.
    """
    n = check_count(width, "width")
    return min(1.0, math.sqrt(REFERENCE_WIDTH / n)) / math.sqrt(n)


def parameter_groups(model: nn.Module, lr: float, weight_decay: float | None = None) -> list[dict[str, Any]]:
    """Sort the parameters of a shaped Transformer into groups with a learning rate each, for Adam and its relatives.

    An update of Adam changes every entry by about its rate η, all in the gradient's direction. A weight matrix of
    fan-in n then changes its output by η·n; the 2d branches, of strength γ each, add up to d·γ·η·n. The rates below are
    such that one step changes the network's output by an amount that depends on neither width nor depth:

    - embeddings (entries of order 1): 40·lr;
    - maps outside the blocks (head, patches), fan-in f: 4·lr·64/f; a head of your own starts with `head_std`;
    - weights of a block: 0.1·lr·(64/n)·s, with the share s = 64·0.2/(d·γ) of a branch;
    - its queries and keys: 0.125·√n·lr·(64/n)·min(s, 4), because the shaped temperature divides the logits by a further
      √n, and a softmax must not saturate in a step;
    - gains and slopes: 4·lr·min(s, 4);
    - all others (positions, norms): 4·lr.

    ```python
    model = st.nn.ShapedTransformer(width=64, depth=6, heads=4, gamma=0.3)
    optimiser = torch.optim.AdamW(st.nn.parameter_groups(model, lr=2e-3), weight_decay=0.1)
    ```

    **Arguments:**

    - `model`: any module with `ShapedBlock`s: `ShapedTransformer`, the models of `st.hf`, one of your own.
    - `lr`: the learning rate from which all rates follow; 2e-3 is a good start.
    - `weight_decay`: of matrices and embeddings; default `None`, the optimiser's own. Gains, slopes, positions and
      norms never decay.

    **Returns:** groups for an optimiser, each with `params`, `lr` and `name`, and with `weight_decay` where it differs
    from the optimiser's.

    **Raises:** `InputError` if `model` is not a module or has no shaped block, or if `lr` is not positive.
    """
    check_module(model, "give the model itself, not its parameters, as its blocks determine the rates")
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not lr > 0:
        raise InputError(f"lr must be a positive number (got {lr!r})")
    blocks = [module for module in model.modules() if isinstance(module, ShapedBlock)]
    if not blocks:
        raise InputError(
            f"{type(model).__name__} has no ShapedBlock: give a model of st.nn or st.hf, or rates of your own"
        )
    found: dict[tuple[str, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    in_blocks = (_rates_in_block(block, len(blocks), lr) for block in blocks)
    for name, rate, parameter in chain(*in_blocks, _rates_outside_blocks(model, lr)):
        if id(parameter) not in seen and parameter.requires_grad:
            seen.add(id(parameter))
            found.setdefault((name, rate), []).append(parameter)
    decay_of_matrices: dict[str, Any] = {} if weight_decay is None else {"weight_decay": weight_decay}
    return [
        {"params": parameters, "lr": rate, "name": name}
        | ({"weight_decay": 0.0} if name in ("gains", "other") else decay_of_matrices)
        for (name, rate), parameters in found.items()
    ]


def _rates_in_block(block: ShapedBlock, depth: int, lr: float) -> Iterator[tuple[str, float, nn.Parameter]]:
    """Yield the group and the rate of each parameter of a block, and the parameter."""
    for residual in (block.attention, block.mlp):
        share = REFERENCE_DEPTH * REFERENCE_GAMMA / (depth * residual.scale)
        bounded = min(share, LARGEST_SHARE)
        for parameter in residual.norm.parameters():
            yield "other", lr * OTHER_RATE, parameter
        maps = {id(m.weight): name for name, m in residual.branch.named_modules() if isinstance(m, nn.Linear)}
        for parameter in residual.branch.parameters():
            if id(parameter) not in maps:
                yield "gains", lr * (GAIN_RATE * bounded), parameter
                continue
            hidden = HIDDEN_RATE * share * REFERENCE_WIDTH / block.width
            logits = HIDDEN_RATE * bounded * REFERENCE_WIDTH / block.width
            if maps[id(parameter)] in ("query", "key"):
                yield "queries and keys", lr * (logits * QUERY_KEY_RATE * math.sqrt(block.width)), parameter
            else:
                yield "hidden", lr * hidden, parameter


def _rates_outside_blocks(model: nn.Module, lr: float) -> Iterator[tuple[str, float, nn.Parameter]]:
    """Yield the same for all parameters of a model, as if none were in a block."""
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) and not name.endswith("positions"):
                yield "embeddings", lr * EMBEDDING_RATE, parameter
            elif isinstance(module, nn.Linear) and parameter.dim() == 2:
                yield "head", lr * HEAD_RATE * REFERENCE_WIDTH / module.in_features, parameter
            else:
                yield "other", lr * OTHER_RATE, parameter
