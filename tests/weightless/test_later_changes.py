"""What happens to a weightless model after it was built: other layers, other networks and steps between the passes."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import shaped_transformer as st
from shaped_transformer import InputError

WIDTH = 300
X = torch.linspace(-1, 1, 2 * WIDTH).view(2, WIDTH)


class Layers(nn.Module):
    """Two linear layers with normal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.1)

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x)))


def built() -> Any:
    return st.weightless.build(Layers, seed=0)


def test_a_layer_added_later_is_a_real_one_everywhere() -> None:
    model = built()
    model.second = nn.Linear(WIDTH, 3)
    optimiser = st.weightless.SGD(model, lr=0.1)
    model(X).square().mean().backward()
    norm = float(model.second.weight.grad.norm())
    assert st.weightless.gradient_norms(model)["second.weight"] == pytest.approx(norm)
    total = st.weightless.clip_grad_norm_(model, 1e-3)
    assert float(model.second.weight.grad.norm()) == pytest.approx(norm * 1e-3 / (total + 1e-6))
    before = model.second.weight.detach().clone()
    optimiser.step()
    assert not torch.equal(before, model.second.weight)
    assert st.weightless.laws(model)["second.weight"].treatment == "given"
    assert st.weightless.laws(model)["first.weight"].treatment == "unseen"
    with pytest.raises(InputError, match="unknown parameter 'third'"):
        st.weightless.laws(model)["third"]


def test_values_from_elsewhere_are_given() -> None:
    def factory() -> nn.Module:
        model = nn.Linear(8, 8)
        model.weight.data = torch.arange(64.0).view(8, 8)
        return model

    assert st.weightless.laws(st.weightless.build(factory))["weight"].treatment == "given"


def test_another_network_between_the_passes_is_refused() -> None:
    model = built()
    loss = model(X).sum()
    st.weightless.redraw(model, seed=1)
    with pytest.raises(InputError, match=r"second\.weight was changed between the forward and the backward pass"):
        loss.backward()


def test_a_step_between_the_passes_is_refused() -> None:
    model = built()
    optimiser = st.weightless.SGD(model, lr=0.1)
    first, second = model(X).sum(), model(X).square().sum()
    first.backward()
    optimiser.step()
    with pytest.raises(InputError, match="changed between the forward and the backward pass"):
        second.backward()


@pytest.mark.parametrize(("name", "option"), [("SGD", "maximize"), ("AdamW", "amsgrad"), ("AdamW", "maximize")])
def test_options_of_the_parent_class_are_refused(name: str, option: str) -> None:
    model = built()
    optimiser = getattr(st.weightless, name)(model, lr=0.1)
    optimiser.param_groups[0][option] = True
    model(X).sum().backward()
    with pytest.raises(InputError, match=option):
        optimiser.step()


def test_autocast_and_other_values_are_refused() -> None:
    model = built()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(InputError, match="autocast"):
        model(X)
    with pytest.raises(InputError, match=r"first\.weight: 'normal_' cannot set the values"):
        model.first.weight.normal_()
    assert model.first.weight.type(torch.float32) is model.first.weight
