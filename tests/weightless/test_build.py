"""A weightless model is determined by its factory and seed alone, and is one network in all its passes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from twins import Parametrised, build, twin

import shaped_transformer as st
from shaped_transformer import InputError
from shaped_transformer.weightless.matrices import ledger

X = torch.randn(3, 60, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two branches with matrices, biases and a norm, whose order of running can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(60, 80), nn.Linear(60, 80)
        self.norm, self.head = nn.LayerNorm(80), nn.Linear(80, 60, bias=False)
        for one in (self.first, self.second, self.head):
            nn.init.normal_(one.weight, std=0.2)
        self.reverse = False

    def forward(self, x: Any) -> Any:
        if self.reverse:
            gate = self.second(x)
            return self.head(self.norm(self.first(x) * torch.tanh(gate)))
        return self.head(self.norm(self.first(x) * torch.tanh(self.second(x))))


def passes(model: Any, x: Any = X) -> list[Any]:
    """Return output, gradient of the input and norms of gradients of one pass."""
    x = x.to(model.head.weight.dtype).detach().clone().requires_grad_()
    out = model(x)
    out.square().sum().backward()
    norms = st.weightless.gradient_norms(model)
    return [out.detach(), x.grad, torch.tensor([norms[name] for name in sorted(norms)])]


def weightless(seed: int = 0, **options: Any) -> Any:
    return st.weightless.build(Layers, seed, **options)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_seed_alone_determines_a_network() -> None:
    expected = passes(weightless())
    for count, seed in ((1, 5), (2, 6)):
        torch.set_num_threads(count)
        torch.manual_seed(seed)
        torch.testing.assert_close(passes(weightless()), expected, rtol=1e-5, atol=1e-5)
    other = weightless()
    other.reverse = True
    torch.testing.assert_close(passes(other), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(passes(weightless(1))[0], expected[0], rtol=0.1)


def test_equal_calls_are_equal_to_the_last_bit() -> None:
    assert all(torch.equal(a, b) for a, b in zip(passes(weightless()), passes(weightless()), strict=True))


def test_a_redrawn_network_is_that_of_a_fresh_model() -> None:
    model = weightless(history=True)
    passes(model)
    optimiser = st.weightless.SGD(model, 0.1, momentum=0.9)
    optimiser.step()
    st.weightless.redraw(model, 7)
    assert st.weightless.gradient_norms(model) == {}
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(passes(model), passes(weightless(7)), strict=True))
    with pytest.raises(InputError, match="redrawn: make a new optimiser"):
        optimiser.step()
    st.weightless.redraw(model, 0)
    assert all(torch.equal(a, b) for a, b in zip(passes(model), passes(weightless(0)), strict=True))


def test_a_redrawn_network_has_its_first_buffers() -> None:
    def factory() -> Any:
        model: Any = nn.Sequential(nn.Linear(60, 80), nn.BatchNorm1d(80))
        nn.init.normal_(model[0].weight)
        return model

    model, fresh = st.weightless.build(factory, 0), st.weightless.build(factory, 3)
    model(X)
    assert not torch.equal(model[1].running_mean, fresh[1].running_mean)
    st.weightless.redraw(model, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), fresh.buffers(), strict=True))


def test_nothing_global_changes() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    passes(weightless(dtype=torch.float64))
    st.weightless.redraw(weightless(), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_the_type_is_that_asked_for() -> None:
    model = weightless(dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(X.double()).dtype == torch.float64
    assert {p.dtype for p in weightless().parameters()} == {torch.float32}


def test_types_agree_in_what_they_draw_of_small_parameters() -> None:
    single, double = weightless(), weightless(dtype=torch.float64)
    assert single.first.bias.shape == double.first.bias.shape
    assert single.norm.weight.tolist() == double.norm.weight.tolist() == [1.0] * 80


def test_forward_passes_with_other_inputs_are_one_network() -> None:
    model = build(Layers)
    inputs = [X.double() * scale + scale for scale in (1, 2)] + [X[:1].double(), X.double() + 2]
    with torch.no_grad():
        outputs = [model(x) for x in inputs]
    real = twin(model, Layers)
    torch.testing.assert_close([real(x).detach() for x in inputs], outputs, rtol=1e-9, atol=1e-9)


def test_an_input_changed_between_passes_without_gradients_is_no_harm() -> None:
    model = build(Layers)
    x = X.double().clone()
    with torch.no_grad():
        first = model(x)
        x.mul_(2).add_(1)
        second = model(x)
        real = twin(model, Layers)
        torch.testing.assert_close(real(x), second, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(real((x - 1) / 2), first, rtol=1e-9, atol=1e-9)


def test_an_input_changed_between_passes_with_gradients_is_noticed() -> None:
    model = weightless()
    x = X.clone()
    model(x).square().sum().backward()
    norms = st.weightless.gradient_norms(model)
    x.mul_(2)
    for call in (lambda: model(x), lambda: st.weightless.gradient_norms(model)):
        with pytest.raises(InputError, match=r"first\.weight: .*changed in place afterwards.*x\.clone\(\)"):
            call()
    assert norms == st.weightless.gradient_norms(passed(weightless()))


def passed(model: Any) -> Any:
    model(X.clone()).square().sum().backward()
    return model


def test_inference_mode_is_a_pass_of_the_same_network() -> None:
    model = weightless()
    with torch.inference_mode():
        first = model(X)
    torch.testing.assert_close(model(X).detach(), first.clone(), rtol=1e-4, atol=1e-4)


HISTORIES = [(None, 2**28, True), (None, 100, False), (True, 100, True), (False, 2**28, False)]


@pytest.mark.parametrize(("history", "limit", "kept"), HISTORIES)
def test_passes_after_a_backward_pass(
    *, history: bool | None, limit: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKWARD_BYTES", limit)
    model = build(Layers, history=history)
    out, gradient, norms = passes(model)
    if kept:
        torch.testing.assert_close(model(X.double() + 1), twin(model, Layers)(X.double() + 1), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(X.double()).detach(), out, rtol=1e-9, atol=1e-9)
        return
    torch.testing.assert_close(model(X.double()).detach(), out, rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match=r"weight: the vectors of its backward pass were not kept.*history=True"):
        model(X.double() + 1)
    with pytest.raises(InputError, match="were not kept"):
        st.weightless.SGD(model, 0.1)
    st.weightless.redraw(model, 0)
    torch.testing.assert_close(passes(model), [out, gradient, norms])


@pytest.mark.parametrize("limit", [100, 2**28])
def test_norms_do_not_depend_on_what_is_kept(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = passes(build(Layers, history=True))
    monkeypatch.setattr(ledger, "BACKWARD_BYTES", limit)
    torch.testing.assert_close(passes(build(Layers)), expected, rtol=1e-9, atol=1e-9)


def test_an_optimiser_turns_keeping_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKWARD_BYTES", 100)
    model = build(Layers)
    optimiser = st.weightless.SGD(model, 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        passes(model)
        optimiser.step()
    assert model(X.double()).shape == (3, 60)


def test_frozen_weights_have_no_gradient_and_pass_one_on() -> None:
    model = build(Layers)
    model.first.requires_grad_(requires_grad=False)
    out, gradient, _ = passes(model)
    assert set(st.weightless.gradient_norms(model)) == {
        "second.weight",
        "second.bias",
        "norm.weight",
        "norm.bias",
        "head.weight",
    }
    assert model.first.weight.grad is None
    torch.testing.assert_close(out, passes(build(Layers))[0])
    torch.testing.assert_close(gradient, passes(build(Layers))[1])


def test_modes_and_dropout() -> None:
    def factory() -> Any:
        return nn.Sequential(Parametrised((60, 80), torch.matmul), nn.Dropout(0.5)).eval()

    model = st.weightless.build(lambda: nn.Sequential(Parametrised((60, 80), lambda w, x: x @ w), nn.Dropout(0.5)))
    assert model.training
    assert (model(X) == 0).any()
    assert not (model.eval()(X) == 0).any()
    assert not st.weightless.build(factory).training


def test_checkpointing_is_the_same_pass() -> None:
    expected = passes(weightless())

    class Saving(Layers):
        def forward(self, x: Any) -> Any:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

    torch.testing.assert_close(passes(st.weightless.build(Saving)), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_the_same_network() -> None:
    model = weightless()
    expected = model(X)
    torch.testing.assert_close(torch.compile(model, backend="eager")(X), expected, rtol=1e-4, atol=1e-4)


def test_the_table_says_how_each_parameter_is_treated() -> None:
    model = weightless()
    table = st.weightless.laws(model)
    assert {one.name: (one.law, one.treatment, one.saved) for one in table} == {
        "first.weight": ("N(0, 0.2²)", "unseen", 19_200),
        "first.bias": ("uniform on [-0.129, 0.129]", "drawn", 0),
        "second.weight": ("N(0, 0.2²)", "unseen", 19_200),
        "second.bias": ("uniform on [-0.129, 0.129]", "drawn", 0),
        "norm.weight": ("1", "constant", 0),
        "norm.bias": ("0", "constant", 0),
        "head.weight": ("N(0, 0.2²)", "unseen", 19_200),
    }
    assert not table.approximate
    text = str(table)
    assert text == repr(table)
    assert text.splitlines()[0].split() == ["parameter", "shape", "distribution", "treatment", "saved", "MB"]
    assert "80 × 60" in text
    assert "approximate" not in text
    model(X.repeat(20, 1) + torch.randn(60, 60))
    assert st.weightless.laws(model)[0].treatment == "drawn"
    assert st.weightless.laws(model)[0].saved == 0


def test_an_approximation_is_marked_everywhere() -> None:
    model = st.weightless.build(lambda: nn.Sequential(nn.Linear(300, 400)), approximate=True)
    table = st.weightless.laws(model)
    assert table.approximate
    assert [one.approximate for one in table] == [True, False]
    assert "uniform on [-0.0577, 0.0577] (Gaussian of equal variance)" in str(table)
    assert str(table).endswith("The results are approximate: see the parameters marked so.")
    with torch.no_grad():
        assert float(model(torch.randn(2, 300)).std()) == pytest.approx(1 / 3**0.5, rel=0.15)
    model(torch.randn(2, 300)).sum().backward()
    norms = st.weightless.gradient_norms(model)
    assert norms.approximate == {"0.weight"}
    assert "Gaussian stands for another distribution in 1" in repr(norms)
    assert not st.weightless.gradient_norms(passed(weightless())).approximate
    assert not st.weightless.laws(st.weightless.build(Layers, approximate=True)).approximate


def drawn(model: Any, x: Any) -> list[str]:
    """Return the matrices that are drawn for some vectors."""
    model(x)
    return [one.name for one in st.weightless.laws(model) if one.treatment == "drawn" and len(one.shape) > 1]


def test_memory_limits_what_is_drawn() -> None:
    many = torch.randn(39, 40, generator=torch.Generator().manual_seed(1))

    def deep() -> Any:
        return nn.Sequential(*[Parametrised((40, 40), lambda w, x: torch.tanh(x @ w)) for _ in range(20)])

    assert len(drawn(st.weightless.build(deep), many)) == 20
    assert 0 < len(drawn(st.weightless.build(deep, memory=6e-5), many)) < 10
    with pytest.raises(InputError, match=r"must be drawn for real take .* more than the limit of 0 GB.*larger memory="):
        weightless(memory=0)
    data = st.weightless.build(lambda: Parametrised((1, 300, 400), lambda w, x: x + w), memory=1e-5)
    with pytest.raises(InputError, match="does not fit into the memory limit: give a larger memory="):
        data(torch.zeros(300, 400))


def test_a_large_model_takes_seconds() -> None:
    start = time.perf_counter()
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=8192, depth=1, heads=64))
    model(torch.randn(1, 2, 8192)).square().mean().backward()
    assert len(st.weightless.gradient_norms(model)) > 4
    assert time.perf_counter() - start < 20
