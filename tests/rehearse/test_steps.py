"""Rehearsals: what is measured, what is stored, what ends them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn
from transformers.utils import logging

import shaped_transformer as st
from shaped_transformer.errors import StorageError
from shaped_transformer.rehearse import Rehearsal

logging.set_verbosity_error()  # type: ignore[no-untyped-call]

SIZES: dict[str, Any] = {
    "vocab_size": 80,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
LLAMA = transformers.LlamaConfig(initializer_range=0.1, num_key_value_heads=1, **SIZES)


def tokens(first: int = 1, count: int = 5) -> dict[str, Any]:
    ids = torch.arange(first, first + 7 * count, 7)[None] % 80
    return {"input_ids": ids, "labels": ids}


def rehearsed(model: Any = LLAMA, batches: Any = None, *arguments: Any, **settings: Any) -> Rehearsal:
    given: dict[str, Any] = {"lr": 1e-3, "steps": 2} | settings
    return st.rehearse.run(model, tokens() if batches is None else batches, *arguments, **given)


def shaped() -> nn.Module:
    return st.nn.ShapedTransformer(width=32, depth=2, heads=2)


def same(first: Rehearsal, second: Rehearsal) -> bool:
    return bool(first.data.equals(second.data))


def assert_known(result: Rehearsal) -> None:
    """Assert that all numbers are there that can be.

    There is no gradient after the last step, no relative update of what starts as zero, no effect of vectors, nor of
    real parameters that no linear layer holds.
    """
    for name, values in result.data.items():
        known = values
        if name == "gradient_norm" and values.sizes["step"] > 1:
            known = values.isel(step=slice(None, -1))
        if name in ("weight_update", "effective_update"):
            unknown = ("bias",) if name == "weight_update" else ("bias", "norm", "ln_", "LayerNorm")
            if name == "effective_update" and result.settings["real"]:
                unknown = (*unknown, "experts", "mlp.gate.")
            named = [not any(part in str(one) for part in unknown) for one in values.weight.values]
            assert sum(named) > 2
            known = values.isel(weight=named)
        assert np.isfinite(known).all(), name


def test_a_seed_says_which_network() -> None:
    result = rehearsed(seed=3)
    assert same(result, rehearsed(seed=3))
    assert not same(result, rehearsed(seed=4))


def test_the_first_draws_stay_the_same() -> None:
    many, few = rehearsed(draws=3), rehearsed(draws=2)
    assert few.data.equals(many.data.isel(draw=[0, 1]))
    losses = many.data["loss"].values
    assert len({*losses[:, 0]}) == 3


def test_before_the_first_step_nothing_has_changed() -> None:
    result = rehearsed()
    assert_known(result)
    start, end = result.data.isel(step=0), result.data.isel(step=-1)
    for name in ("stream_change", "branch_change", "output_change"):
        assert (start[name] == 0).all()
        assert (end[name] > 0).any()
    assert list(result.data.step.values) == [0, 1, 2]
    assert list(result.data["update"].values) == [1, 2]
    assert result.settings["ended"] is None
    assert result.to_frame()["loss"].is_monotonic_decreasing


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    result, place = rehearsed(), tmp_path / "rehearsal.zarr"
    result.save(place)
    loaded = Rehearsal.load(place)
    assert same(loaded, result)
    assert loaded.settings == json.loads(json.dumps(dict(result.settings)))
    other = rehearsed(seed=1)
    other.save(place)
    assert same(Rehearsal.load(place), other)


def test_other_things_are_not_overwritten_or_loaded(tmp_path: Path) -> None:
    place = tmp_path / "notes"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists and is not the result"):
        rehearsed().save(place)
    assert (place / "mine.txt").read_text() == "mine"
    st.probe.run(shaped(), torch.randn(1, 4, 32)).save(tmp_path / "probe")
    with pytest.raises(StorageError, match="a rehearsal is expected"):
        Rehearsal.load(tmp_path / "probe")


def test_new_tokens_in_each_step() -> None:
    one, two = rehearsed(), rehearsed(batches=[tokens(), tokens(3)])
    assert one.settings["tokens"] == "the same in every step"
    assert two.settings["tokens"] == "2 batches in turn"
    assert_known(two)
    for name in ("loss", "stream_change"):  # after a step on the first tokens, these are measured
        assert two.data[name].sel(step=0).equals(one.data[name].sel(step=0))
        np.testing.assert_allclose(two.data[name].sel(step=1), one.data[name].sel(step=1), rtol=1e-5)
    assert two.data["loss"].sel(step=2).item() > one.data["loss"].sel(step=2).item()


def test_tokens_that_are_not_in_the_batch_change_less() -> None:
    same_, other = (rehearsed(batches=[tokens(), one]).data["stream_change"] for one in (tokens(), tokens(3)))
    assert other.isel(step=-1, layer=0).item() < same_.isel(step=-1, layer=0).item()


def test_batches_may_have_different_sizes() -> None:
    result = rehearsed(batches=[tokens(), tokens(3, 9), tokens(2, 2)], steps=4)
    assert result.settings["ended"] is None
    assert_known(result)


def test_warm_up_is_linear() -> None:
    result = rehearsed(warmup=4, steps=5, clip=None)
    np.testing.assert_allclose(result.data["rate"][0], [0.25, 0.5, 0.75, 1, 1])
    whole = rehearsed(steps=1).data["weight_update"].sel(update=1)
    np.testing.assert_allclose(result.data["weight_update"].sel(update=1), whole / 4, rtol=1e-4)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_clipping_says_by_what(momentum: float, real: bool) -> None:
    settings: dict[str, Any] = {"optimiser": "sgd", "lr": 0.1, "options": {"momentum": momentum}, "real": real}
    free, clipped = (rehearsed(clip=clip, **settings).data for clip in (None, 0.1))
    assert (free["clipped"] == 1).all()
    np.testing.assert_allclose(clipped["clipped"], 0.1 / clipped["gradient_total"], rtol=1e-4)
    first = clipped["weight_update"].sel(update=1) / free["weight_update"].sel(update=1)
    np.testing.assert_allclose(first, clipped["clipped"].values[0, 0], rtol=1e-4)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.5, "dampening": 0.2}, {"momentum": 0.5, "nesterov": True}])
def test_updates_are_those_of_gradients_alone(options: dict[str, Any], real: bool) -> None:
    """Gradient descent with such a decay would else move weights mostly by that."""
    settings: dict[str, Any] = {"optimiser": "sgd", "lr": 1e-3, "options": options, "real": real}
    with_decay, without = (rehearsed(weight_decay=decay, **settings).data for decay in (10.0, 0.0))
    for name in ("weight_update", "effective_update"):
        np.testing.assert_allclose(with_decay[name], without[name], rtol=0.1)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("optimiser", ["adamw", "muon", "sgd"])
def test_a_rate_that_ends_in_infinity(optimiser: str, real: bool) -> None:
    result = rehearsed(optimiser=optimiser, lr=1e30, steps=4, draws=2, real=real)
    assert "infinite or undefined at step 1" in result.settings["ended"]
    assert "layers." in result.settings["ended"]
    assert result.data.sizes["update"] == 1
    assert result.data.sizes["step"] <= 2
    assert_known(result)


@pytest.mark.parametrize("real", [False, True])
def test_an_infinite_start_is_refused(real: bool) -> None:
    batch = torch.full((1, 4, 32), torch.inf)
    with pytest.raises(st.InputError, match="before the first step numbers become infinite"):
        rehearsed(shaped, batch, real=real)


@pytest.mark.parametrize("real", [False, True])
def test_the_model_is_left_as_it_was(real: bool) -> None:
    built: list[Any] = []

    def factory() -> Any:
        built.append(transformers.LlamaForCausalLM(LLAMA).train())
        return built[-1]

    result = rehearsed(factory, real=real, rounding="bfloat16")
    assert_known(result)
    (model,) = built
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_the_batch_is_left_as_it_was() -> None:
    batch = torch.randn(1, 4, 32)
    before = batch.clone()
    rehearsed(shaped, batch)
    assert torch.equal(batch, before)
    assert not batch.requires_grad


class Interrupts:
    """A loss that is interrupted when it is called for the nth time, counted from 0."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, output: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return output.loss


def test_an_interrupt_leaves_what_is_known() -> None:
    whole = rehearsed(steps=4)
    result = rehearsed(steps=4, loss=Interrupts(2), partial=True)
    assert result.settings["ended"] == "it was interrupted after step 1"
    assert result.data.equals(whole.data.sel(step=[0, 1], update=[1]))


def test_an_interrupt_leaves_complete_networks() -> None:
    result = rehearsed(draws=3, loss=Interrupts(7), partial=True)
    assert result.settings["ended"] == "it was interrupted after 2 networks"
    assert result.settings["draws"] == 2
    assert same(result, rehearsed(draws=2))


@pytest.mark.parametrize(("partial", "number"), [(False, 2), (True, 0)])
def test_an_interrupt_is_passed_on(partial: bool, number: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        rehearsed(loss=Interrupts(number), partial=partial)


def test_rounding_changes_numbers_a_little() -> None:
    exact, rounded = rehearsed().data["loss"], rehearsed(rounding="bfloat16").data["loss"]
    assert not np.isclose(exact, rounded, rtol=1e-6).any()
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "BERT": (transformers.BertConfig(**SIZES), {"cls": transformers.BertForMaskedLM}),
    "T5": (
        transformers.T5Config(
            vocab_size=80, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
        ),
        {"cls": transformers.AutoModelForSeq2SeqLM},
    ),
    "Mixtral": (transformers.MixtralConfig(num_key_value_heads=1, num_local_experts=4, **SIZES), {}),
    "Mixtral, Muon": (
        transformers.MixtralConfig(num_key_value_heads=1, num_local_experts=4, **SIZES),
        {"optimiser": "muon"},
    ),
    "GPT-2": (
        transformers.GPT2Config(vocab_size=80, n_positions=16, n_embd=32, n_layer=2, n_head=2),
        {"optimiser": "sgd", "lr": 0.1},
    ),
    "shaped": (
        st.hf.ShapedTransformerConfig(gamma=0.5, **SIZES),
        {"cls": transformers.AutoModelForCausalLM, "groups": st.nn.parameter_groups},
    ),
}


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_kinds_of_models(name: str, real: bool) -> None:
    config, settings = MODELS[name]
    result = rehearsed(config, real=real, **settings)
    assert_known(result)
    data = result.data
    assert data["loss"].values[0, -1] < data["loss"].values[0, 0]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_groups_have_rates_of_their_own(optimiser: str) -> None:
    def groups(model: Any, lr: float) -> Any:
        yield {"params": (p for name, p in model.named_parameters() if "mlp" in name), "lr": 2 * lr}
        yield {"params": (p for name, p in model.named_parameters() if "mlp" not in name), "lr": lr}

    usual, ours = (rehearsed(optimiser=optimiser, groups=one, steps=1).data for one in (None, groups))
    ratio = ours["weight_update"] / usual["weight_update"]
    for name in ratio.weight.values:
        np.testing.assert_allclose(ratio.sel(weight=name), 2 if "mlp" in str(name) else 1, rtol=1e-5)


@pytest.mark.parametrize("real", [False, True])
def test_several_optimisers(real: bool) -> None:
    library: Any = torch.optim if real else st.weightless

    def two(model: Any) -> list[Any]:
        matrices = [p for p in model.parameters() if p.dim() == 2]
        return [library.SGD(matrices, lr=0.1), library.AdamW([p for p in model.parameters() if p.dim() != 2], lr=1e-3)]

    result = rehearsed(optimiser=two, real=real)
    assert result.settings["optimiser"] == "two"
    assert_known(result)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "optimiser": ({"optimiser": "lion"}, "optimiser must be 'adamw', 'muon', 'sgd' or a function"),
    "no rate": ({"lr": 0}, "lr must be a positive number"),
    "negative rate": ({"lr": -1e-3}, "lr must be a positive number"),
    "undefined rate": ({"lr": float("nan")}, "lr must be a positive number"),
    "rate in words": ({"lr": "1e-3"}, "lr must be a number"),
    "steps": ({"steps": 0}, "steps must be a whole number of at least 1"),
    "draws": ({"draws": 0}, "draws must be a whole number of at least 1"),
    "seed": ({"seed": -1}, "seed must be"),
    "warm-up": ({"warmup": -1}, "warmup must be a whole number of at least 0"),
    "clip": ({"clip": 0.0}, "clip must be positive"),
    "decay": ({"weight_decay": -0.1}, "weight_decay must be"),
    "rounding": ({"rounding": "float8"}, 'rounding must be None or "bfloat16"'),
    "options": ({"options": {"momentums": 0.9}}, "adamw cannot be made with .*momentums"),
    "a list of options": ({"options": ["momentum"]}, "options must be a dictionary"),
    "options of PyTorch": (
        {"options": {"betas": (0.9, 1.5)}, "real": True},
        "adamw cannot be made with .*beta",
    ),
    "a value of options": ({"options": {"betas": (0.9, 1.5)}}, "betas must be at least 0 and below 1"),
    "groups": ({"groups": "all"}, "groups must be a function"),
    "parameters": ({"groups": lambda model, _: list(model.parameters())}, "groups must return dictionaries"),
    "no groups": ({"groups": lambda *_: []}, "groups must return groups with parameters"),
    "groups twice": (
        {"groups": lambda m, _: [{"params": [*m.parameters()]}] * 2, "real": True},
        "adamw cannot be made with",
    ),
    "groups with a function": (
        {"optimiser": st.weightless.AdamW, "groups": st.nn.parameter_groups},
        "groups and options only go with the name",
    ),
    "options with a function": (
        {"optimiser": st.weightless.AdamW, "options": {"betas": (0.9, 0.95)}},
        "groups and options only go with the name",
    ),
    "loss": ({"loss": "mse"}, "loss must be a function of the model's output"),
    "layers": ({"layers": "nothing"}, "no module is named 'nothing'"),
    "no batch": ({"batches": []}, "batches must hold at least one batch"),
    "names": ({"batches": {"inputs": tokens()["input_ids"]}}, "the model does not take this batch"),
    "vectors": ({"batches": torch.randn(1, 4, 32)}, "whole numbers are expected"),
    "a later batch": ({"batches": [tokens(), {"inputs": tokens()["input_ids"]}]}, "the model does not take this batch"),
    "text": ({"batches": "a sentence"}, "the model does not take this batch"),
    "an array": ({"batches": np.arange(4)[None]}, "give a tensor"),
    "an empty batch": ({"batches": {}}, "the model does not take this batch"),
    "memory": ({"memory": 1e-4}, r"5 tokens and 2 steps need about .* GB.* at most [1-4] tokens? fits?"),
    "a module": ({"model": nn.Linear(3, 3)}, "give a function that builds it"),
    "the optimiser's function": ({"optimiser": lambda _: None}, "must return optimisers"),
    "an optimiser of PyTorch": (
        {"optimiser": lambda model: torch.optim.AdamW(model.parameters())},
        "PyTorch's optimisers cannot change it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    settings, message = REFUSED[name]
    with pytest.raises(st.InputError, match=message):
        rehearsed(**settings)


def test_the_network_that_ends_first_says_why() -> None:
    passes = iter(range(8))  # four of each network: the first ends at step 3, the second at step 1

    def loss(output: Any) -> Any:
        return output.logits.square().mean() * (float("nan") if next(passes) in (3, 5) else 1.0)

    result = rehearsed(loss=loss, draws=2, steps=3)
    assert result.data.sizes["step"] == 1
    assert "at step 1, in the forward pass, first at loss" in result.settings["ended"]


def test_tokens_of_images_are_their_patches() -> None:
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **sizes)
    images = {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.tensor([0, 1])}
    with pytest.raises(st.InputError, match="34 tokens and 2 steps need"):
        rehearsed(config, images, cls=transformers.AutoModelForImageClassification, memory=1e-3)


@pytest.mark.parametrize("real", [False, True])
def test_a_tensor_is_a_batch(real: bool) -> None:
    assert_known(rehearsed(batches=tokens()["input_ids"], real=real))
    assert_known(rehearsed(shaped, torch.randn(1, 4, 32), real=real))
