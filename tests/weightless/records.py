"""What the tests of recorded initialisations share: modules of one parameter, their distributions, and draws."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from shaped_transformer.weightless.recording.law import Law
from shaped_transformer.weightless.recording.record import Recording, record

Factory = Callable[[], Any]


class One(nn.Module):
    """A module of one parameter."""

    def __init__(self, values: Factory) -> None:
        super().__init__()
        self.weight = nn.Parameter(values())


def recorded(factory: Any, dtype: Any) -> tuple[Any, dict[str, Recording]]:
    return record(factory, dtype)


def law(values: Factory, dtype: Any = torch.float32) -> Law:
    model, recordings = recorded(lambda: One(values), dtype)
    return recordings["weight"].law(model.weight.shape)


def laws(factory: Factory, dtype: Any = torch.float32) -> dict[str, Law]:
    model, recordings = recorded(factory, dtype)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: recording.law(tensors[name].shape) for name, recording in recordings.items()}


def draw(values: Factory, seed: int = 0, dtype: Any = torch.float32) -> Any:
    model, recordings = recorded(lambda: One(values), torch.float32)
    return recordings["weight"].draw(model.weight.shape, dtype, *sources(seed))


def sources(seed: int) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    return (
        lambda shape: torch.randn(shape, generator=generator),
        lambda shape: torch.rand(shape, generator=generator),
        generator,
    )


def filled(shape: tuple[int, ...], *fills: Callable[[Any], object]) -> Any:
    weight = torch.empty(shape)
    for fill in fills:
        fill(weight)
    return weight
