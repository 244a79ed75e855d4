"""A rehearsal measures what real training from the same weights would: those that the model turns out to have had."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn
from transformers.utils import logging
from twins import initial, parameters, twin

import shaped_transformer as st
from shaped_transformer.rehearse.updates import initial_norm
from shaped_transformer.weightless.optimisers.muon import newton_schulz

logging.set_verbosity_error()  # type: ignore[no-untyped-call]

IDS = torch.tensor([[3, 40, 3, 71, 9]])
TOKENS = {"input_ids": IDS, "labels": IDS}
OFF: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)


def gpt2() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 80, "n_positions": 8, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(initializer_range=0.1, **sizes, **OFF))


def llama() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(initializer_range=0.1, **sizes, **heads))


def shaped() -> nn.Module:
    return st.nn.ShapedTransformer(width=32, depth=2, heads=2, gamma=0.5)


# so large an ε that signs of gradients which are rounding errors do not matter
ADAMW: dict[str, Any] = {"lr": 3e-3, "options": {"eps": 1e-3, "betas": (0.8, 0.9)}, "weight_decay": 0.5}
CASES: dict[str, tuple[Callable[[], Any], Any, dict[str, Any]]] = {
    "GPT-2": (gpt2, TOKENS, ADAMW | {"warmup": 2, "clip": 1.0}),
    "Llama": (llama, TOKENS, ADAMW),
    "Llama, new tokens": (llama, [TOKENS, {"input_ids": 79 - IDS, "labels": IDS}], ADAMW),
    "shaped": (shaped, torch.linspace(-1, 1, 160).reshape(1, 5, 32).tan(), ADAMW | {"groups": st.nn.parameter_groups}),
    "Muon": (llama, TOKENS, {"optimiser": "muon", "lr": 3e-3, "warmup": 2}),
    "descent": (
        llama,
        TOKENS,
        {"optimiser": "sgd", "lr": 0.05, "options": {"momentum": 0.9, "nesterov": True}, "clip": 2.0},
    ),
}


def both(name: str, factor: float = 1.0) -> tuple[Any, Any]:
    """Return what is measured without weights, and of the real network that it was, at `factor` times the rate."""
    factory, batches, settings = CASES[name]
    built: list[Any] = []

    def noted() -> Any:
        built.append(factory())
        return built[-1]

    ours = st.rehearse.run(noted, batches, seed=1, **settings).data
    (model,) = built
    unseen = parameters(model)
    before = {one: p.detach() for one, p in factory().named_parameters() if one not in unseen}  # zeros and ones
    real = twin(model, factory, initial, **before)
    norms = {one: p.detach().norm().item() for one, p in real.named_parameters()}
    theirs = st.rehearse.run(lambda: real, batches, real=True, **(settings | {"lr": factor * settings["lr"]})).data
    assert len(unseen) >= 5
    usual = {one: initial_norm(p.source.parts()[0]) for one, p in unseen.items() if p.source.parts()}
    ratios = [norms[one] / usual[one] if one in usual else 1.0 for one in map(str, ours.weight.values)]
    theirs = theirs.sel(weight=ours.weight)
    theirs["weight_update"] = theirs["weight_update"] * np.array(ratios)  # of ours, the usual norm is known
    return ours, theirs


def differences(ours: Any, theirs: Any) -> dict[str, float]:
    """Return the largest differences of each kind of number, relative to the largest number."""
    assert set(ours) == set(theirs)
    found = {}
    for name in ours:
        a, b = ours[name].values, theirs[name].values
        assert (np.isnan(a) == np.isnan(b)).all(), name
        found[str(name)] = float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b)))
    return found


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch's Muon iterate in double precision."""
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", newton_schulz)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_the_real_network(name: str) -> None:
    found = differences(*both(name))
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("name", CASES)
def test_a_rate_one_percent_off_is_seen_in_numbers(name: str) -> None:
    found = differences(*both(name, 1.01))
    changed = ("loss", "stream_change", "branch_change", "output_change", "weight_update", "effective_update")
    assert all(found[one] > 2e-4 for one in changed), found
