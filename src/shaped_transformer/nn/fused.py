"""The two steps of fused shaped attention: ordinary fused attention, then adding a·V − b·U V in few passes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return softmax attention by PyTorch's fused kernel, made twice differentiable.

    **Arguments:** as in `torch.nn.functional.scaled_dot_product_attention`; `key` and `value` may have fewer heads.

    **Returns:** softmax(scale·Q Kᵀ) V, (…, H, Tq, v).
    """
    grouped = query.dim() > 2 and query.shape[-3] != key.shape[-3]
    if grouped and query.is_cuda and not _kernel_takes_groups(query, mask):
        times = query.shape[-3] // key.shape[-3]
        key, value, grouped = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3), False
    options: dict[str, Any] = {"scale": scale, "is_causal": is_causal, "dropout_p": dropout_p, "enable_gqa": grouped}
    out = functional.scaled_dot_product_attention(query, key, value, mask, **options)
    tracked = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if tracked and not dropout_p and not torch.compiler.is_compiling():
        out = apply_autograd(_TwiceDifferentiable, out, query, key, value, mask, options)
    return out


def _kernel_takes_groups(query: Tensor, mask: Tensor | None) -> bool:
    """Return whether flash attention runs on a GPU, which alone takes grouped heads (PyTorch 2.11).

    Where no fused kernel takes them, PyTorch forms (T, T) matrices without a word.
    """
    return mask is None and query.dtype in (torch.float16, torch.bfloat16)


def apply_autograd(function: Any, *inputs: Any) -> Tensor:
    """Apply a `torch.autograd.Function`, whose `apply` PyTorch leaves untyped, and return its one output."""
    out: Tensor = function.apply(*inputs)
    return out


class _TwiceDifferentiable(torch.autograd.Function):
    """The identity on the fused result; for a second derivative the gradient is that of PyTorch's plain form.

    The fused kernels have no second derivative, and PyTorch reports this only in the second backward pass.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, *inputs: Any) -> Tensor:
        query, key, value, mask, options = inputs
        ctx.save_for_backward(query, key, value, mask)
        ctx.options = options
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return gradient, None, None, None, None, None
        *inputs, mask = ctx.saved_tensors
        wanted = [x for x in inputs if x.requires_grad]
        with sdpa_kernel(SDPBackend.MATH):
            query, key, value = inputs
            out = functional.scaled_dot_product_attention(query, key, value, mask, **ctx.options)
        found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True))
        return None, *(next(found) if x.requires_grad else None for x in inputs), None, None


def add_shaping_terms(
    softmax: Tensor, value: Tensor, a: Tensor, b: Tensor, *, is_causal: bool, centre: Tensor | None = None
) -> Tensor:
    """Return softmax + a·value − b·mean, the mean over all values or, if causal, over those up to each position.

    Sums are in at least 32 bits, and the result is rounded once.

    **Arguments:**

    - `softmax`: the output of softmax attention, (…, H, T, v).
    - `value`: (…, H, T, v), or broadcastable to it.
    - `a`, `b`: the gains in at least 32 bits, one number each, (), or one per head, (H, 1, 1).
    - `is_causal`: whether the mean is over the values up to each position.
    - `centre`: what was subtracted from all values before the softmax attention, (…, H, 1, v); default nothing.
    """
    if torch.compiler.is_compiling():  # which fuses the passes itself, and in PyTorch 2.11 loses the gradient of ours
        wide = value.to(_wide(value))
        mean = wide.cumsum(-2) / _counts(wide) if is_causal else wide.mean(-2, keepdim=True)
        out = softmax + a * wide - b * mean
        return (out if centre is None else out + centre).to(softmax.dtype)
    return apply_autograd(_AddShapingTerms, softmax, value.expand_as(softmax), a, b, is_causal, centre)


class _AddShapingTerms(torch.autograd.Function):
    """The sum of `add_shaping_terms` in few passes over memory; only the values are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, softmax: Tensor, value: Tensor, a: Tensor, b: Tensor, is_causal: bool, centre: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(value, a, b)
        ctx.is_causal = is_causal
        wide = value.to(_wide(value))
        if is_causal:
            out = _running_sum(wide).mul_(-b / _counts(wide)).addcmul_(wide, a).add_(softmax)
        else:
            out = torch.addcmul(softmax.to(wide.dtype), wide, a).sub_(b * wide.mean(-2, keepdim=True))
        return (out if centre is None else out.add_(centre)).to(softmax.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        value, a, b = ctx.saved_tensors
        dtype, wide = value.dtype, gradient.to(_wide(value))
        want_a, want_b = ctx.needs_input_grad[2:4]
        grad_a = grad_b = None
        own = _dot_products(gradient, value) if want_a or (want_b and ctx.is_causal) else None
        if want_a and own is not None:
            grad_a = own.sum_to_size(a.shape).to(a.dtype)
        if not ctx.is_causal:
            mean = wide.mean(-2, keepdim=True)
            grad_value = torch.addcmul(-b * mean, wide, a)
            if want_b:
                grad_b = -_dot_products(mean, value).sum_to_size(b.shape).to(b.dtype)
            return gradient, grad_value.to(dtype), grad_a, grad_b, None, None
        counts = _counts(wide)
        if not want_b or own is None:  # a constant b saves a pass
            grad_value = _minus_later_sum(wide * (b / counts)).addcmul_(wide, a - b / counts)
            return gradient, grad_value.to(dtype), grad_a, None, None, None
        later = _minus_later_sum(wide / counts)
        grad_b = (_dot_products(later, value) - own / counts).sum_to_size(b.shape).to(b.dtype)
        return gradient, (b * later).addcmul_(wide, a - b / counts).to(dtype), grad_a, grad_b, None, None


def _running_sum(x: Tensor) -> Tensor:
    """Return the sum over all positions up to each, (…, T, v).

    On a GPU PyTorch sums neighbours in memory in parallel, but other axes one after another: 6 ms instead of 0.5 for 4
    × 8 × 16,384 × 64 numbers.
    """
    return x.mT.contiguous().cumsum(-1).mT if x.is_cuda else x.cumsum(-2)


def _minus_later_sum(x: Tensor) -> Tensor:
    """Return minus the sum of x over all later positions, (…, T, v), written into x: new memory would cost time."""
    sums = _running_sum(x) if x.is_cuda else x.cumsum_(-2)
    return sums.sub_(sums[..., -1:, :].clone())


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype of sums: that of x, and at least 32 bits."""
    return torch.promote_types(x.dtype, torch.float32)


def _dot_products(x: Tensor, y: Tensor) -> Tensor:
    """Return the scalar product at each position, (…, T, 1), in at least 32 bits."""
    return torch.linalg.vecdot(x.to(_wide(x)), y.to(_wide(y)))[..., None]


def _counts(x: Tensor) -> Tensor:
    """Return 1, 2, …, T as a column."""
    return torch.arange(1, x.shape[-2] + 1, device=x.device, dtype=x.dtype)[:, None]
