"""Matrices that meet the same vectors share a part of their backward pass, and each gradient stays exact."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from twins import build, twin

import shaped_transformer as st
from shaped_transformer.weightless.matrices.once import second_images
from shaped_transformer.weightless.parameters import autograd

DOUBLE = torch.float64


class Heads(nn.Module):
    """Three matrices that meet tanh(x + bias), and what a test does with their products."""

    def __init__(self, combine: Any) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(30))
        self.a, self.b, self.c = (nn.Parameter(torch.randn(30, n) * 0.3) for n in (20, 40, 30))
        self.combine = combine

    def forward(self, x: Any) -> Any:
        return self.combine((x + self.bias).tanh(), self.a, self.b, self.c)


def all_three(y: Any, a: Any, b: Any, c: Any) -> Any:
    return (y @ a).square().sum() + (y @ b).sin().sum() + (y @ c * y).sum()


def one_twice(y: Any, a: Any, b: Any, c: Any) -> Any:
    return (y @ a).square().sum() + (y @ b).sin().sum() + (y @ c * (y @ c).cos()).sum()


def with_another_use(y: Any, a: Any, b: Any, c: Any) -> Any:
    return (y @ a).square().sum() + ((y * y) @ b).sin().sum() + ((y @ b)[..., :30] * (y @ c)).sum()


def from_both_sides(y: Any, a: Any, b: Any, c: Any) -> Any:
    return (y @ c).sin().sum() + ((y @ a).sin() @ a.T).square().sum() + (y @ b).sum()


def changed_in_between(y: Any, a: Any, b: Any, c: Any) -> Any:
    y = y.clone()
    before = (y.clone() @ a).square().sum()
    y *= 2
    return before + (y @ b).sin().sum() + (y @ c).square().sum()


def cut(y: Any, a: Any, b: Any, c: Any) -> Any:
    return (y.detach() @ a).square().sum() + (y @ b).sin().sum() + (y[1:] @ c).sum()


COMBINATIONS = [all_three, one_twice, with_another_use, from_both_sides, changed_in_between, cut]


def leaf(*shape: int) -> Any:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("shape", [(3, 30), (2, 3, 30)])
@pytest.mark.parametrize("combine", COMBINATIONS, ids=lambda one: one.__name__)
def test_gradients_are_those_of_the_real_network(combine: Any, shape: tuple[int, ...]) -> None:
    model, x, y = build(lambda: Heads(combine), history=True), leaf(*shape), leaf(*shape)
    loss = model(x)
    loss.backward()
    norms = st.weightless.gradient_norms(model)
    real = twin(model, lambda: Heads(combine))
    expected = real(y)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(model.bias.grad, real.bias.grad)
    for name in ("a", "b", "c"):
        assert norms[name] == pytest.approx(float(getattr(real, name).grad.norm()))


def test_a_second_backward_pass_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build(lambda: Heads(all_three)), leaf(3, 30)
    calls = []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return second_images(*given)

    monkeypatch.setattr(autograd, "second_images", counted)
    loss = model(x)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x, retain_graph=True)
    torch.testing.assert_close(first, second)
    assert len(calls) == 2  # one for all three matrices, in each pass


def test_a_pass_that_fails_before_the_shared_vectors_leaves_nothing_behind() -> None:
    failing = [False]

    def fail(gradient: Any) -> Any:
        if failing[0]:
            raise RuntimeError("a hook of the user")
        return gradient

    def combine(y: Any, a: Any, b: Any, c: Any) -> Any:
        first = y @ a
        first.register_hook(fail)
        return first.square().sum() + (y @ b).sin().sum() + (y @ c * y).sum()

    model, x = build(lambda: Heads(combine)), leaf(3, 30)
    loss = model(x)
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    failing[0] = True
    with pytest.raises(RuntimeError, match="a hook"):
        torch.autograd.grad(loss, x, retain_graph=True)
    failing[0] = False
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected)


def test_shared_vectors_are_freed() -> None:
    model, before = build(lambda: Heads(all_three)), len(autograd._shared)
    for _ in range(3):
        loss = model(leaf(3, 30))
        assert len(autograd._shared) <= before + 1
        del loss
    assert len(autograd._shared) == before
