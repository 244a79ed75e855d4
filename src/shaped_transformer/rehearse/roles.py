"""What a weight does in a Transformer, and in which block, told by the name of its module."""

import re
from collections.abc import Iterable

EMBEDDING, FUSED, QUERY, KEY, VALUE = "embedding", "query, key, value", "query", "key", "value"
OUTPUT, MLP_IN, MLP_OUT, ROUTER, HEAD = "attention output", "MLP in", "MLP out", "router", "head"
OTHER = "other"

ROLES = (EMBEDDING, FUSED, QUERY, KEY, VALUE, OUTPUT, MLP_IN, MLP_OUT, ROUTER, OTHER, HEAD)
"""All roles, in the order of the signal. `FUSED` are matrices that hold queries, keys or values together."""

INSIDE = (
    (r"qkv|query_key_value|c_attn$|in_proj_weight$|(^|\.)kv_\w+$", FUSED),
    (r"(^|\.)(to_q|q|wq|query|q_\w+)$", QUERY),
    (r"(^|\.)(to_k|k|wk|key|k_\w+)$", KEY),
    (r"(^|\.)(to_v|v|wv|value|v_\w+)$", VALUE),
    (r"att(n|ention)\S*\.(o|wo|o_proj|out_proj|out_lin|c_proj|proj|dense|output|to_out)$", OUTPUT),
    (r"\.(gate|router)$", ROUTER),
    (r"\.(down_proj|c_proj|fc2|fc_out|wo|w2|dense_4h_to_h|lin2|linear2|ffn_output|output|output\.dense)$", MLP_OUT),
    (
        r"\.(up_proj|gate_proj|gate_up_proj|c_fc|fc1|fc_in|wi|wi_[01]|w1|w3|dense_h_to_4h|lin1|linear1|ffn|input|"
        r"intermediate\.dense)$",
        MLP_IN,
    ),
)
"""Patterns of names in a block, in lower case and without `.weight`, with their roles; the first that fits counts."""

OUTSIDE = (
    (r"(^|\.)(embed_out|lm_head|heads?|score|classifier|qa_outputs|decoder|cls\.predictions\S*)$", HEAD),
    (r"embed|(^|\.)(wte|wpe|shared|words)$", EMBEDDING),
)
"""The same for names outside the blocks."""

NO_MATRIX = r"bias$|norm|(^|\.)ln_\w+$"
"""Pattern of names of biases and of gains of norms."""


def role(weight: str) -> str:
    """Return the role of a weight, one of `ROLES`.

    ```python
    from shaped_transformer.rehearse.roles import role
    role("model.layers.3.self_attn.q_proj.weight")  # 'query'
    ```

    **Arguments:**

    - `weight`: name of the parameter.
    """
    name = weight.lower().removesuffix(".weight")
    if re.search(NO_MATRIX, name):
        return OTHER
    patterns = OUTSIDE if block(weight) is None else INSIDE
    return next((found for pattern, found in patterns if re.search(pattern, name)), OTHER)


def block(weight: str) -> str | None:
    """Return the name of the block that a weight belongs to, such as `model.layers.3`; `None` outside the blocks."""
    found = re.match(r"(\S*?\.)??\d+(?=\.)", weight)
    return found[0] if found else None


def by_role(weights: Iterable[str]) -> dict[str, dict[str, list[int]]]:
    """Return role → block → numbers of its weights, roles in the order of `ROLES`, outside the blocks under `""`."""
    found: dict[str, dict[str, list[int]]] = {one: {} for one in ROLES}
    for i, name in enumerate(weights):
        found[role(name)].setdefault(block(name) or "", []).append(i)
    return {one: blocks for one, blocks in found.items() if blocks}
