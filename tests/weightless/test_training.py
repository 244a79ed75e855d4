"""Gradient descent of a weightless model is that of PyTorch from the matrices that it turns out to have had."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

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


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.5, "weight_decay": 0.1},
}


def train(model: Any, optimiser: Any, clip: float | None, *, scheduled: bool = False) -> list[float]:
    """Return the losses of some steps."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7) if scheduled else None
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = model(step)
        loss.backward()
        if clip and isinstance(optimiser, st.weightless.SGD):
            st.weightless.clip_grad_norm_(model, clip)
        elif clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        if schedule:
            schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, model(STEPS).item()]


def both(
    factory: Factory, lr: float = 0.3, clip: float | None = None, *, scheduled: bool = False, **options: Any
) -> tuple[list[float], list[float]]:
    """Return the losses of a weightless model, and those of the real one that it was."""
    model = build(factory)
    before = copied(model)
    ours = train(model, st.weightless.SGD(model, lr, **options), clip, scheduled=scheduled)
    real = twin(model, factory, initial, **before)
    theirs = train(real, torch.optim.SGD(real.parameters(), lr, **options), clip, scheduled=scheduled)
    return ours, theirs


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_descent_is_that_of_the_real_model(name: str, options: str) -> None:
    ours, theirs = both(MODELS[name], **OPTIONS[options])
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_rate_ten_percent_off_is_seen(name: str) -> None:
    ours, _ = both(MODELS[name])
    other, _ = both(MODELS[name], lr=0.33)
    assert ours != pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("name", ["tied", "experts", "perceptron", "recurrent"])
def test_clipping_is_that_of_the_real_model(name: str) -> None:
    unclipped, _ = both(MODELS[name], momentum=0.9)
    ours, theirs = both(MODELS[name], momentum=0.9, clip=0.01)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours != pytest.approx(unclipped, rel=1e-6)


def test_schedules_of_pytorch() -> None:
    ours, theirs = both(MODELS["perceptron"], momentum=0.9, scheduled=True)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours != pytest.approx(both(MODELS["perceptron"], momentum=0.9)[0], rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_matrices_drawn_whole_are_trained_too(*, momentum: float, bias: bool) -> None:
    def factory() -> Any:
        layers = nn.Sequential(nn.Linear(40, 50, bias=bias), nn.Tanh(), nn.Linear(50, 40, bias=bias), nn.Tanh())
        return Model(lambda m, step: m.net(m.net(batch(step, 90, 40))).square().mean(), net=normal(layers))

    ours, theirs = both(factory, momentum=momentum, weight_decay=0.01)
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_expert_that_is_first_used_late_and_drawn_whole(momentum: float) -> None:
    def loss(model: Any, step: int) -> Any:
        some = batch(step, 2, 40) @ model.stack[0]
        return some.square().mean() if step < 2 else (batch(step, 90, 40) @ model.stack[1]).square().mean()

    for decay in (0.0, 0.1):
        ours, theirs = both(lambda: Model(loss, stack=(2, 40, 60)), momentum=momentum, weight_decay=decay)
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_one_vector_and_its_bias_under_clipping() -> None:
    """PyTorch may keep the gradient of the output as that of the bias, which is then clipped in place."""

    def factory() -> Any:
        return Model(lambda m, step: m.net(batch(step, 40)).cos().sum(), net=normal(nn.Linear(40, 60)))

    ours, theirs = both(factory, momentum=0.9, clip=0.01)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_gradients_of_several_passes_add_up() -> None:
    model = build(MODELS["perceptron"])
    for step in range(3):
        (model(step) * (step + 1)).backward()
    norms = st.weightless.gradient_norms(model)
    real: Any = twin(model, MODELS["perceptron"])
    for step in range(3):
        (real(step) * (step + 1)).backward()
    for name, parameter in real.named_parameters():
        assert norms[name] == pytest.approx(float(parameter.grad.norm()), rel=1e-9)


def test_a_closure_and_frozen_parameters() -> None:
    def factory() -> Any:
        model: Any = MODELS["perceptron"]()
        model.net[0].requires_grad_(requires_grad=False)
        return model

    model = build(factory)
    before = copied(model)
    optimiser = st.weightless.SGD(model, 0.1)

    def closure() -> Any:
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = model(0)
            loss.backward()
        return loss

    losses = [optimiser.step(closure).item() for _ in range(3)]
    real = twin(model, factory, initial, **before)
    theirs = torch.optim.SGD([one for one in real.parameters() if one.requires_grad], 0.1)
    for ours in losses:
        theirs.zero_grad()
        loss = real(0)
        loss.backward()
        theirs.step()
        assert ours == pytest.approx(loss.item(), rel=1e-9)


def test_an_input_that_is_overwritten_between_steps() -> None:
    """A loop that copies each batch into one buffer either trains as PyTorch does, or is stopped."""

    def loss(model: Any, step: int) -> Any:
        model.buffer.copy_(batch(step, 2, 300))
        return (model.buffer @ model.zero.weight.T - 1).square().mean()

    def factory() -> Any:
        zero = nn.Linear(300, 300, bias=False)
        nn.init.zeros_(zero.weight)
        model = Model(loss, zero=zero)
        model.register_buffer("buffer", torch.zeros(2, 300))
        return model

    with pytest.raises(st.InputError, match="changed in place"):
        both(factory)
