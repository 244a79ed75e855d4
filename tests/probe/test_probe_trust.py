"""The model comes back as it was, whatever happens; what cannot be measured is refused in one clear line."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from small_models import IDS, Block, Direct, Stack, bert, gpt2, vectors
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import shaped_transformer as st
from shaped_transformer import InputError, StorageError


def state(model: nn.Module) -> Any:
    """Return all that the probe may not change."""
    return (
        [module.training for module in model.modules()],
        [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [len(one._backward_hooks or ()) for one in model.parameters()],
        [(id(one), one.requires_grad, id(one.grad)) for one in model.parameters()],
        [(id(one), one.tolist()) for one in model.buffers()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        getattr(getattr(model, "config", None), "_attn_implementation", None),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )


def used(model: Any) -> Any:
    """Return a model in the middle of its training: partly frozen, of mixed modes, with gradients."""
    model.train()
    next(model.modules()).training = False
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(i)) if i % 2 else None
    next(iter(model.parameters())).requires_grad_(requires_grad=False)
    return model


class Counting(Block):
    """A block that counts its calls in a buffer, replaces another buffer, draws numbers, and may fail."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(()))
        self.dropout, self.fail = nn.Dropout(0.5), fail

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.detach().mean()
        if self.fail:
            raise RuntimeError("out of order\nmore")
        return self.dropout(super().forward(x)) + 0 * torch.rand(())


class Breaking(torch.autograd.Function):
    """Fails in the backward pass."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *__: Tensor) -> Tensor:
        raise RuntimeError("no way back")


def failing_loss(_: Any) -> Tensor:
    raise KeyError("labels")


def test_the_model_comes_back() -> None:
    for build, batch in ((gpt2, {"input_ids": IDS}), (lambda: Stack(Counting), vectors())):
        model = used(build())
        before = state(model)
        st.probe.run(model, batch, attention=True)
        st.probe.run(model, batch, backward=False)
        assert state(model) == before


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: Stack(lambda: Counting(fail=True)), {}, "the model does not take this batch: RuntimeError: out of or"),
        (lambda: Stack(Counting, after=Breaking.apply), {}, "the backward pass fails: RuntimeError: no way back"),
        (lambda: Stack(Counting), {"loss": failing_loss}, "no loss can be computed from the model's output: KeyError"),
        (lambda: Stack(Counting), {"loss": lambda y: y}, r"the loss must be a tensor with one number \(got tensor"),
        (lambda: Stack(Counting), {"loss": lambda _: 1.0}, r"the loss must be a tensor with one number \(got 1.0\)"),
        (lambda: Stack(Counting), {"layers": "block.*"}, "no module is named 'block.\\*': the modules are first, lay"),
        (lambda: Stack(Counting), {"layers": []}, "layers"),
        (lambda: Stack(Counting), {"max_tokens": 0}, "max_tokens"),
        (lambda: Stack(Counting), {"seed": -1}, "seed"),
        (lambda: Stack(lambda: Block(lambda _: 3)), {}, "layers.0 returns no floating-point tensor"),
        (lambda: Stack(lambda: Block(lambda x: (x > 0,))), {}, "layers.0 returns no floating-point tensor"),
        (lambda: Stack(lambda: Block(lambda x: x[0, 0])), {}, r"layers.0 gives a tensor of shape \(8,\); expected \(b"),
        (lambda: Stack(lambda: Block(lambda x: x[:, :0])), {}, r"layers.0 gives a tensor of shape \(2, 0, 8\)"),
        (Stack, {"layers": "layer.*"}, r"no module is named 'layer\.\*': the modules are first, layers, layers\.\*, "),
        (Stack, {"layers": []}, r"layers must be a glob of names such as .* \(got \[\]\)"),
        (Stack, {"layers": 3}, r"layers must be a glob of names such as .* \(got 3\)"),
        (lambda: nn.Linear(8, 8), {}, "no list of blocks was found in the model: name the modules .*; the modules are"),
        (lambda: nn.Sequential(nn.Linear(8, 8)), {}, "no list of blocks was found in the model"),
    ],
)
def test_one_clear_line_and_nothing_left_behind(model: Callable[[], Any], options: Any, message: str) -> None:
    one = used(model())
    before = state(one)
    with pytest.raises(InputError, match=message) as error:
        st.probe.run(one, vectors(), **options)
    assert "\n" not in str(error.value)
    assert state(one) == before


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"inputs": IDS}, "the model does not take this batch: ValueError: You have to specify"),
        ({"input_ids": IDS + 1000}, "the model does not take this batch: IndexError"),
        ({"input_ids": IDS[:, :0]}, "0"),
        ({"input_ids": IDS.expand(20, 2, 6)[:, 0].repeat(1, 10)}, "the model does not take this batch"),
        ({}, "the model does not take this batch"),
        ("a sentence", r"the model does not take this batch \(str\): give a tensor"),
        (None, r"the model does not take this batch \(NoneType\): give a tensor"),
        ([[1, 2], [3]], r"the model does not take this batch \(list of list\): .*; pad sequences to one tensor"),
        ({"input_ids": [[1, 2]]}, r"the model does not take this batch \(dict of list\): give a tensor"),
        (IDS.numpy(), r"the model does not take this batch \(ndarray\): give a tensor"),
        ({"input_ids": IDS, "attention_mask": torch.zeros_like(IDS)}, "sequence 0 of the batch is nothing but padding"),
    ],
)
def test_batches_that_a_model_does_not_take(batch: Any, message: str) -> None:
    model = used(gpt2())
    before = state(model)
    with pytest.raises(InputError, match=message) as error:
        st.probe.run(model, batch)
    assert "\n" not in str(error.value)
    assert state(model) == before


def test_images_between_convolutions_are_no_tokens() -> None:
    model = Direct(lambda: nn.Conv2d(3, 3, 3))
    with pytest.raises(InputError, match=r"layers.0 gives a tensor of shape \(1, 3, 7, 7\); expected \(batch, tokens"):
        st.probe.run(model, torch.randn(1, 3, 9, 9))


def test_what_is_no_model_or_has_no_weights() -> None:
    with pytest.raises(InputError, match="model must be a PyTorch module"):
        st.probe.run("gpt2", vectors())  # type: ignore[arg-type]
    with torch.device("meta"):
        model = Stack()
    with pytest.raises(InputError, match=r"no weights \(it is on the meta device\): use st.probe.expected"):
        st.probe.run(model, vectors())


def test_a_model_compiled_in_place_is_refused() -> None:
    model = Stack()
    model._compiled_call_impl = lambda *_: None  # what model.compile() leaves
    with pytest.raises(InputError, match=r"hooks do not run then: probe it before model.compile\(\)"):
        st.probe.run(model, vectors())


def test_layers_that_are_never_called() -> None:
    model = Stack()
    model.spare = nn.ModuleList([nn.Linear(8, 8)])
    with pytest.raises(InputError, match="no observed layer was called: choose other layers"):
        st.probe.run(model, vectors(), layers="spare.*")


def test_the_first_infinite_layer_is_named() -> None:
    for value in (float("nan"), float("inf")):
        model = gpt2()
        with torch.no_grad():
            model.transformer.h[1].mlp.c_proj.bias[3] = value
        result = st.probe.run(model, {"input_ids": IDS})
        assert result.settings["not_finite"] == "transformer.h.1"
        assert result.settings["gradient"] == "the loss is infinite or undefined"
        assert result.layers == ["transformer.h.input", "transformer.h.0"]
        assert all(np.isfinite(one.values).all() for one in result.data.values() if one.dtype.kind == "f")
        json.dumps(dict(result.settings), allow_nan=False)


def test_an_infinite_gradient_is_named() -> None:
    torch.manual_seed(0)
    model = Stack(after=lambda x: x + 0 * x.sum((1, 2), keepdim=True).sub(x.sum((1, 2), keepdim=True)).sqrt())
    result = st.probe.run(model, vectors())
    assert result.settings["not_finite"] is None
    assert result.settings["gradient"].startswith("the gradient is infinite or undefined, first at layers.")
    assert "gradient_norm" not in result.data


def test_an_infinite_batch() -> None:
    with pytest.raises(InputError, match=r"layers.input: tokens are infinite or undefined from the start: look at the"):
        st.probe.run(Direct(), torch.full((2, 5, 8), float("nan")))


def test_a_loss_that_has_no_gradient() -> None:
    result = st.probe.run(gpt2(), {"input_ids": IDS}, loss=lambda output: output.logits.detach().mean())
    assert result.settings["gradient"] == "no gradient comes to transformer.h.input"
    half = st.probe.run(Stack(after=Tensor.detach), vectors())
    assert half.settings["gradient"].startswith("no gradient comes to layers.")


def test_tokens_that_vanish() -> None:
    model = Stack(lambda: Block(lambda x: 0 * x))
    result = st.probe.run(model, vectors())
    assert all(np.isfinite(one.values).all() for one in result.data.values() if one.dtype.kind == "f")
    assert result.mean("token_norm")[1:].tolist() == [0, 0, 0]


def test_a_single_token() -> None:
    result = st.probe.run(gpt2(), {"input_ids": IDS[:1, :1]}, attention=True)
    assert all(np.isfinite(one.values).all() for one in result.data.values() if one.dtype.kind == "f")


def test_a_result_is_saved_whole(tmp_path: Path) -> None:
    result = st.probe.run(bert(), {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}, attention=True)
    for _ in range(2):  # also over an earlier one
        result.save(tmp_path / "result")
    loaded = st.probe.ProbeResult.load(tmp_path / "result")
    assert loaded.data.equals(result.data)
    assert loaded.settings == result.settings
    assert [one.name for one in tmp_path.iterdir() if not one.name.endswith(".lock")] == ["result"]


def test_an_expectation_is_saved_whole(tmp_path: Path) -> None:
    expectation = st.probe.expected(gpt2(), {"input_ids": IDS}, draws=3)
    expectation.save(tmp_path / "expectation")
    loaded = st.probe.Expectation.load(tmp_path / "expectation")
    assert loaded.data.equals(expectation.data)
    assert loaded.settings == expectation.settings
    with pytest.raises(StorageError, match="holds something else: a probe is expected"):
        st.probe.ProbeResult.load(tmp_path / "expectation")


def test_damaged_stores(tmp_path: Path) -> None:
    st.probe.run(Stack(), vectors()).save(tmp_path / "result")
    attributes = tmp_path / "result" / ".zattrs"
    whole = attributes.read_text()
    for damage in ('{"kind": "probe"}', '{"kind": "probe", "settings": 3}', '{"kind": "probe", "settings": "{"}', "{"):
        attributes.write_text(damage)
        (tmp_path / "result" / ".zmetadata").unlink(missing_ok=True)
        with pytest.raises(StorageError):
            st.probe.ProbeResult.load(tmp_path / "result")
    attributes.write_text(whole)
    with pytest.raises(StorageError):
        st.probe.ProbeResult.load(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("mine")
    with pytest.raises(StorageError, match="exists and is not the result of a probe"):
        st.probe.run(Stack(), vectors()).save(tmp_path / "other")
    assert (tmp_path / "other" / "precious").read_text() == "mine"


def test_the_first_draws_stay_the_same() -> None:
    few, many = (st.probe.expected(gpt2(), {"input_ids": IDS}, draws=draws) for draws in (2, 4))
    assert many.data.isel(draw=slice(2)).equals(few.data)
    other = st.probe.expected(gpt2(), {"input_ids": IDS}, draws=2, seed=1)
    assert not other.data.equals(few.data)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_numbers() -> None:
    distributed = pytest.importorskip("distributed")
    alone = st.probe.expected(lambda: Stack(Counting), vectors(), draws=6)
    gpt = st.probe.expected(gpt2(), {"input_ids": IDS}, draws=6)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        options: dict[str, Any] = {"draws": 6, "client": client}
        assert st.probe.expected(lambda: Stack(Counting), vectors(), **options).data.equals(alone.data)
        assert st.probe.expected(gpt2(), {"input_ids": IDS}, **options).data.equals(gpt.data)
        with pytest.raises(InputError, match="the model does not take this batch"):
            st.probe.expected(gpt2(), {"inputs": IDS}, **options)


def test_a_comparison_with_something_else_is_refused() -> None:
    result = st.probe.run(Stack(), vectors())
    with pytest.raises(InputError, match=r"compare takes what st.probe.expected returned \(got ProbeResult\)"):
        result.compare(result)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 sequences of at most 5 tokens, the expectation 2 sequences of at most 4"):
        result.compare(st.probe.expected(Stack, vectors(tokens=4), 3))
    with pytest.raises(InputError, match="2 sequences of at most 5 tokens, the expectation 1 sequence of at most 5"):
        result.compare(st.probe.expected(Stack, vectors(batch=1), 3))


def test_the_band_of_a_number_that_is_always_zero_is_zero() -> None:
    batch = {"input_ids": IDS[:1, :1]}
    found = st.probe.run(gpt2(), batch).compare(st.probe.expected(gpt2(), batch, 3)).bands["mean_absolute_correlation"]
    assert (found.value.max(), found.low.max(), found.high.max()) == (0, 0, 0)
    assert found.inside.all()


def test_an_expectation_says_whose_initialisation_it_is() -> None:
    from shaped_transformer import hf

    config = hf.ShapedTransformerConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    batch = {"input_ids": IDS % 50}
    own = st.probe.expected(config, batch, 2)
    assert own.settings["label"] == "as Shaped Transformer initialises it"
    assert st.probe.expected(gpt2(), {"input_ids": IDS}, 2).settings["label"] == "as transformers initialises it"
    assert st.probe.expected(Stack, vectors(), 2).settings["label"] == "as its own code initialises it"


def test_attention_that_returns_no_weights_is_said() -> None:
    assert st.probe.run(Stack(), vectors(), attention=True).settings["attention"] == (
        "the model's own, which returns no weights"
    )
    assert st.probe.run(Stack(), vectors()).settings["attention"] == "the model's own"


def test_a_quantised_model_is_observed() -> None:
    torch.manual_seed(0)
    model, x = Stack().eval(), torch.randn(2, 5, 8)
    wanted = st.probe.run(model, x, backward=False)
    with warnings.catch_warnings(action="ignore"):
        smaller = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    assert any("quantized" in type(one).__module__ for one in smaller.modules())
    got = st.probe.run(smaller, x, backward=False)
    assert got.mean("token_norm") == pytest.approx(wanted.mean("token_norm"), rel=0.02)


def test_a_sharded_model_is_refused(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(st.InputError, match="sharded over processes"):
            st.probe.run(model, torch.randn(2, 5, 16), layers="*")
    finally:
        torch.distributed.destroy_process_group()
