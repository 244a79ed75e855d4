"""Samples of weightless models and of real ones, freshly initialised by their own code, and tests of their laws."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from assertions import FALSE_ALARM
from scipy.stats import ks_2samp
from torch import Tensor, nn
from transformers.utils import logging

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats

SAMPLES = 800
WRONG_SAMPLES = 100
"""So few draws of a wrong law are enough to notice it."""

LARGE = 1000
"""Every matrix of so many entries must be weightless in these tests, or they would show nothing."""

Statistics = dict[str, float]
Samples = dict[str, Floats]
Place = tuple[int, ...]

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # tiny vocabularies lack the usual special tokens


@dataclass(frozen=True)
class Source:
    """A model at a scale of its initial standard deviations: real networks, one after another, and the weightless one.

    - `fresh`: scale → a function that builds a network, freshly initialised by the model's own code.
    - `weightless`: scale → the weightless model.
    """

    fresh: Callable[[float], Callable[[], Any]]
    weightless: Callable[[float], Any]


@dataclass(frozen=True)
class Family:
    """A model and what is measured in it.

    - `source`: the model.
    - `losses`: model → losses, whose sum is differentiated.
    - `state`, `gradient`: names of the modules at whose outputs tokens, and the gradients of tokens, are measured.
    - `parameters`: names of the parameters whose gradient norms are measured.
    - `tokens`: which two vectors of those outputs.
    """

    source: Source
    losses: Callable[[Any], tuple[Tensor, ...]]
    state: str
    gradient: str
    parameters: tuple[str, ...]
    tokens: tuple[Place, Place] = ((0, 1), (0, -2))


def hugging_face(config: Callable[[float], Any], cls: Any, **options: Any) -> Source:
    """Return a Hugging Face model, each real one built anew: initialising one again leaves a tied row of padding."""

    def build(scale: float) -> Any:
        model = cls.from_config(config(scale)) if hasattr(cls, "_model_mapping") else cls(config(scale))
        return model.eval()

    return Source(
        lambda scale: functools.partial(build, scale),
        lambda scale: st.weightless.from_config(config(scale), cls=cls, **options).eval(),
    )


def module(factory: Callable[[], nn.Module], **options: Any) -> Source:
    """Return a module, whose matrices are multiplied by the scale in its own code."""

    def scaled(scale: float) -> nn.Module:
        model = factory().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and scale != 1:
                    parameter.mul_(scale)
        return model

    return Source(
        lambda scale: functools.partial(scaled, scale),
        lambda scale: st.weightless.build(functools.partial(scaled, scale), **options),
    )


@functools.cache
def real_samples(family: Family) -> Samples:
    """Return the statistics of freshly initialised real networks, kept for all tests that need them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = family.source.fresh(1.0)
        return collected(measure(family, fresh()) for _ in range(SAMPLES))


def weightless_samples(family: Family, count: int = SAMPLES, scale: float = 1.0) -> Samples:
    """Return the statistics of weightless networks, whose large matrices are indeed never drawn."""
    model = family.source.weightless(scale)

    def draw(seed: int) -> Statistics:
        st.weightless.redraw(model, seed=seed)
        return measure(family, model)

    samples = collected(draw(seed) for seed in range(count))
    assert_unseen(model)
    return samples


def measure(family: Family, model: Any) -> Statistics:
    """Return the statistics of one network, forward and backward."""
    model.zero_grad()
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(functools.partial(_note, seen, name))
        for name in {family.state, family.gradient}
    ]
    losses = family.losses(model)
    for hook in hooks:
        hook.remove()
    total: Any = torch.stack(losses).sum()
    total.backward()
    found = {f"loss {number}": loss.item() for number, loss in enumerate(losses)}
    for number in range(1, len(losses)):
        found[f"loss {number} - loss 0"] = (losses[number] - losses[0]).item()
    gradient = seen[family.gradient].grad
    assert gradient is not None
    for name, vectors in (("state", seen[family.state].detach()), ("gradient", gradient)):
        first, last = (vectors[place] for place in family.tokens)
        found[f"{name}'s norm"] = float(first.norm())
        found[f"{name}'s cosine"] = float(torch.cosine_similarity(first, last, dim=0))
    norms = gradient_norms(model)
    return found | {name: norms[name] for name in family.parameters}


def gradient_norms(model: Any) -> Mapping[str, float]:
    """Return the norms of the gradients of a weightless or real model."""
    if hasattr(model, "weightless"):
        return st.weightless.gradient_norms(model)
    return {name: float(one.grad.norm()) for name, one in model.named_parameters() if one.grad is not None}


def _note(seen: dict[str, Tensor], name: str, *call: Any) -> None:
    """Keep the output of a module's first call, and have its gradient kept."""
    value = call[-1][0] if isinstance(call[-1], tuple) else call[-1]
    if name not in seen:
        seen[name] = value
        if value.requires_grad:
            value.retain_grad()


def collected(rows: Iterable[Statistics]) -> Samples:
    """Return arrays of the statistics of many networks."""
    found = list(rows)
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def assert_unseen(model: Any) -> None:
    """Assert that no large matrix of a weightless model was drawn."""
    drawn = [
        one.name
        for one in st.weightless.laws(model)
        if one.treatment == "drawn" and len(one.shape) > 1 and np.prod(one.shape) >= LARGE
    ]
    assert not drawn, f"these matrices were drawn whole: {drawn}"


def p_values(first: Samples, second: Samples) -> dict[str, float]:
    """Return the p-values of Kolmogorov–Smirnov tests, one for each statistic."""
    assert first.keys() == second.keys()
    return {name: float(ks_2samp(first[name], second[name], method="asymp").pvalue) for name in first}


def assert_same_statistics(first: Samples, second: Samples) -> None:
    """Assert that each statistic has one law, at the joint level `FALSE_ALARM`."""
    found = p_values(first, second)
    differences = {name: p for name, p in found.items() if p < FALSE_ALARM / len(found)}
    print({name: f"{p:.2g}" for name, p in found.items()})  # noqa: T201
    assert not differences, f"differ in law: p-values {differences}"


def assert_other_statistics(first: Samples, wrong: Samples) -> None:
    """Assert that `assert_same_statistics` notices a slightly wrong law: the companion of each such assertion."""
    with pytest.raises(AssertionError, match="differ in law"):
        assert_same_statistics(first, wrong)
