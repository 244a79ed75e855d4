"""`attn_implementation="shaped"` for models that honour Hugging Face's attention interface."""

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

HARMLESS = {
    *("position_ids", "cache_position", "use_cache", "sliding_window", "output_attentions", "output_hidden_states"),
    *("return_dict", "num_items_in_batch", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
    *("deterministic", "is_cross_attention", "cache", "output_router_logits"),
}
"""Arguments that models pass along and that do not change the scores."""
COUNTED = "shaped-counted"
"""The attention's name where its calls are counted: apart from the plain one, which a compiler must see through."""
CROSS = "{} has cross-attention, where no key is a query's own: it cannot be shaped"
"""Why a model is refused, with its name."""
_calls: ContextVar[list[int]] = ContextVar("calls of shaped attention")


def register_attention() -> None:
    """Make the attention and its mask known to Hugging Face, also as counted."""
    for name, forward in ((families.ATTENTION, shaped_attention_forward), (COUNTED, counted_attention_forward)):
        AttentionInterface.register(name, forward)
        AttentionMaskInterface.register(name, shaped_mask)


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Give a list that holds one entry for each call of the counted attention within the context."""
    calls: list[int] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def shaped_mask(*, q_length: int, kv_length: int, allow_is_causal_skip: bool = True, **kwargs: Any) -> Any:
    """Return the boolean mask of PyTorch's attention; it is left out only where queries and keys are the same tokens.

    Elsewhere it tells which key is each query's own.
    """
    same = q_length == kv_length
    return sdpa_mask(
        q_length=q_length, kv_length=kv_length, allow_is_causal_skip=allow_is_causal_skip and same, **kwargs
    )


def counted_attention_forward(*inputs: Any, **options: Any) -> tuple[Tensor, None]:
    """Shaped attention, in a context of `counted_calls`."""
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
    """Shaped attention in the form that Hugging Face calls, for self-attention.

    The logits are the model's own, by its `scaling`, divided by τ0√n; gains are read from the configuration.

    **Raises:** `InputError` for cross-attention, or arguments that change the scores in ways unknown here.
    """
    unknown = [name for name, given in kwargs.items() if given is not None and name not in HARMLESS]
    if unknown:
        raise InputError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention, which shaped attention does not "
            "know: use attn_implementation='sdpa' for this model"
        )
    config: Any = getattr(module, "config", None)
    if getattr(module, "is_cross_attention", False) or getattr(config, "is_encoder_decoder", False):
        raise InputError(CROSS.format(type(module).__name__))
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    if attention_mask is not None or query.shape[-2] == 1:
        causal = False
    tau0 = getattr(config, "tau0", 1.0)
    width = getattr(config, "hidden_size", query.shape[-3] * query.shape[-1])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = shaped_attention(
        query,
        key,
        value,
        scale=scale if tau0 is None else scale / (tau0 * width**0.5),
        attn_mask=attention_mask,
        is_causal=causal,
        identity_gain=getattr(config, "identity_gain", 1.0),
        uniform_gain=getattr(config, "uniform_gain", 1.0),
        dropout_p=dropout,
        query_positions=_own_positions(query, key, attention_mask),
    )
    return out.transpose(1, 2).contiguous(), None


def _own_positions(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """Which key is each query's own: the same if there are as many; with a cache, the last that it may look at."""
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
