"""The two steps of the fused form: ordinary fused attention, and the addition of a·V − b·U V in few passes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    is_causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return ordinary attention by PyTorch's fused kernel, which can be differentiated twice all the same.

    **Arguments:** as in `torch.nn.functional.scaled_dot_product_attention`; key and value may have fewer heads.
    """
    grouped = query.dim() > 2 and query.shape[-3] != key.shape[-3]
    options: dict[str, Any] = {"scale": scale, "is_causal": is_causal, "dropout_p": dropout_p, "enable_gqa": grouped}
    out = functional.scaled_dot_product_attention(query, key, value, mask, **options)
    tracked = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if tracked and not dropout_p and not torch.compiler.is_compiling():
        out = apply(_TwiceDifferentiable, out, query, key, value, mask, options)
    return out


def apply(function: Any, *inputs: Any) -> Tensor:
    """Call an autograd function, which PyTorch leaves untyped."""
    out: Tensor = function.apply(*inputs)
    return out


class _TwiceDifferentiable(torch.autograd.Function):
    """The identity on the fused result; where a second derivative is wanted, its gradient is that of the plain form.

    The fused kernels have no second derivative, and PyTorch notices only when it is too late.
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


def shape(softmax: Tensor, value: Tensor, a: Tensor, b: Tensor, *, is_causal: bool) -> Tensor:
    """Return softmax + a·value − b·mean, the mean over all values or, if causal, over those up to each position.

    **Arguments:** `softmax`, `value`: (…, H, T, v); `a`, `b`: one number each, (), or one per head, (H, 1, 1).
    """
    return apply(_Shape, softmax, value.expand_as(softmax), a, b, is_causal)


class _Shape(torch.autograd.Function):
    """In few passes over memory, and without keeping anything but the values."""

    @staticmethod
    def forward(ctx: Any, softmax: Tensor, value: Tensor, a: Tensor, b: Tensor, is_causal: bool) -> Tensor:
        ctx.save_for_backward(value, a, b)
        ctx.is_causal = is_causal
        if not is_causal:
            return torch.addcmul(softmax, value, a).sub_(b * value.mean(-2, keepdim=True))
        return value.cumsum(-2).mul_(-b / _counts(value)).addcmul_(value, a).add_(softmax)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        value, a, b = ctx.saved_tensors
        want_a, want_b = ctx.needs_input_grad[2:4]
        of_a = of_b = None
        own = _products(gradient, value) if want_a or (want_b and ctx.is_causal) else None
        if want_a and own is not None:
            of_a = own.sum_to_size(a.shape).to(a.dtype)
        if not ctx.is_causal:
            mean = gradient.mean(-2, keepdim=True)
            of_value = torch.addcmul(-b * mean, gradient, a)
            if want_b:
                of_b = -_products(mean, value).sum_to_size(b.shape).to(b.dtype)
            return gradient, of_value, of_a, of_b, None
        counts = _counts(gradient)
        if not want_b or own is None:  # b is a constant, which saves a pass
            of_value = _less_later(gradient * (b / counts)).addcmul_(gradient, a - b / counts)
            return gradient, of_value, of_a, None, None
        later = _less_later(gradient / counts)
        of_b = (_products(later, value) - own / counts).sum_to_size(b.shape).to(b.dtype)
        return gradient, (b * later).addcmul_(gradient, a - b / counts), of_a, of_b, None


def _less_later(x: Tensor) -> Tensor:
    """Return less the sum of x over all later positions, (…, T, v), in its place: fresh memory would cost time."""
    sums = x.cumsum_(-2)
    return sums.sub_(sums[..., -1:, :].clone())


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the scalar product at each position, (…, T, 1), in at least 32 bits."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vecdot(x.to(wide), y.to(wide))[..., None]


def _counts(x: Tensor) -> Tensor:
    """1, 2, …, T as a column."""
    return torch.arange(1, x.shape[-2] + 1, device=x.device, dtype=x.dtype)[:, None]
