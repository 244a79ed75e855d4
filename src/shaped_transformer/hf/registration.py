"""Shaped attention in Hugging Face's attention interface: `attn_implementation="shaped"`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ..errors import InputError
from ..nn.functional import shaped_attention
from . import families

IGNORED_ARGUMENTS = {
    *("position_ids", "cache_position", "use_cache", "sliding_window", "output_attentions", "output_hidden_states"),
    *("return_dict", "num_items_in_batch", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
    *("deterministic", "is_cross_attention", "cache", "output_router_logits"),
}
"""Arguments of models to their attention that do not change the scores."""
COUNTED_ATTENTION = "shaped-counted"
"""Name of shaped attention with counted calls: a function of its own, as counting would break compiled graphs."""
CROSS_ATTENTION = "{} has cross-attention, where queries have no own key: it cannot be shaped"
"""Message for models with cross-attention; the placeholder is the model's name."""
_calls: ContextVar[list[int]] = ContextVar("calls of shaped attention")


def register_attention() -> None:
    """Register shaped attention and its mask with Hugging Face, with and without counted calls."""
    counted = (COUNTED_ATTENTION, counted_attention_forward)
    for name, forward in ((families.ATTENTION, shaped_attention_forward), counted):
        AttentionInterface.register(name, forward)
        AttentionMaskInterface.register(name, shaped_mask)


def attention_of(config: Any) -> str | None:
    """Return the name of the attention that models of a configuration call; `None` before Hugging Face chose one."""
    name: str | None = config._attn_implementation
    return name


def set_attention(config: Any, name: str | None) -> None:
    """Set the attention that models of a configuration call, without `set_attn_implementation`'s check of the code."""
    config._attn_implementation = name


@contextmanager
def count_calls() -> Iterator[list[int]]:
    """Yield a list that receives one entry for each call of the counted attention within the context."""
    calls: list[int] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def shaped_mask(*, q_length: int, kv_length: int, allow_is_causal_skip: bool = True, **kwargs: Any) -> Any:
    """Return the boolean mask of PyTorch's attention, or `None` for causality where queries and keys are equally many.

    Elsewhere the mask is needed to find each query's own key.
    """
    same = q_length == kv_length
    return sdpa_mask(
        q_length=q_length, kv_length=kv_length, allow_is_causal_skip=allow_is_causal_skip and same, **kwargs
    )


def counted_attention_forward(*inputs: Any, **options: Any) -> tuple[Tensor, None]:
    """Shaped attention within a context of `count_calls`."""
    _calls.get().append(1)
    return shaped_attention_forward(*inputs, **options)


def shaped_attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return shaped self-attention in the form that Hugging Face's attention interface calls.

    The logits are the model's own, with its `scaling`, divided by τ0√n. τ0 and the gains are in the configuration.

    **Arguments:**

    - `module`: the model's attention layer.
    - `query`, `key`, `value`: (batch, H, Tq, k), (batch, H', Tk, k) and (batch, H', Tk, v).
    - `attention_mask`: boolean or additive, broadcastable to (batch, H, Tq, Tk); `None` for no mask.
    - `scaling`: the model's factor of the logits; default 1/√k.
    - `dropout`: dropout on the softmax, default 0.
    - `is_causal`: whether attention is causal where there is no mask; default the module's `is_causal`.

    **Returns:** (batch, Tq, H, v), and no attention weights.

    **Raises:** `InputError` for cross-attention, or arguments that may change the scores.
    """
    unknown = [name for name, given in kwargs.items() if given is not None and name not in IGNORED_ARGUMENTS]
    if unknown:
        raise InputError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention, which shaped attention does not "
            "support: use attn_implementation='sdpa' for this model"
        )
    config: Any = getattr(module, "config", None)
    if getattr(module, "is_cross_attention", False) or getattr(config, "is_encoder_decoder", False):
        raise InputError(CROSS_ATTENTION.format(type(module).__name__))
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    if attention_mask is not None or query.shape[-2] == 1:
        causal = False
    options = {name: getattr(config, name, default) for name, default in families.OPTIONS.items()}
    width = getattr(config, "hidden_size", query.shape[-3] * query.shape[-1])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = shaped_attention(
        query,
        key,
        value,
        scale=scale if options["tau0"] is None else scale / (options["tau0"] * width**0.5),
        attn_mask=attention_mask,
        is_causal=causal,
        identity_gain=options["identity_gain"],
        uniform_gain=options["uniform_gain"],
        dropout_p=dropout,
        query_positions=_own_positions(query, key, attention_mask),
    )
    return out.transpose(1, 2).contiguous(), None


def _own_positions(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return the index of each query's own key, the last that it may attend to; `None` if query i has key i."""
    queries, keys = query.shape[-2], key.shape[-2]
    if queries == keys:
        return None
    if mask is None:
        if queries != 1:
            raise InputError(f"{queries} queries and {keys} keys without a mask: cross-attention cannot be shaped")
        return torch.full((1,), keys - 1, device=query.device)
    allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    last = keys - 1 - allowed[:, 0].flip(-1).to(torch.uint8).argmax(-1)
    return last.expand(query.shape[0], -1)
