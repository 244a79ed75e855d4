"""What a weightless model cannot do is one clear error: the parameter, what was asked, and the way out."""

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from twins import Parametrised

import shaped_transformer as st
from shaped_transformer import InputError

SIZE = (300, 400)
X = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))


def linear(function: Any = lambda w, x: functional.linear(x, w), size: tuple[int, ...] = SIZE) -> Any:
    return st.weightless.build(lambda: Parametrised(size, function))


def passed() -> Any:
    model = linear()
    model(X).square().sum().backward()
    return model


def normal(module: Any) -> Any:
    for one in module.parameters():
        nn.init.normal_(one, std=0.1)
    return module


def gaussian(layer: Any, *sizes: int, **options: Any) -> Any:
    return normal(layer(*sizes, **options))


READING: dict[str, Callable[[Any], object]] = {
    "sum": lambda w: w.sum(),
    "mean": lambda w: w.mean(),
    "item": lambda w: w.item(),
    "tolist": lambda w: w.tolist(),
    "numpy": lambda w: w.numpy(),
    "__array__": lambda w: np.asarray(w),
    "gt": lambda w: w > 0,
    "__eq__": lambda w: w == 0,
    "norm": lambda w: w.norm(),
    "linalg_norm": lambda w: torch.linalg.norm(w),
    "abs": lambda w: w.abs().max() > 1,
    "__float__": float,
    "__bool__": bool,
    "isnan": lambda w: torch.isnan(w).any(),
    "normalize": lambda w: functional.normalize(w, dim=-1),
    "softmax": lambda w: w.softmax(-1),
    "clone": lambda w: w.clone(),
    "view": lambda w: w.view(-1),
    "reshape": lambda w: w.reshape(-1),
    "mul_": lambda w: w.mul_(2),
    "__setitem__": lambda w: w.__setitem__(0, 0.0),
    "normal_": nn.init.normal_,
    "unbind": list,
    "linalg_svd": torch.linalg.svd,
    "data_ptr": lambda w: w.data_ptr(),
    "its product with weight": lambda w: w.T @ w,
    "linear": lambda w: functional.linear(w, X),
    "bilinear": lambda w: functional.bilinear(X, X, w),
    "embedding_bag": lambda w: functional.embedding_bag(torch.tensor([[1, 2]]), w),
    "conv_transpose2d": lambda w: functional.conv_transpose2d(X[None, None], w),
}


@pytest.mark.parametrize("what", READING)
def test_values_are_refused(what: str) -> None:
    model = linear()
    with pytest.raises(InputError) as caught:
        READING[what](model.weight)
    text = str(caught.value)
    if what.endswith("_") and not what.startswith("_"):
        assert f"weight: {what!r} cannot set the values" in text
        return
    assert f"asks for {what}" in text.replace("'", "")
    assert "weight (300, 400)" in text
    assert "can only be multiplied with vectors" in text
    assert "run such a model with real weights" in text


def test_a_model_that_decides_by_a_value() -> None:
    def doubled(w: Any, x: Any) -> Any:
        return functional.linear(2 * x if w.abs().max() > 1 else x, w)

    with pytest.raises(InputError, match="asks for 'abs' of the parameter weight"):
        linear(doubled)(X)

    class AtBuilding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(SIZE))
            if self.weight.abs().max() > 1:
                self.weight.data.mul_(0.5)

    with pytest.raises(InputError, match="reads the value of a parameter while the model is built"):
        st.weightless.build(AtBuilding)


def test_what_only_asks_for_shape_and_name_works() -> None:
    model = linear()
    w = model.weight
    assert str(w) == repr(w) == f"{w}" == "<weightless weight weight (300, 400): N(0, 0.3²)>"
    assert f"{w:>60}".endswith("0.3²)>")
    assert (w.shape, w.ndim, w.numel(), len(w), w.dtype, w.device.type) == (SIZE, 2, 120_000, 300, torch.float32, "cpu")
    assert w in list(model.parameters())
    assert {w: 1}[w] == 1
    assert str(model) == "Parametrised()"
    grad = passed().weight.grad
    assert str(grad) == f"{grad}" == "<weightless gradient weight (300, 400): N(0, 0.3²)>"
    assert grad.shape == SIZE


GRADIENT: dict[str, Callable[[Any], object]] = {
    "norm": lambda g: g.norm(),
    "mul_": lambda g: g.mul_(0.5),
    "clone": lambda g: g.clone(),
    "detach": lambda g: g.detach(),
    "sum": lambda g: g.sum(),
    "T": lambda g: X @ g.T,
    "__getitem__": lambda g: g[0],
    "linear": lambda g: functional.linear(X, g),
    "chunk": lambda g: g.chunk(2),
    "add": lambda g: g + 1,
    "zero_": lambda g: g.zero_(),
}


@pytest.mark.parametrize("what", GRADIENT)
def test_a_gradient_has_no_values_and_is_no_weight(what: str) -> None:
    with pytest.raises(InputError, match=f"its gradient is never formed, so '{what}' cannot be computed: use st"):
        GRADIENT[what](passed().weight.grad)


def test_the_gradient_of_a_parameter_is_not_asked_of_pytorch() -> None:
    model = passed()
    with pytest.raises(InputError, match=r"weight: its gradient is never formed.*st\.weightless\.clip_grad_norm_"):
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    with pytest.raises(InputError, match=r"weight: torch.autograd.grad cannot return its gradient.*gradient_norms"):
        torch.autograd.grad(model(X).sum(), list(model.parameters()))
    with pytest.raises(InputError, match="can only be set to None"):
        model.weight.grad = torch.zeros(SIZE)
    model.zero_grad()
    assert model.weight.grad is None
    assert st.weightless.gradient_norms(model) == {}


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
def test_pytorchs_optimisers_are_refused(optimiser: Any) -> None:
    with pytest.raises(InputError, match=r"weight is weightless.*use st\.weightless\.SGD\(model, lr=\.\.\.\)"):
        optimiser(linear().parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_second_derivatives_are_refused() -> None:
    message = "weight: second derivatives of a weightless model are not supported.*without create_graph=True"
    x = X.clone().requires_grad_()
    with pytest.raises(InputError, match=message):
        linear()(x).square().sum().backward(create_graph=True)
    with pytest.raises(InputError, match=message):
        torch.autograd.grad(linear()(x).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match=message):
        st.weightless.build(lambda: nn.Embedding(40, 30))(torch.tensor([1])).square().sum().backward(create_graph=True)
    assert torch.autograd.grad(linear()(x).square().sum(), x)[0].shape == (2, 400)


def test_transforms_of_functions_are_refused() -> None:
    model = linear()
    func: Any = torch.func
    for transform in (func.vmap, func.jacrev, lambda one: func.grad(lambda x: one(x).sum())):
        with pytest.raises(InputError, match=r"torch\.func and vmap do not work with a weightless model"):
            transform(model)(X)
    call_with: Any = torch.func.functional_call
    torch.testing.assert_close(call_with(model, dict(model.named_parameters()), (X,)), model(X))


def test_saving_and_copying_are_refused(tmp_path: Path) -> None:
    model = linear()
    for call in (
        model.state_dict,
        lambda: torch.save(model, io.BytesIO()),
        lambda: copy.deepcopy(model),
        lambda: pickle.dumps(model),
        lambda: model.weight.detach(),
        lambda: model.weight.data,
    ):
        with pytest.raises(
            InputError, match=r"weight: a weightless model cannot be .*build another one of the same distribution"
        ):
            call()
    gpt = small_gpt()
    with pytest.raises(InputError, match=r"transformer.wte.weight: a weightless model cannot be saved"):
        gpt.save_pretrained(tmp_path)


MOVES: dict[str, Callable[[Any], object]] = {
    "cuda": lambda m: m.to("cuda"),
    "cuda ": lambda m: m.cuda(),
    "meta": lambda m: m.to(torch.device("meta")),
    "torch.float16": lambda m: m.half(),
    "torch.float64": lambda m: m.double(),
    "torch.bfloat16": lambda m: m.to(torch.bfloat16),
    "torch.bfloat16 ": lambda m: m.bfloat16(),
}


@pytest.mark.parametrize("where", MOVES)
def test_other_devices_and_types_are_refused(where: str) -> None:
    with pytest.raises(InputError, match=f"cannot be moved or converted to {where.strip()}: give dtype="):
        MOVES[where](linear())


@pytest.mark.parametrize("before", [linear, passed])
def test_conversions_to_what_it_is_change_nothing(before: Callable[[], Any]) -> None:
    model = before()
    w, norms = model.weight, st.weightless.gradient_norms(model)
    assert model.float().cpu().to(torch.float32).to("cpu").to("cpu", torch.float32).to(X) is model
    assert model.weight is w
    assert st.weightless.gradient_norms(model) == norms
    double = st.weightless.build(lambda: Parametrised(SIZE, torch.matmul), dtype=torch.float64)
    assert double.double() is double


def reparametrised(wrap: Callable[[Any], Any]) -> Any:
    return st.weightless.build(lambda: wrap(normal(nn.Linear(400, 300))))(X)


def test_weights_computed_from_weights_are_refused() -> None:
    for wrap in (parametrizations.spectral_norm, parametrizations.weight_norm):
        with pytest.raises(InputError, match=r"is computed from the random values of parametrizations\.weight\.orig"):
            reparametrised(wrap)
        with pytest.raises(InputError, match=r"asks for .* of the parameter weight"):
            wrap(linear())


def test_recurrent_layers_are_refused_unless_they_are_small() -> None:
    for layer, name in ((nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.LSTMCell, "lstm_cell")):
        with pytest.raises(InputError, match=f"asks for '{name}' of the parameter weight_ih"):
            st.weightless.build(partial(gaussian, layer, 400, 300))(X)
    assert st.weightless.build(lambda: nn.GRU(40, 30))(X[:, :40])[0].shape == (2, 30)


def test_embedding_bags_and_renormalised_embeddings_are_refused() -> None:
    with pytest.raises(InputError, match="'embedding_bag' of the parameter weight"):
        st.weightless.build(lambda: nn.EmbeddingBag(400, 300))(torch.tensor([[1, 2]]))
    with pytest.raises(
        InputError, match="weight: 'embedding' works without weights only as an embedding without max_norm"
    ):
        st.weightless.build(lambda: nn.Embedding(400, 300, max_norm=1.0))(torch.tensor([[1, 2]]))


def test_convolutions_of_other_kinds_are_refused() -> None:
    images = torch.zeros(1, 30, 8, 8)
    choices: list[dict[str, Any]] = [{"groups": 30}, {"padding": "same"}]
    for options in choices:
        with pytest.raises(
            InputError, match=r"weight: 'conv2d' works without weights only as .* a convolution of one group"
        ):
            st.weightless.build(partial(gaussian, nn.Conv2d, 30, 30, 3, bias=False, **options))(images)
    model = st.weightless.build(lambda: normal(nn.Conv2d(30, 30, 3)))
    with pytest.raises(InputError, match=r"weight: inputs with 30 channels and 2 more axes are expected \(got \(1, 3"):
        model(images[:, :3])
    with pytest.raises(InputError, match=r"weight: the input \(1, 30, 2, 2\) is smaller than the kernel"):
        model(images[..., :2, :2])
    with pytest.raises(InputError, match=r"weight has torch.float32, but met vectors of torch.float64"):
        model(images.double())


def test_other_distributions() -> None:
    with pytest.raises(InputError, match=r"weight \(400, 300\).*uniform on .*Give approximate=True"):
        st.weightless.build(lambda: nn.Linear(300, 400))
    assert st.weightless.build(lambda: nn.Linear(30, 40))(X[:, :30]).shape == (2, 40)

    def large() -> Any:
        model = Parametrised(SIZE, torch.matmul)
        nn.init.sparse_(model.weight, 0.5)
        return model

    with pytest.raises(InputError, match=r"0.00048 GB, more than the limit of 0.0001 GB: weight .* larger memory="):
        st.weightless.build(large, memory=1e-4)
    assert str(st.weightless.laws(st.weightless.build(large))[0].treatment) == "drawn"


INPUTS: dict[str, tuple[Any, str]] = {
    "width": (torch.zeros(2, 300), r"weight: vectors of length 400 are expected \(got 300\)"),
    "double": (X.double(), r"weight has torch.float32, but met vectors of torch.float64: give dtype="),
    "whole numbers": (X.long(), "met vectors of torch.int64"),
    "half": (X.half(), "met vectors of torch.float16"),
    "complex": (X + 0j, "met vectors of torch.complex64"),
    "no axes": (torch.tensor(1.0), r"weight: dense vectors on the CPU are expected \(got \(\) on cpu"),
    "meta": (X.to("meta"), "dense vectors on the CPU are expected"),
    "sparse": (X.to_sparse(), "dense vectors on the CPU are expected"),
    "undefined": (X * torch.nan, "weight met vectors with infinite or undefined entries: the model overflows there"),
    "infinite": (X * torch.inf, "weight met vectors with infinite or undefined entries"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_do_not_fit(name: str) -> None:
    x, message = INPUTS[name]
    model = linear()
    with pytest.raises(InputError, match=message):
        model(x)
    assert model(X).shape == (2, 300)
    assert linear()(X[:0]).shape == (0, 300)


def test_undefined_gradients_are_refused_with_the_weight_that_meets_them() -> None:
    model = linear()
    with pytest.raises(InputError, match="weight met vectors with infinite or undefined entries"):
        (model(X.clone().requires_grad_()).sum() * torch.inf).backward()


def test_an_undefined_gradient_has_an_undefined_norm() -> None:
    model = linear()
    (model(X).sum() * torch.inf).backward()
    assert np.isnan(st.weightless.gradient_norms(model)["weight"])


def test_tokens_that_do_not_fit() -> None:
    table = st.weightless.build(lambda: nn.Embedding(400, 300))
    for ids in (torch.tensor([3, 400]), torch.tensor([-1])):
        with pytest.raises(InputError, match="weight: tokens or positions from 0 to 399 are expected"):
            table(ids)
    for number in (400, -401, torch.tensor([400])):
        with pytest.raises(InputError, match="weight: tokens or positions from 0 to 399 are expected"):
            table.weight[number]
    torch.testing.assert_close(table.weight[torch.tensor([-1])], table(torch.tensor([399])))
    for ids in (torch.tensor([1.0]), torch.tensor([True])):
        with pytest.raises(InputError, match="weight: whole numbers are expected for a look-up"):
            table(ids)
    assert table(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 300)


def small_gpt() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16, bos_token_id=1)
    config.eos_token_id = 2
    return st.weightless.from_config(config)


def test_more_tokens_than_positions() -> None:
    model = small_gpt()
    with pytest.raises(
        InputError, match=r"transformer.wpe.weight: tokens or positions from 0 to 15.*shorter sequences"
    ):
        model(torch.arange(20)[None])
    assert model(torch.arange(16)[None]).logits.shape == (1, 16, 50)


def test_a_model_without_parameters() -> None:
    model = st.weightless.build(nn.ReLU)
    assert model(X).shape == X.shape
    assert st.weightless.gradient_norms(model) == {}
    assert len(st.weightless.laws(model)) == 0
    st.weightless.redraw(model, 1)
    st.weightless.SGD(model, 0.1).step()
    assert st.weightless.clip_grad_norm_(model, 1.0) == 0


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(InputError, match="autocast does not work"):
        linear()(X)


def test_stacks_and_axes() -> None:
    stack = linear(size=(3, 40, 50)).weight
    with pytest.raises(InputError, match=r"weight: a matrix from 0 to 2 is expected \(got 3\)"):
        stack[3]
    with pytest.raises(InputError, match="asks for 'transpose' of the parameter weight"):
        stack.transpose(0, 1)
    assert (X[:, :50] @ stack[0].T).shape == (2, 40)
    with pytest.raises(InputError, match="the model uses it as matrices of different shapes"):
        torch.einsum("sd,dab->sab", X[:, :3], stack)
