"""Gradient descent of a weightless model is that of PyTorch from the matrices that it turns out to have had."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from trained_models import MODELS, Model, batch, both_with, normal
from twins import Factory, build, copied, initial, twin

import shaped_transformer as st

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.5, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
}


def both(
    factory: Factory, lr: float = 0.3, clip: float | None = None, *, scheduled: bool = False, **options: Any
) -> tuple[list[float], list[float]]:
    """Return the losses of gradient descent of a weightless model, and those of the real one that it was."""

    def optimiser(model: Any, library: Any) -> Any:
        return library.SGD(model.parameters(), lr, **options)

    return both_with(factory, optimiser, clip, scheduled=scheduled)


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
