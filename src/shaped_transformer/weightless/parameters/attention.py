"""PyTorch's own multi-head attention, `torch.nn.MultiheadAttention`, whose function takes its weights as arguments."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .registry import served
from .tensor import refuse

SIGNATURE = inspect.signature(functional.multi_head_attention_forward)
"""PyTorch's own signature, by which its many arguments are named."""

UNSERVED = ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v")
"""Arguments that are refused unless they are empty."""


@served(functional.multi_head_attention_forward)
def multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Serve multi-head attention: the same projections and softmax, with products that a weightless matrix knows."""
    bound = SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if any(given[name] is not None and given[name] is not False for name in UNSERVED):
        refuse(functional.multi_head_attention_forward, (args, kwargs))
    batched = given["query"].dim() == 3
    query, key, value = _projected(given)
    if not batched:
        query, key, value = (one[:, None] for one in (query, key, value))
    weights = _attention(query, key, given)
    mixed = (weights @ _heads(value, given["num_heads"])).permute(2, 0, 1, 3).reshape(query.shape)
    out = functional.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
    shown = None
    if given["need_weights"]:
        shown = weights.mean(1) if given["average_attn_weights"] else weights
    if not batched:
        return out[:, 0], None if shown is None else shown[0]
    return out, shown


def _projected(given: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return queries, keys and values, (T, …, n); one product where all three come from the same tokens."""
    inputs = (given["query"], given["key"], given["value"])
    weight, bias = given["in_proj_weight"], given["in_proj_bias"]
    if weight is not None and inputs[0] is inputs[1] is inputs[2]:
        return functional.linear(inputs[0], weight, bias).chunk(3, -1)
    separate = (given["q_proj_weight"], given["k_proj_weight"], given["v_proj_weight"])
    weights = separate if given["use_separate_proj_weight"] else weight.chunk(3)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return tuple(functional.linear(*one) for one in zip(inputs, weights, biases, strict=True))


def _attention(query: Tensor, key: Tensor, given: dict[str, Any]) -> Tensor:
    """Return the attention weights, (batch, heads, T, keys), after dropout."""
    heads, (_, batch, width) = given["num_heads"], query.shape
    logits = _heads(query, heads) @ _heads(key, heads).mT / math.sqrt(width // heads)
    padding = given["key_padding_mask"]
    padding = None if padding is None else padding.view(batch, 1, 1, -1)
    for mask in (given["attn_mask"], padding):
        if mask is not None:
            shaped = mask.view(batch, heads, *mask.shape[-2:]) if mask.dim() == 3 else mask
            logits = logits.masked_fill(shaped, -torch.inf) if mask.dtype == torch.bool else logits + shaped
    return functional.dropout(logits.softmax(-1), given["dropout_p"], given["training"])


def _heads(x: Tensor, heads: int) -> Tensor:
    """Return (T, batch, heads·k) as (batch, heads, T, k)."""
    return x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
