"""Factories, options and models that do not fit are refused."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from twins import Parametrised

import shaped_transformer as st
from shaped_transformer import InputError

SIZE = (300, 400)


def linear() -> Any:
    return st.weightless.build(lambda: Parametrised(SIZE, torch.matmul))


FACTORIES: dict[str, tuple[Any, str]] = {
    "no function": (torch.zeros(2), r"factory must be a function without arguments.*\(got a Tensor\)"),
    "a module": (nn.Linear(2, 2), r"factory must be a function without arguments.*\(got a Linear\)"),
    "nothing": (lambda: None, "factory must return a torch.nn.Module, got NoneType"),
    "several": (lambda: (nn.ReLU(), nn.ReLU()), "factory must return a torch.nn.Module, got tuple"),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_that_do_not_fit(name: str) -> None:
    factory, message = FACTORIES[name]
    with pytest.raises(InputError, match=message):
        st.weightless.build(factory)


def test_an_exception_of_the_factory_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        st.weightless.build(lambda: nn.Linear(1 // 0, 2))


OPTIONS: list[tuple[str, Any, str]] = [
    *[("seed", value, "seed must be a whole number of at least 0") for value in (1.5, -1, "a", None, True)],
    *[("dtype", v, "dtype must be torch.float32 or torch.float64") for v in (torch.float16, "float32", None)],
    *[("memory", value, "memory must be a number") for value in (-1, "big", float("nan"))],
    *[("history", value, "history must be True, False or None") for value in (1, "yes")],
    *[("approximate", value, "approximate must be True or False") for value in (1, "no", None)],
]


@pytest.mark.parametrize(("option", "value", "message"), OPTIONS)
def test_options_that_do_not_fit(option: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        st.weightless.build(nn.ReLU, **{option: value})


def test_real_models_are_refused() -> None:
    model = nn.Linear(2, 2)
    for call in (
        lambda: st.weightless.gradient_norms(model),
        lambda: st.weightless.laws(model),
        lambda: st.weightless.redraw(model, 0),
        lambda: st.weightless.SGD(model, 0.1),
        lambda: st.weightless.clip_grad_norm_(model, 1.0),
    ):
        with pytest.raises(InputError, match=r"a model made by st\.weightless\.build.*\(got Linear\)"):
            call()
    with pytest.raises(InputError, match=r"its parameters or groups of them are expected \(got int\)"):
        st.weightless.SGD(3, 0.1)  # type: ignore[arg-type]


def test_numbers_of_optimisers_and_clipping() -> None:
    for options in ({"lr": -1}, {"lr": float("nan")}, {"lr": 1, "momentum": -1}, {"lr": 1, "weight_decay": None}):
        with pytest.raises(InputError, match="must be a "):
            st.weightless.SGD(linear(), **options)
    with pytest.raises(InputError, match="max_norm must be positive"):
        st.weightless.clip_grad_norm_(linear(), -1)
    with pytest.raises(InputError, match="seed must be a whole number"):
        st.weightless.redraw(linear(), -1)
