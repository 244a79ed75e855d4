"""Weightless models train as real ones: their losses after steps of gradient descent have one law."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn
from weightless_families import FAMILIES, GPT2
from weightless_laws import (
    Samples,
    Source,
    Statistics,
    assert_other_statistics,
    assert_same_statistics,
    assert_unseen,
    collected,
    module,
)

import shaped_transformer as st

SAMPLES, WRONG_SAMPLES = 250, 120
REAL_SAMPLES = 1200
"""Real networks of this size are faster, and more of them on one side do as well as more on both."""

INPUTS = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
TARGETS = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))


class Residual(nn.Module):
    """A residual network of tanh and GELU blocks with biases,."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
        self.head = nn.Linear(64, 16)
        for part in (*self.hidden, self.head):
            nn.init.normal_(part.weight, std=0.2)
            nn.init.normal_(part.bias, std=0.1)

    def forward(self, x: Any) -> Any:
        for number, part in enumerate(self.hidden):
            x = x + 0.5 * (torch.tanh(part(x)) if number % 2 else nn.functional.gelu(part(x)))
        return self.head(x)


def residual_loss(model: Any) -> Any:
    return (model(INPUTS) - TARGETS).square().mean()


@dataclass(frozen=True)
class Training:
    """A model and how it is trained.

    - `source`, `loss`: the model, and model → loss.
    - `shown`: after which steps the loss is compared.
    - `lr`, `momentum`, `weight_decay`: of gradient descent.
    - `clip`: the largest global norm of the gradient.
    """

    source: Source
    loss: Callable[[Any], Any]
    shown: tuple[int, ...]
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None


RESIDUAL = (module(Residual), residual_loss, (1, 3, 10))
TRAININGS: dict[str, Training] = {
    "plain": Training(*RESIDUAL, lr=0.008),
    "momentum, decay": Training(*RESIDUAL, lr=0.003, momentum=0.9, weight_decay=0.5),
    "clipped": Training(*RESIDUAL, lr=0.05, clip=1.0),
    "orthogonal": Training(
        FAMILIES["orthogonal"].source,
        lambda model: FAMILIES["orthogonal"].losses(model)[0],
        (1, 3, 6),
        lr=0.3,
        momentum=0.5,
        weight_decay=0.1,
    ),
    "GPT-2": Training(
        GPT2.source, lambda model: GPT2.losses(model)[0], (1, 3), lr=0.03, momentum=0.9, weight_decay=0.1, clip=5
    ),
}


def losses(training: Training, model: Any, lr: float) -> Statistics:
    """Return the losses of one network before and after steps of gradient descent."""
    weightless = hasattr(model, "weightless")
    settings: dict[str, Any] = {"lr": lr, "momentum": training.momentum, "weight_decay": training.weight_decay}
    optimiser = st.weightless.SGD(model, **settings) if weightless else torch.optim.SGD(model.parameters(), **settings)
    found: Statistics = {}
    for step in range(training.shown[-1] + 1):
        loss = training.loss(model)
        found.setdefault("loss", loss.item())
        if step in training.shown:
            found[f"loss after {step}, relative"] = loss.item() / found["loss"]
        optimiser.zero_grad()
        loss.backward()
        if training.clip is not None:
            norm = (
                st.weightless.clip_grad_norm_(model, training.clip)
                if weightless
                else nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            )
            found.setdefault("norm at first", float(norm))
        optimiser.step()
    return found


@functools.cache
def real(name: str) -> Samples:
    training = TRAININGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = training.source.fresh(1.0)
        return collected(
            losses(training, fresh(), training.lr) for _ in range(REAL_SAMPLES if name != "GPT-2" else SAMPLES)
        )


def weightless(name: str, samples: int, factor: float = 1.0) -> Samples:
    training = TRAININGS[name]
    model = training.source.weightless(1.0)

    def draw(seed: int) -> Statistics:
        st.weightless.redraw(model, seed=seed)
        return losses(training, model, factor * training.lr)

    found = collected(draw(seed) for seed in range(samples))
    assert_unseen(model)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_losses_of_trained_models_have_the_law_of_real_ones(name: str) -> None:
    training, found = TRAININGS[name], real(name)
    assert np.median(found[f"loss after {training.shown[-1]}, relative"]) < 0.5
    assert_same_statistics(found, weightless(name, SAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_training_at_another_rate_has_another_law(name: str) -> None:
    assert_other_statistics(real(name), weightless(name, WRONG_SAMPLES, factor=1.1))
