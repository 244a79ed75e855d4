"""Real networks beside weightless ones: once a weightless matrix has met the identity, all of it is known."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import shaped_transformer as st
from shaped_transformer.weightless.matrices.weight import Weight
from shaped_transformer.weightless.parameters.source import Source
from shaped_transformer.weightless.parameters.tensor import WeightlessTensor

Factory = Callable[[], nn.Module]


class Parametrised(nn.Module):
    """A module of one normal parameter, `weight`, and a function of it and the inputs."""

    def __init__(self, shape: tuple[int, ...], function: Callable[..., Any], std: float = 0.3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * std)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self.weight, *inputs)


def build(factory: Factory, **options: Any) -> Any:
    """Return a weightless model in double precision."""
    chosen: dict[str, Any] = {"dtype": torch.float64} | options
    return st.weightless.build(factory, **chosen)


def parameters(model: nn.Module) -> dict[str, Any]:
    """Return the weightless parameters by name."""
    return {name: p for name, p in model.named_parameters() if isinstance(p, WeightlessTensor)}


def now(weight: Weight) -> torch.Tensor:
    """Return the matrix as it is now."""
    if weight.real is not None:
        return weight.real.detach().clone()
    return weight.images("left", torch.eye(weight.shape[0], dtype=weight.ledger.dtype))


def initial(weight: Weight) -> torch.Tensor:
    """Return the matrix as it was at initialisation."""
    entries, dtype = weight.entries, weight.ledger.dtype
    if weight.real is not None:
        return Weight(weight.name, weight.shape, entries, weight.ledger, weight).draw().detach()
    if entries.std == 0:
        return torch.zeros(weight.shape, dtype=dtype)
    out = weight.known.product("left", torch.eye(weight.shape[0], dtype=dtype)) * entries.std
    for axis, scale in enumerate((entries.rows, entries.columns)):
        out = out if scale is None else out * scale.unsqueeze(1 - axis)
    return out


def values(parameter: Any, of: Callable[[Weight], torch.Tensor] = now) -> torch.Tensor:
    """Return what a weightless parameter is, or was."""
    source = parameter.source
    if source.data is not None and of is initial and len(source.shape) > 2:
        return Source(source.name, source.shape, source.law, source.ledger).values().detach()
    if source.data is not None and of is now:
        return source.data.detach().clone()
    if source.split == 0:
        return torch.stack([of(weight) for weight in source.all_parts()])
    return of(source.matrix(source.split or 1)).reshape(parameter.shape)


def twin(model: nn.Module, factory: Factory, of: Callable[[Weight], torch.Tensor] = now, **before: Any) -> nn.Module:
    """Return the real model with the weights of a weightless one, and `before` for those drawn for real."""
    real = factory().double().train(model.training)
    unseen = parameters(model)
    with torch.no_grad():
        for name, parameter in real.named_parameters():
            if name in unseen:
                parameter.copy_(values(unseen[name], of))
            else:
                parameter.copy_(before.get(name, model.get_parameter(name)))
    return real


def run(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """Return the output and the gradients of the inputs of a loss that weighs all entries differently."""
    inputs = tuple(x.detach().clone().requires_grad_() if is_real(x) else x for x in inputs)
    model.zero_grad()
    out = model(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    (out.tanh() * weights).sum().backward()
    return out.detach(), [x.grad for x in inputs if is_real(x)]


def is_real(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def assert_is_the_real_network(
    model: nn.Module, factory: Factory, inputs: tuple[Any, ...], rounding: float = 1e-9
) -> None:
    """Assert that output, gradients of inputs and norms of gradients are those of a real network."""
    out, gradients = run(model, inputs)
    norms = st.weightless.gradient_norms(model)
    real = twin(model, factory)
    expected, expected_gradients = run(real, inputs)
    torch.testing.assert_close(out, expected, rtol=rounding, atol=rounding)
    torch.testing.assert_close(gradients, expected_gradients, rtol=rounding, atol=rounding)
    theirs = {name: float(p.grad.norm()) for name, p in real.named_parameters() if p.grad is not None}
    assert set(norms) == set(theirs)
    for name, norm in theirs.items():
        assert abs(norms[name] - norm) <= rounding * max(1.0, norm), name


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the parameters that are drawn for real."""
    unseen = parameters(model)
    return {name: copy.deepcopy(p.detach()) for name, p in model.named_parameters() if name not in unseen}
