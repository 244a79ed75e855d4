"""Linear maps of many networks at once, whose weights are known only by what they meet (theory §7 and §8).

Each weight meets its R = inputs × tokens vectors v in the forward pass, and in one backward pass the gradients u of all
outputs. So the form of theory §7 for matrices that are used once is enough, for a batch of S networks: the images are
factors of the Gram matrices v vᵀ and u uᵀ times normals, and these Gram matrices are also what the kernel is made of.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..numerics.draws import Draws

DEPENDENT = 1e-12
"""Squared sine of the angle between a vector and the span of earlier ones below which it counts as one of them."""

LARGE = 0.01
"""Squared sine above which products in float32 are precise enough."""

TOGETHER = 32
"""Number of weights of which the parts of the kernel are summed in one call."""


@dataclass(eq=False)
class Batch:
    """A batch of networks on the same inputs, and the sum of what their weights contribute to the kernel.

    **Arguments:**

    - `draws`: their random numbers.
    - `inputs`, `outputs`: P and D.
    - `bias_gradients`: whether linear maps have biases, which are 0.
    - `weights`: whether weights are drawn for real.
    """

    draws: Draws
    inputs: int
    outputs: int
    bias_gradients: bool
    weights: bool
    kernel: Tensor = field(init=False)
    _waiting: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with a kernel of zeros, (S, P, D, P, D)."""
        axes = (self.inputs, self.outputs)
        self.kernel = torch.zeros(self.draws.size, *axes, *axes, dtype=torch.float64)

    def normal(self, rows: int, columns: int) -> Tensor:
        """Return N(0, 1) numbers, (S, rows, columns)."""
        return torch.from_numpy(self.draws.normal(rows, columns))

    def add(self, vectors: Tensor, gradients: Tensor) -> None:
        """Add Σ (v·v')(u·u') over tokens, from Gram matrices of vectors, (S, R, R), and gradients, (S, D·R, D·R)."""
        if self._waiting and (len(self._waiting) == TOGETHER or self._waiting[0][0].shape != vectors.shape):
            self.finish()
        self._waiting.append((vectors, gradients))

    def finish(self) -> Tensor:
        """Return the kernel with all that was added."""
        if self._waiting:
            v, u = (torch.stack(grams) for grams in zip(*self._waiting, strict=True))
            p, d, tokens = self.inputs, self.outputs, v.shape[-1] // self.inputs
            v = v.view(len(v), -1, p, tokens, p, tokens)
            u = u.view(len(v), -1, d, p, tokens, d, p, tokens)
            self.kernel += torch.einsum("lsitju,lsditeju->sidje", v + 1 if self.bias_gradients else v, u)
            self._waiting.clear()
        return self.kernel

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the context, linear maps belong to this batch."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


_active: ContextVar[Batch] = ContextVar("the batch that is drawn")


class BatchedLinear(nn.Module):
    """A linear map without bias of each network of the active batch, weights N(0, σ²).

    It takes the rows of all networks, (S·D·P, …, a): D equal copies of each network's inputs, one for each output.
    """

    def __init__(self, fan_in: int, fan_out: int, std: float) -> None:
        super().__init__()
        self.in_features, self.out_features, self.std = fan_in, fan_out, std
        self.anchor = nn.Parameter(torch.zeros(()))  # so that there is a backward pass where x is an input

    def forward(self, x: Tensor) -> Tensor:
        """Return the images, (S·D·P, …, b)."""
        out: Tensor = _Product.apply(x, self.anchor, self, _active.get())
        return out


class _Product(torch.autograd.Function):
    """x ↦ x·W in every network; the backward pass draws the products with Wᵀ given those."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, layer: BatchedLinear, batch: Batch) -> Tensor:  # noqa: ARG004
        """Return the images; the copies of an input have the same."""
        size, copies = batch.draws.size, batch.outputs
        v = x.reshape(size, copies, -1, layer.in_features)[:, 0]
        lower = weight = None
        if batch.weights:
            products = gram(v)
            weight = batch.normal(layer.in_features, layer.out_features).mul_(layer.std)
            y = v @ weight
        else:
            products, lower = factor(v)
            y = (lower * layer.std).to(v.dtype) @ batch.normal(v.shape[1], layer.out_features)
        ctx.layer, ctx.batch = layer, batch
        ctx.save_for_backward(v, y, products, lower, weight)
        copied = y if copies == 1 else y[:, None].expand(-1, copies, -1, -1)
        return copied.reshape(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient of x, and add the weights' part of the kernel."""
        v, y, products, lower, weight = ctx.saved_tensors
        (gradient,), layer, batch = gradients, ctx.layer, ctx.batch
        u = gradient.reshape(batch.draws.size, -1, layer.out_features)
        own, triangle = (gram(u), None) if batch.weights else factor(u)
        batch.add(products, own)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        if triangle is None:
            images = u @ weight.mT
        else:
            images = (triangle * layer.std).to(u.dtype) @ batch.normal(u.shape[1], layer.in_features)
            known = (u @ y.mT).baddbmm_(images, v.mT, alpha=-1).double() @ inverse(lower)
            images.baddbmm_(known.to(u.dtype), v)
        return images.reshape(*gradient.shape[:-1], layer.in_features), None, None, None


def gram(x: Tensor) -> Tensor:
    """Return x·xᵀ in float64, (S, m, m), for x (S, m, a)."""
    wide = x.double()
    return wide @ wide.mT


def factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrices of vectors, (S, m, m), and their `cholesky`, both in float64.

    Of vectors in float32 the products are made in float32 where all angles are large, which is faster.
    """
    if x.dtype == torch.float32:
        products = (x @ x.mT).double()
        if (lower := _cholesky_if(products, LARGE)) is not None:
            return products, lower
    products = gram(x)
    return products, cholesky(products)


def cholesky(products: Tensor) -> Tensor:
    """Return lower triangles L, L·Lᵀ the Gram matrices, (S, m, m); a vector that depends on earlier ones adds nothing.

    Its column is zero. PyTorch's decomposition would fail there, as at vectors that a ReLU has set to zero.
    """
    lower = _cholesky_if(products, DEPENDENT)
    return _cholesky_of_dependent(products) if lower is None else lower


def _cholesky_if(products: Tensor, least: float) -> Tensor | None:
    """Return PyTorch's triangles if all squared sines between a vector and the earlier ones exceed `least`."""
    lower, failed = torch.linalg.cholesky_ex(products)
    pivots, lengths = (one.diagonal(dim1=-2, dim2=-1) for one in (lower, products))
    return lower if not failed.any() and bool((pivots.square() > least * lengths).all()) else None


def _cholesky_of_dependent(products: Tensor) -> Tensor:
    """Return the triangles of `cholesky`, column by column."""
    lower = torch.zeros_like(products)
    for j in range(products.shape[-1]):
        done = lower[:, j, :j]
        rest = products[:, j:, j] - (lower[:, j:, :j] @ done[..., None])[..., 0]
        pivot = rest[:, :1]
        kept = pivot > DEPENDENT * products[:, j, j, None]
        lower[:, j:, j] = torch.where(kept, rest / torch.where(kept, pivot, torch.ones_like(pivot)).sqrt(), 0.0)
    return lower


def inverse(lower: Tensor) -> Tensor:
    """Return the inverses of Gram matrices on the vectors that `cholesky` keeps, and 0 elsewhere, (S, m, m)."""
    kept = lower.diagonal(dim1=-2, dim2=-1) > 0
    if bool(kept.all()):
        return torch.cholesky_inverse(lower)
    rows, identity = kept[..., None], torch.eye(lower.shape[-1], dtype=lower.dtype)
    triangle = torch.where(rows, lower, identity)
    back = torch.linalg.solve_triangular(triangle, identity * rows, upper=False)
    back = torch.where(rows, back, 0.0)
    return back.mT @ back
