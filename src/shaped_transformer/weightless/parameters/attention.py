"""PyTorch's own multi-head attention, `torch.nn.MultiheadAttention`, whose function takes its weights as arguments."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .registry import served
from .tensor import refuse


@served(functional.multi_head_attention_forward)
def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,  # noqa: ARG001 - PyTorch's signature
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Tensor | None,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001 - the mask says so too
) -> tuple[Tensor, Tensor | None]:
    """Serve multi-head attention: the same projections and softmax, with products that a weightless matrix knows."""
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        refuse(functional.multi_head_attention_forward, (in_proj_weight, out_proj_weight, q_proj_weight))
    batched = query.dim() == 3
    if not batched:
        query, key, value = (one[:, None] for one in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
    inputs = (query, key, value)
    if in_proj_weight is not None and query is key and key is value:
        projected = functional.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        separate = (q_proj_weight, k_proj_weight, v_proj_weight)
        weights = separate if use_separate_proj_weight else in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        projected = tuple(functional.linear(*one) for one in zip(inputs, weights, biases, strict=True))
    length, batch, width = query.shape
    heads = [one.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for one in projected]  # (batch, heads, T, k)
    logits = heads[0] @ heads[1].mT / math.sqrt(width // num_heads)
    for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None, :]):
        if mask is not None:
            shaped = mask.view(batch, num_heads, *mask.shape[-2:]) if mask.dim() == 3 else mask
            logits = logits.masked_fill(shaped, -torch.inf) if mask.dtype == torch.bool else logits + shaped
    weights_ = functional.dropout(logits.softmax(-1), dropout_p, training)
    mixed = (weights_ @ heads[2]).permute(2, 0, 1, 3).reshape(length, batch, width)
    out = functional.linear(mixed, out_proj_weight, out_proj_bias)
    shown = (weights_.mean(1) if average_attn_weights else weights_) if need_weights else None
    if not batched:
        return out[:, 0], None if shown is None else shown[0]
    return out, shown
