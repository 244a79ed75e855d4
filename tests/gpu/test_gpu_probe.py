"""On a GPU the probe measures what it measures on the CPU; weightless models say that they compute on CPUs."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
xarray = pytest.importorskip("xarray")

import shaped_transformer as st
from shaped_transformer.errors import InputError

from .device import DEVICE

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # the libraries use deprecated functions

OFF = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
GPT2 = transformers.GPT2Config(vocab_size=300, n_positions=32, n_embd=32, n_layer=3, n_head=4, **OFF)
LLAMA = transformers.LlamaConfig(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    num_key_value_heads=2,
)
IDS = torch.tensor([[5, 17, 5, 200, 17, 42], [7, 42, 9, 5, 11, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
CASES: dict[str, Any] = {
    "gpt2": (lambda: transformers.GPT2LMHeadModel(GPT2), {"input_ids": IDS, "attention_mask": MASK}),
    "llama": (lambda: transformers.LlamaForCausalLM(LLAMA), {"input_ids": IDS, "labels": IDS}),
    "shaped": (
        lambda: st.nn.ShapedTransformer(32, 3, 4, causal=True),
        torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(3)),
    ),
}


def moved(batch: Any) -> Any:
    return batch.to(DEVICE) if torch.is_tensor(batch) else {name: x.to(DEVICE) for name, x in batch.items()}


def seeded(name: str) -> tuple[Any, Any]:
    """Return a model on the CPU, and a batch for it."""
    torch.manual_seed(0)
    build, batch = CASES[name]
    return build().eval(), batch


def in_double(batch: Any) -> Any:
    return batch.double() if torch.is_tensor(batch) else batch


@pytest.mark.parametrize(
    ("name", "double"),  # Llama's norms and positions are in 32 bits whatever its weights are
    [(name, double) for name in CASES for double in (True, False) if not (double and name == "llama")],
)
def test_the_dataset_is_that_of_the_cpu(name: str, double: bool) -> None:
    model, batch = seeded(name)
    if double:
        model, batch = model.double(), in_double(batch)
    options: dict[str, Any] = {"attention": name != "shaped"}
    usual = st.probe.run(model, batch, **options)
    found = st.probe.run(copy.deepcopy(model).to(DEVICE), moved(batch), **options)
    assert found.settings["gradient"] == usual.settings["gradient"] == "measured"
    tolerance = {"rtol": 1e-7, "atol": 1e-9} if double else {"rtol": 2e-3, "atol": 1e-4}
    xarray.testing.assert_allclose(found.data, usual.data, **tolerance)


def test_the_model_comes_back_as_it_was() -> None:
    """Its mode and gradients, and the state of the GPU's generator."""
    model, batch = seeded("gpt2")
    model = model.to(DEVICE).train()
    state = torch.cuda.get_rng_state()
    st.probe.run(model, moved(batch))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_a_model_of_16_bits_is_measured() -> None:
    model, batch = seeded("llama")
    usual = st.probe.run(model, batch).mean("effective_rank")
    found = st.probe.run(model.to(DEVICE, torch.bfloat16), moved(batch)).mean("effective_rank")
    np.testing.assert_allclose(np.asarray(found), np.asarray(usual), rtol=0.1)


def test_a_batch_on_the_cpu_is_refused_in_one_line() -> None:
    model, batch = seeded("gpt2")
    with pytest.raises(InputError, match=r"the model does not take this batch: .*device"):
        st.probe.run(model.to(DEVICE), batch)


def test_a_history_moves_its_batch_to_the_model() -> None:
    model, batch = seeded("gpt2")
    model = model.to(DEVICE)
    callback = st.probe.callback(batch, every=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model(**moved(batch), labels=moved(batch)["input_ids"]).loss.backward()
    with callback.history.step(model, 0):
        optimiser.step()
    assert float(callback.history.data.weight_update.min()) > 0


def weightless() -> Any:
    return st.weightless.build(lambda: st.nn.ShapedTransformer(64, 2, 4, causal=True))


def test_a_weightless_model_does_not_move_to_a_gpu() -> None:
    with pytest.raises(InputError, match=r"computes on the CPU and cannot be moved or converted to cuda"):
        weightless().to(DEVICE)


def test_a_weightless_model_refuses_tokens_on_a_gpu() -> None:
    with pytest.raises(InputError, match=r"dense vectors on the CPU are expected \(got .* on cuda"):
        weightless()(torch.randn(1, 4, 64, device=DEVICE))


def test_a_weightless_model_computes_on_the_cpu_of_a_machine_with_a_gpu() -> None:
    model, x = weightless(), torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
    out = model(x)
    out.square().mean().backward()
    assert out.device.type == "cpu"
    assert all(norm > 0 for norm in st.weightless.gradient_norms(model).values())
