"""While a model is built nothing of it has memory or values, and nothing global changes."""

import copy
import resource
import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

from records import Factory, One, draw, laws, recorded, sources

import shaped_transformer as st
from shaped_transformer.weightless.recording.record import Recording

init = torch.nn.init


def auto(name: str, config: Any) -> Factory:
    return lambda: getattr(transformers, name).from_config(config)


def test_weights_become_meta_and_small_constants_stay() -> None:
    model, recordings = recorded(
        lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), torch.bfloat16
    )
    assert model[0].weight.is_meta
    assert model[0].weight.dtype == torch.bfloat16
    assert not model[1].running_var.is_meta
    assert set(recordings) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    one = recorded(lambda: One(lambda: torch.full((3,), 0.5)), torch.float32)
    assert one[0].weight.tolist() == [0.5] * 3
    assert one[1]["weight"].law((3,)).mean == 0.5
    assert torch.equal(one[1]["weight"].draw((3,), torch.float32, *sources(0)), one[0].weight)
    redrawn, _ = recorded(lambda: One(lambda: torch.zeros(3).normal_()), torch.float32)
    assert redrawn.weight.is_meta
    assert redrawn.weight.requires_grad


def test_shared_parameters_and_random_buffers_appear_once() -> None:
    def factory() -> Any:
        model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(5, 4), "head": torch.nn.Linear(4, 5, bias=False)})
        model["head"].weight = model["embedding"].weight
        model.register_buffer("noise", torch.randn(3))
        model.register_buffer("table", torch.arange(3.0))
        return model

    model, recordings = recorded(factory, torch.float32)
    assert set(recordings) == {"embedding.weight", "noise"}
    assert model["head"].weight is model["embedding"].weight
    assert model.table.tolist() == [0, 1, 2]


def test_new_data_replaces_old() -> None:
    def replaced(values: Factory, data: Factory) -> Any:
        module = One(values)
        module.weight.data = data()
        return module

    assert str(laws(lambda: replaced(lambda: torch.randn(3), lambda: torch.ones(3)))["weight"]) == "1"
    assert str(laws(lambda: replaced(lambda: torch.ones(3), lambda: torch.randn(3)))["weight"]) == "N(0, 1²)"
    copied = laws(lambda: copy.deepcopy(torch.nn.Embedding(5, 4)))
    assert str(copied["weight"]) == "N(0, 1²)"


def test_the_model_sees_ordinary_devices_unless_it_asks_for_meta() -> None:
    seen: list[Any] = []

    def factory() -> Any:
        model = One(lambda: torch.randn(3))
        seen.extend([model.weight.device.type, model.weight.is_meta, torch.empty(3, device="meta").is_meta])
        return model

    recorded(factory, torch.float32)
    assert seen == ["cpu", False, True]


def test_nothing_global_changes() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        recorded(lambda: One(lambda: torch.randperm(4) / (1 // 0)), torch.float64)
    recorded(lambda: One(lambda: init.sparse_(torch.empty(4, 4), 0.5)), torch.float64)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert not torch.empty(3).is_meta


READING: dict[str, Callable[[Any], object]] = {
    "item": lambda w: w.sum().item(),
    "float": lambda w: float(w[0, 0]),
    "bool": lambda w: bool((w > 0).all()),
    "numpy": lambda w: w.numpy(),
    "tolist": lambda w: w.tolist(),
    "equal": lambda w: torch.equal(w, w),
    "allclose": lambda w: torch.allclose(w, torch.zeros(3, 3)),
    "a mask": lambda w: w[w > 0],
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("start", [torch.randn, lambda *size: torch.zeros(*size).normal_()])
def test_reading_a_weight_is_refused(name: str, start: Callable[..., Any]) -> None:
    with pytest.raises(st.InputError, match="reads the value of a parameter"):
        recorded(lambda: One(lambda: READING[name](start(3, 3))), torch.float32)


def test_what_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(st.InputError, match="factory must be a function"):
        recorded(torch.nn.Linear(3, 3).weight, torch.float32)
    with pytest.raises(st.InputError, match=r"must return a torch\.nn\.Module, got Tensor"):
        recorded(lambda: torch.zeros(3), torch.float32)
    with pytest.raises(st.InputError, match="dtype must be one of"):
        recorded(lambda: torch.nn.Linear(3, 3), torch.int64)
    with pytest.raises(st.InputError, match="no shape yet"):
        recorded(lambda: torch.nn.LazyLinear(3), torch.float32)
    with pytest.raises(st.InputError, match="never initialised"):
        draw(lambda: torch.empty(3))
    with pytest.raises(st.InputError, match="cannot be repeated"):
        draw(lambda: torch.native_dropout(torch.ones(5) * torch.randn(5), 0.5, train=True)[0])


def test_a_large_model_is_recorded_in_seconds() -> None:
    config = transformers.LlamaConfig(
        hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8, intermediate_size=28672
    )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    model, recordings = recorded(auto("AutoModelForCausalLM", config), torch.bfloat16)
    assert time.perf_counter() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert sum(p.numel() for p in model.parameters()) > 60e9
    weight = model.model.layers[79].mlp.up_proj.weight
    assert str(recordings["model.layers.79.mlp.up_proj.weight"].law(weight.shape)) == "N(0, 0.02²)"
    assert isinstance(recordings["lm_head.weight"], Recording)
