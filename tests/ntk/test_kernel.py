"""The tangent kernel of a given model: real ones against the definition, weightless ones against their own weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats


def by_definition(model: nn.Module, outputs: Tensor, names: Callable[[str], bool] = lambda _: True) -> Floats:
    """Θ = J Jᵀ, row by row."""
    chosen = [one for name, one in model.named_parameters() if one.requires_grad and names(name)]
    rows = []
    for output in outputs.reshape(-1):
        found = torch.autograd.grad(output, chosen, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, chosen, strict=True)]
            )
        )
    jacobian = torch.stack(rows).double()
    return (jacobian @ jacobian.T).numpy()


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 2)).double()


@pytest.mark.parametrize("memory", [1.0, 2e-5, 4e-6, 1e-9])
def test_a_real_kernel_is_that_of_the_definition_whatever_the_parts(memory: float) -> None:
    model, x = small(), torch.randn(3, 3).double()
    found = st.ntk.of(model, x, memory=memory)
    np.testing.assert_allclose(found, by_definition(model, model(x)), rtol=1e-11, atol=1e-11)
    assert all(one.grad is None for one in model.parameters())


def test_modules_that_pytorch_cannot_transform_have_kernels_too() -> None:
    torch.manual_seed(0)
    model = st.ntk.module(st.shaped_transformer(16, 2, heads=2), outputs=2).double()  # with autograd functions of ours
    x = torch.randn(3, 4, 16).double()
    np.testing.assert_allclose(st.ntk.of(model, x), by_definition(model, model(x)), rtol=1e-11, atol=1e-11)


def test_patterns_choose_parameters_and_frozen_ones_do_not_count() -> None:
    model, x = small(), torch.randn(2, 3).double()
    of_weights = by_definition(model, model(x), lambda name: name.endswith("weight"))
    np.testing.assert_allclose(st.ntk.of(model, x, parameters="*.weight"), of_weights, rtol=1e-11)
    model.get_parameter("0.weight").requires_grad = False
    np.testing.assert_allclose(st.ntk.of(model, x), by_definition(model, model(x)), rtol=1e-11)


def test_outputs_are_chosen_by_number_or_function_and_modes_stay() -> None:
    model, x = nn.Sequential(small(), nn.Dropout(0.5)), torch.randn(2, 3).double()
    whole = st.ntk.of(model, x)
    assert model.training
    assert model[1].training
    np.testing.assert_allclose(st.ntk.of(model, (x,), outputs=[1]), whole[1::2, 1::2], rtol=1e-11)
    sums = st.ntk.of(model, x, outputs=lambda out: out.sum(1))
    np.testing.assert_allclose(sums, whole.reshape(2, 2, 2, 2).sum((1, 3)), rtol=1e-11)


def unseen(factory: Callable[[], nn.Module], **options: Any) -> Any:
    """A weightless model of double precision of which no matrix is drawn whole."""
    model = st.weightless.build(factory, seed=0, dtype=torch.float64, **options)
    model.weightless.ledger.whole = False
    return model.eval()


def with_weights(model: Any, factory: Callable[[], nn.Module]) -> nn.Module:
    """A real model with the weights of a weightless one, read out after all else."""
    real = factory().double().eval()
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in real.named_parameters():
            if name not in model.weightless.sources:
                parameter.copy_(values[name])
                continue
            identity = torch.eye(parameter.shape[0], dtype=torch.float64)
            parameter.copy_(model.weightless.sources[name].matrix().images("left", identity))
    return real


def network() -> nn.Module:
    return st.ntk.module(st.shaped_transformer(16, 2, heads=2), outputs=2)


class Tied(nn.Module):
    """An embedding that is used twice, with a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Linear(8, 8)
        nn.init.normal_(self.inner.weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        out: Tensor = self.norm(x + self.inner(torch.tanh(self.inner(x)))) @ self.embedding.weight.T
        return out


@pytest.mark.parametrize(
    ("factory", "x", "outputs"),
    [(network, torch.randn(3, 4, 16).double(), None), (Tied, torch.tensor([[1, 5, 1], [2, 5, 7]]), [0, 5, 7])],
)
def test_a_weightless_kernel_is_that_of_its_weights(factory: Any, x: Tensor, outputs: Any) -> None:
    model = unseen(factory)
    found = st.ntk.of(model, x, outputs=outputs)
    real = with_weights(model, factory)
    np.testing.assert_allclose(found, st.ntk.of(real, x, outputs=outputs), rtol=1e-9, atol=1e-9)
    assert all(one.grad is None for one in model.parameters())
    np.testing.assert_allclose(st.ntk.of(model, x, outputs=outputs), found, rtol=1e-9, atol=1e-9)  # the same network


def test_the_last_token_of_hugging_face_and_matrices_that_are_drawn_whole() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8, bos_token_id=1, eos_token_id=1
    )
    model = st.weightless.from_config(config, seed=0, dtype=torch.float64)
    ids = torch.tensor([[1, 5, 9, 5], [2, 5, 7, 8]])
    found = st.ntk.of(model, {"input_ids": ids}, outputs=[0, 3])
    assert found.shape == (4, 4)
    assert np.linalg.eigvalsh(found)[0] > -1e-9 * found[0, 0]
    only = st.ntk.of(model, {"input_ids": ids}, outputs=lambda out: out.logits[:, -1, [0, 3]], parameters="*wpe*")
    assert (np.diag(only) < np.diag(found)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": [2]}, "whole numbers below 2"),
        ({"outputs": []}, "whole numbers below 2"),
        ({"outputs": "ab"}, r"numbers of outputs, such as \[0, 1\], or a function"),
        ({"outputs": [0.5]}, r"numbers of outputs, such as \[0, 1\], or a function"),
        ({"outputs": lambda out: out.logits}, "or outputs= not its result: AttributeError: .* 'logits'"),
        ({"parameters": 3}, "parameters must be a pattern of names"),
        ({"outputs": lambda out: out.shape}, "outputs must return a tensor"),
        ({"outputs": lambda out: out.argmax(1)}, "outputs must be real numbers"),
        ({"parameters": "*norm*"}, "no parameter that requires gradients matches"),
        ({"memory": 0}, "memory must be a positive number"),
    ],
)
def test_wrong_options_are_one_line(options: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        st.ntk.of(small(), torch.randn(2, 3).double(), **options)


def test_what_has_no_kernel_is_refused() -> None:
    with pytest.raises(st.InputError, match=r"torch.nn.Module is expected"):
        st.ntk.of("model", torch.randn(2, 3))  # type: ignore[arg-type]
    with pytest.raises(st.InputError, match="say which outputs count"):
        st.ntk.of(nn.Linear(3, 3), torch.randn(2, 3, 3))
    for inputs in (torch.randn(2, 4), np.ones((2, 3)), [[1.0, 2.0, 3.0]], "text", {"text": torch.randn(2, 3)}, ()):
        with pytest.raises(st.InputError, match=r"does not take these inputs.*Error: .* Inputs are a tensor") as error:
            st.ntk.of(nn.Linear(3, 2), inputs)
        assert "\n" not in str(error.value)
    with pytest.raises(st.InputError, match="does not take these inputs"):
        st.ntk.of(unseen(lambda: nn.Linear(3, 2)), torch.randn(2, 4).double())
    with pytest.raises(st.InputError, match=r"not finite: the inputs, .* hold NaN"):
        st.ntk.of(nn.Linear(1, 1), torch.full((1, 1), torch.inf))
    with pytest.raises(st.InputError, match="no parameter that requires gradients"):
        st.ntk.of(nn.ReLU(), torch.randn(2, 3))
    with pytest.raises(st.InputError, match="choose from 1 to 10,000"):
        st.ntk.of(nn.Linear(1, 20000), torch.randn(1, 1))


def test_a_weightless_model_that_forgets_says_how_to_keep_what_it_met() -> None:
    x = torch.randn(1, 4, 16).double()
    with pytest.raises(st.InputError, match="history=True"):
        st.ntk.of(unseen(network, history=False), x)
    st.ntk.of(unseen(network, history=True), x)
