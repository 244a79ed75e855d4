"""AdamW and Muon of a weightless model are those of PyTorch from the matrices that it turns out to have had."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from trained_models import MODELS, Model, batch, both_with, normal
from twins import Factory, build

import shaped_transformer as st
from shaped_transformer.weightless.matrices import adam, ledger
from shaped_transformer.weightless.optimisers.muon import newton_schulz

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.5},
    "moments": {"betas": (0.5, 0.7), "eps": 1e-3},
    "no momentum": {"betas": (0.0, 0.0)},
}


def both(factory: Factory, lr: float = 0.01, clip: float | None = None, **options: Any) -> tuple[Any, Any]:
    """Return the losses of AdamW of a weightless model, and those of the real one that it was."""
    scheduled = options.pop("scheduled", False)

    def optimiser(model: Any, library: Any) -> Any:
        return library.AdamW(model.parameters(), lr, **options)

    return both_with(factory, optimiser, clip, scheduled=scheduled)


@pytest.fixture(params=["kept", "streamed"])
def form(request: Any, monkeypatch: Any) -> Any:
    """Whether updates of small matrices are kept."""
    if request.param == "streamed":
        monkeypatch.setattr(adam, "KEPT_ENTRIES", 0)
    return request.param


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_adamw_is_that_of_the_real_model(form: str, name: str, options: str) -> None:  # noqa: ARG001
    ours, theirs = both(MODELS[name], **OPTIONS[options])
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_rate_ten_percent_off_is_seen(name: str) -> None:
    ours, _ = both(MODELS[name])
    other, _ = both(MODELS[name], lr=0.011)
    assert ours != pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("name", ["tied", "experts", "perceptron"])
def test_clipping_and_schedules_are_those_of_the_real_model(form: str, name: str) -> None:  # noqa: ARG001
    options = {"clip": 0.01, "eps": 1e-3, "scheduled": True}
    ours, theirs = both(MODELS[name], **options)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours != pytest.approx(both(MODELS[name], eps=1e-3, scheduled=True)[0], rel=1e-6)


def test_updates_are_kept_within_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "MOMENT_BYTES", 4 * 40 * 80 * 8)  # of the first of two matrices
    ours, theirs = both(MODELS["perceptron"])
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_wide_matrices_have_many_tiles(monkeypatch: Any) -> None:
    monkeypatch.setattr(adam, "KEPT_ENTRIES", 0)

    def factory() -> Any:
        net = normal(nn.Sequential(nn.Linear(40, 1101), nn.Tanh(), nn.Linear(1101, 33)))
        return Model(lambda m, step: (m.net(batch(step, 5, 40)) - 1).square().mean(), net=net)

    results = {}
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results[threads], theirs = both(factory, lr=1e-3)
        assert results[threads] == pytest.approx(theirs, rel=1e-9)
    assert results[1] == results[2]


def test_an_expert_that_is_first_used_late_and_drawn_whole() -> None:
    def loss(model: Any, step: int) -> Any:
        some = batch(step, 2, 40) @ model.stack[0]
        return some.square().mean() if step < 2 else (batch(step, 90, 40) @ model.stack[1]).square().mean()

    for decay in (0.0, 0.1):
        ours, theirs = both(lambda: Model(loss, stack=(2, 40, 60)), weight_decay=decay)
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_matrices_drawn_whole_are_trained_too() -> None:
    def factory() -> Any:
        layers = nn.Sequential(nn.Linear(40, 50), nn.Tanh(), nn.Linear(50, 40), nn.Tanh())
        return Model(lambda m, step: m.net(m.net(batch(step, 90, 40))).square().mean(), net=normal(layers))

    ours, theirs = both(factory, weight_decay=0.01)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_groups_have_their_own_settings() -> None:
    def optimiser(model: Any, library: Any) -> Any:
        first, *rest = model.parameters()
        groups = [{"params": [first], "lr": 0.03}, {"params": iter(rest), "weight_decay": 0.5, "betas": (0.5, 0.9)}]
        return library.AdamW(groups, lr=0.01)

    ours, theirs = both_with(MODELS["perceptron"], optimiser)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours != pytest.approx(both(MODELS["perceptron"])[0], rel=1e-6)


def test_groups_of_shaped_transformers() -> None:
    def shaped() -> Any:
        return Model(
            lambda m, step: m.net(batch(step, 1, 4, 64)).square().mean(),
            net=st.nn.ShapedTransformer(width=64, depth=2, heads=2),
        )

    def optimiser(model: Any, library: Any) -> Any:
        groups = st.nn.parameter_groups(model, lr=2e-3)
        return library.AdamW(groups, weight_decay=0.1)

    ours, theirs = both_with(shaped, optimiser)
    assert ours == pytest.approx(theirs, rel=1e-9)


MATRICES = ("linear", "transposed", "embedding", "tied", "recurrent", "zeros", "not in every step")


@pytest.fixture
def exact(monkeypatch: Any) -> None:
    """Let PyTorch's Muon iterate in double precision."""
    monkeypatch.setattr(
        torch.optim._muon,
        "_zeropower_via_newtonschulz",
        lambda gradient, coefficients, steps, eps: newton_schulz(gradient, coefficients, steps, eps),
    )


MUON: dict[str, dict[str, Any]] = {
    "plain": {},
    "no decay": {"weight_decay": 0.0},
    "heavy ball": {"nesterov": False, "momentum": 0.5},
    "rates of AdamW": {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
}


def both_muon(name: str, lr: float = 0.03, **options: Any) -> tuple[Any, Any]:
    """Return the losses of Muon of a weightless model, and those of the real one that it was."""

    def optimiser(model: Any, library: Any) -> Any:
        return library.Muon(model.parameters(), lr, **options)

    return both_with(MODELS[name], optimiser)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("options", MUON)
@pytest.mark.parametrize("name", MATRICES)
def test_muon_is_that_of_the_real_model(name: str, options: str) -> None:
    ours, theirs = both_muon(name, **MUON[options])
    assert ours == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize("name", MATRICES)
def test_muon_at_a_rate_ten_percent_off(name: str) -> None:
    assert both_muon(name)[0] != pytest.approx(both_muon(name, lr=0.033)[0], rel=1e-6)


@pytest.mark.parametrize("name", MATRICES)
def test_muon_differs_from_that_of_pytorch_by_16_bit_rounding(name: str) -> None:
    ours, theirs = both_muon(name)
    assert ours == pytest.approx(theirs, rel=0.02)


def test_muon_beside_adamw() -> None:
    class Two:
        def __init__(self, model: Any, library: Any) -> None:
            parts = [p for p in model.parameters() if p.dim() == 2], [p for p in model.parameters() if p.dim() != 2]
            self.both = library.Muon(parts[0], 0.02), torch.optim.AdamW(parts[1], 0.01)

        def zero_grad(self) -> None:
            for one in self.both:
                one.zero_grad()

        def step(self) -> None:
            for one in self.both:
                one.step()

    ours, theirs = both_with(MODELS["perceptron"], Two)
    assert ours == pytest.approx(theirs, rel=0.02)


LIBRARY: Any = st.weightless
ERRORS: dict[str, tuple[Any, str]] = {
    "negative rate": (lambda m: LIBRARY.AdamW(m, lr=-1.0), "lr must be"),
    "betas": (lambda m: LIBRARY.AdamW(m, betas=(0.9, 1.0)), "betas must be at least 0 and below 1"),
    "one beta": (lambda m: LIBRARY.AdamW(m, betas=0.9), "betas must be two numbers"),
    "eps": (lambda m: LIBRARY.AdamW(m, eps=0.0), "eps must be a positive"),
    "a group's rate": (lambda m: LIBRARY.AdamW([{"params": list(m.parameters()), "lr": -1.0}]), "lr must be"),
    "two models": (lambda m: LIBRARY.AdamW([*m.parameters(), *build(MODELS["tied"]).parameters()]), "got those of 2"),
    "a number": (lambda _: LIBRARY.AdamW(3), "a weightless model"),
    "real model": (lambda _: LIBRARY.AdamW(nn.Linear(3, 3)), "st.weightless.build"),
    "a vector for Muon": (lambda m: LIBRARY.Muon(m), "Muon is for matrices"),
    "adjustment": (lambda m: LIBRARY.Muon([m.net[0].weight], adjust_lr_fn="none"), "adjust_lr_fn must be"),
    "adjustment of a group": (lambda m: LIBRARY.Muon([group(m, adjust_lr_fn="none")]), "adjust_lr_fn must be"),
    "coefficients": (lambda m: LIBRARY.Muon([group(m, ns_coefficients=(1, 2))]), "ns_coefficients must be three"),
    "coefficients in words": (lambda m: LIBRARY.Muon([group(m, ns_coefficients="abc")]), "must be a number"),
    "half a step": (lambda m: LIBRARY.Muon([m.net[0].weight], ns_steps=2.5), "ns_steps must be a whole number"),
    "many steps": (lambda m: LIBRARY.Muon([m.net[0].weight], ns_steps=100), "ns_steps must be below 100"),
    "nesterov": (lambda m: LIBRARY.SGD(m, nesterov=True), "needs a positive momentum"),
    "nothing": (lambda _: LIBRARY.AdamW([]), "has no parameters"),
    "empty groups": (lambda _: LIBRARY.SGD([{"params": []}]), "has no parameters"),
    "twice in a group": (lambda m: LIBRARY.AdamW([m.net[0].weight] * 2), "got net.0.weight twice"),
    "twice in groups": (lambda m: LIBRARY.Muon([group(m), group(m)]), "got net.0.weight twice"),
    "a real one twice": (lambda m: LIBRARY.SGD([{"params": bias(m)}, {"params": bias(m)}]), "one of shape .* twice"),
    "a late group": (lambda m: LIBRARY.AdamW([group(m)]).add_param_group({"params": bias(m)}), "cannot be added later"),
    "saving": (lambda m: LIBRARY.AdamW(m).state_dict(), "cannot be saved, .*repeat the same steps"),
    "loading": (lambda m: LIBRARY.SGD(m).load_state_dict({}), "cannot be saved"),
}


def group(model: Any, **settings: Any) -> dict[str, Any]:
    """Return a group with a matrix."""
    return {"params": [model.net[0].weight], **settings}


def bias(model: Any) -> list[Any]:
    """Return a parameter with values."""
    return [next(p for p in model.parameters() if p.dim() == 1)]


@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_refused(name: str) -> None:
    make, message = ERRORS[name]
    with pytest.raises(st.InputError, match=message):
        make(build(MODELS["perceptron"]))
