"""A parameter that is used in several ways, or copied, is one parameter with one gradient."""

import copy
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional
from twins import Parametrised, build, twin

import shaped_transformer as st
from shaped_transformer import InputError

X = torch.ones(2, 40, dtype=torch.float64)


def test_tied_weights_stay_one_parameter() -> None:
    def factory() -> Any:
        model = nn.ModuleDict({"table": nn.Embedding(70, 60), "head": nn.Linear(60, 70, bias=False)})
        model["head"].weight = model["table"].weight
        return model

    model = build(factory)
    assert model["head"].weight is model["table"].weight
    assert len(list(model.parameters())) == 1
    rows = model["table"](torch.tensor([3, 5])).detach()
    table = torch.eye(70, dtype=torch.float64) @ model["head"].weight
    torch.testing.assert_close(table[[3, 5]], rows)
    torch.testing.assert_close(model["head"](rows), rows @ table.T)


def test_positions_used_as_data_are_drawn_and_have_a_gradient() -> None:
    def factory() -> Any:
        return Parametrised((1, 30, 40), lambda w, x: x * w[:, 3:13])

    model, x = build(factory), torch.ones(2, 10, 40, dtype=torch.float64)
    out = model(x)
    assert out.std().item() == pytest.approx(0.3, rel=0.2)
    torch.testing.assert_close(out, twin(model, factory)(x))
    out.sum().backward()
    assert st.weightless.gradient_norms(model)["weight"] == pytest.approx((400 * 4) ** 0.5)
    assert st.weightless.laws(model)[0].treatment == "drawn"
    st.weightless.redraw(model, 1)
    assert not torch.allclose(model(x), out)
    assert st.weightless.gradient_norms(model) == {}


def test_a_table_used_as_rows_and_as_data_is_one_table() -> None:
    ids = torch.tensor([[3, 5]])

    def rows_first(w: Any, x: Any) -> Any:
        return functional.embedding(ids, w) * x + (w * x).sum()

    def data_first(w: Any, x: Any) -> Any:
        return (w * x).sum() + functional.embedding(ids, w) * x + x @ w.T[:, :1]

    x = torch.linspace(0, 1, 60, dtype=torch.float64)
    for function in (rows_first, data_first):
        factory = partial(Parametrised, (40, 60), function)
        model = build(factory)
        out = model(x)
        out.square().sum().backward()
        norms = st.weightless.gradient_norms(model)
        real: Any = twin(model, factory)
        expected = real(x)
        expected.square().sum().backward()
        torch.testing.assert_close(out, expected)
        assert norms["weight"] == pytest.approx(float(real.weight.grad.norm()), rel=1e-9)


NOISE = torch.randn(100, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
COPIES: dict[str, tuple[tuple[int, ...], Any]] = {
    "few vectors, then many": ((40, 60), lambda a, b, x: x @ a + ((x.repeat(50, 1) + NOISE) @ b)[:2]),
    "many vectors, then few": ((40, 60), lambda a, b, x: ((x.repeat(50, 1) + NOISE) @ a)[:2] + x @ b),
    "many vectors, then rows": ((40, 60), lambda a, b, x: (x.repeat(50, 1) + NOISE) @ a + b[torch.tensor([3, 5])][:1]),
    "data, then rows": ((40, 60), lambda a, b, x: (x.T[:, :1] * a) + b[torch.tensor([3, 5])][:1]),
    "rows, then data": ((40, 60), lambda a, b, x: a[torch.tensor([3, 5])][:1] + (x.T[:, :1] * b)),
    "data of three axes": ((1, 40, 60), lambda a, b, x: a + x[0, 0] * b),
    "stacks": ((3, 40, 60), lambda a, b, x: x @ a[1] + x @ b[1] - x @ b[2]),
}


class Copies(nn.Module):
    """Two parameters that start with the same values."""

    def __init__(self, shape: tuple[int, ...], function: Any) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(shape) * 0.3)
        self.second = copy.deepcopy(self.first)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self.first, self.second, x)


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_equal_whatever_is_done_with_each(name: str) -> None:
    shape, function = COPIES[name]
    factory = partial(Copies, shape, function)
    model, x = build(factory), torch.ones(2, 40, dtype=torch.float64)
    out = model(x)
    real: Any = twin(model, factory)
    out.square().sum().backward()
    norms = st.weightless.gradient_norms(model)
    torch.testing.assert_close(real.first, real.second, rtol=0, atol=1e-12)
    expected = real(x)
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for parameter in ("first", "second"):
        assert norms[parameter] == pytest.approx(getattr(real, parameter).grad.norm().item(), rel=1e-9)


def test_a_trained_copy_is_not_drawn_again() -> None:
    """A table that was trained by rows keeps its training where its copy is then drawn whole."""
    used = {"data": False}

    def function(first: Any, second: Any, *_: Any) -> Any:
        rows = first[torch.tensor([3, 5])]
        return rows + (second * 1.0).sum() if used["data"] else rows

    model = build(partial(Copies, (40, 60), function))
    optimiser = st.weightless.SGD(model, 0.1)
    model(X).square().sum().backward()
    optimiser.step()
    used["data"] = True
    model(X)  # draws the copy
    with pytest.raises(InputError, match="first: a copy of it was drawn for real after it was trained"):
        model(X)


def test_a_stack_used_as_data_and_as_matrices_is_one_stack() -> None:
    def factory() -> Any:
        return Parametrised((3, 40, 60), lambda w, x: (w * 2).sum() + x @ w[1])

    model, x = build(factory), torch.ones(2, 40, dtype=torch.float64)
    with pytest.raises(InputError, match="weight: the model both uses its values as data and multiplies with it"):
        model(x)
