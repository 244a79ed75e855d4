"""Small models that are trained with and without weights, and their losses."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from twins import Factory, build, copied, initial, twin

import shaped_transformer as st

STEPS = 5


class Model(nn.Module):
    """A module of normal matrices and other parameters, and its loss at a step."""

    def __init__(self, loss: Callable[[Any, int], Any], **parameters: Any) -> None:
        super().__init__()
        self.loss = loss
        for name, one in parameters.items():
            if isinstance(one, nn.Module):
                setattr(self, name, one)
            else:
                self.register_parameter(name, nn.Parameter(torch.randn(one) * 0.2))

    def forward(self, step: int) -> Any:
        return self.loss(self, step)


def batch(step: int, *shape: int) -> Any:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))


def tokens(step: int, *shape: int) -> Any:
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(step))


def normal(module: Any) -> Any:
    for one in module.parameters():
        if one.dim() > 1:
            nn.init.normal_(one, std=0.2)
    return module


def tied(model: Any, step: int) -> Any:
    ids = tokens(step, 3)
    hidden = functional.embedding(ids[:-1], model.table)
    return functional.cross_entropy(torch.tanh(hidden @ model.inner) @ model.table.T, ids[1:])


def perceptron(model: Any, step: int) -> Any:
    return (model.net(batch(step, 2, 40)) - batch(step, 2, 60)).square().mean()


def experts(model: Any, step: int) -> Any:
    return sum((batch(step, 2, 40) @ model.stack[one]).tanh().square().mean() for one in (step % 3, 0))


def recurrent(model: Any, step: int) -> Any:
    x = batch(step, 1, 50)
    for _ in range(3):
        x = torch.tanh(x @ model.w)
    return x.square().sum()


def sometimes(model: Any, step: int) -> Any:
    x = batch(step, 2, 40) @ model.first
    return (x.tanh() if step % 2 else (x @ model.second).tanh()).square().mean()


def adapted(model: Any, step: int) -> Any:
    x = batch(step, 2, 300)
    return ((x @ model.w + x @ model.down.weight.T @ model.up.weight.T) - 1).square().mean()


def low_rank() -> Any:
    up = nn.Linear(250, 300, bias=False)
    nn.init.zeros_(up.weight)
    return Model(adapted, w=(300, 300), down=normal(nn.Linear(300, 250, bias=False)), up=up)


def orthogonal() -> Any:
    layer = nn.Linear(40, 40, bias=False)
    nn.init.orthogonal_(layer.weight)
    return layer


def copies(model: Any, step: int) -> Any:
    x = functional.embedding(tokens(step, 2), model.tables[0].weight) + model.tables[1](tokens(step + 1, 2))
    return model.layers(x).square().mean()


def positions(model: Any, step: int) -> Any:
    """Positions as data, those of one and of two axes."""
    x = batch(step, 1, 3, 40) + model.places[:, :3] + model.table[1:7:2]
    return (x.tanh() @ model.w).square().mean()


def copied_layers(width: int = 40) -> Any:
    """Layers and tables that start with the same values, and are trained apart."""
    layer, table = normal(nn.Linear(width, width)), nn.Embedding(60, width)
    layers = nn.Sequential(layer, nn.Tanh(), copy.deepcopy(layer), nn.Tanh(), copy.deepcopy(layer))
    return Model(copies, layers=layers, tables=nn.ModuleList([table, copy.deepcopy(table)]))


MODELS: dict[str, Factory] = {
    "linear": lambda: Model(lambda m, step: (batch(step, 2, 40) @ m.w).cos().mean(), w=(40, 60)),
    "transposed": lambda: Model(lambda m, step: functional.linear(batch(step, 2, 60), m.w).cos().mean(), w=(40, 60)),
    "embedding": lambda: Model(
        lambda m, step: m.table(tokens(step, 3)).tanh().square().mean(), table=nn.Embedding(60, 40, padding_idx=0)
    ),
    "tied": lambda: Model(tied, table=(60, 40), inner=(40, 40)),
    "experts": lambda: Model(experts, stack=(4, 40, 60)),
    "perceptron": lambda: Model(
        perceptron, net=normal(nn.Sequential(nn.Linear(40, 80), nn.Tanh(), nn.LayerNorm(80), nn.Linear(80, 60)))
    ),
    "recurrent": lambda: Model(recurrent, w=(50, 50)),
    "not in every step": lambda: Model(sometimes, first=(40, 60), second=(60, 50)),
    "zeros": low_rank,
    "copies": copied_layers,
    "positions": lambda: Model(positions, places=(1, 5, 40), table=(60, 40), w=(40, 60)),
    "orthogonal": lambda: Model(
        lambda m, step: m.net(batch(step, 2, 40)).tanh().square().mean(),
        net=orthogonal(),
    ),
    "convolution": lambda: Model(
        lambda m, step: m.net(batch(step, 1, 3, 8, 4)).tanh().mean(), net=normal(nn.Conv2d(3, 40, 4, 4))
    ),
}


def train(model: Any, optimiser: Any, clip: float | None, *, scheduled: bool = False) -> list[float]:
    """Return the losses of some steps."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7) if scheduled else None
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = model(step)
        loss.backward()
        if clip and hasattr(model, "weightless"):
            st.weightless.clip_grad_norm_(model, clip)
        elif clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        if schedule:
            schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, model(STEPS).item()]


Optimiser = Callable[[Any, Any], Any]
"""Model, and `torch.optim` or `st.weightless`, → optimiser."""


def both_with(
    factory: Factory, optimiser: Optimiser, clip: float | None = None, *, scheduled: bool = False
) -> tuple[list[float], list[float]]:
    """Return the losses of a weightless model, and those of the real one that it was."""
    model = build(factory)
    before = copied(model)
    ours = train(model, optimiser(model, st.weightless), clip, scheduled=scheduled)
    real = twin(model, factory, initial, **before)
    return ours, train(real, optimiser(real, torch.optim), clip, scheduled=scheduled)
