"""What the probe measures, beside the same numbers computed directly from hidden states and their gradients."""

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from small_models import IDS, Block, Checkpointed, Direct, Overwriting, Stack, albert, bert, gpt2, llama, t5, vectors
from torch import Tensor, nn

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats
from shaped_transformer.probe.attention import attention_row
from shaped_transformer.probe.verdict import judge

LOSS: Any = lambda output: output.logits.square().mean()  # noqa: E731


def gram(x: Tensor) -> Floats:
    x = x.detach().double()
    return np.asarray((x @ x.mT / x.shape[-1]).numpy())


def same(got: Any, wanted: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("build", [gpt2, bert, llama])
def test_numbers_are_those_of_the_hidden_states(build: Any) -> None:
    model = build()
    result = st.probe.run(model, {"input_ids": IDS}, loss=LOSS)
    names = ["input", "0", "1", "2"]
    assert [name.rpartition(".")[2] for name in result.layers] == names
    states: list[Tensor] = []
    stack = next(one for one in model.modules() if isinstance(one, nn.ModuleList))

    def keep(_: Any, args: Any, output: Any) -> None:
        states.extend([args[0]] if not states else [])
        states.append(output[0] if isinstance(output, tuple) else output)
        for state in states:
            state.retain_grad()

    hooks = [block.register_forward_hook(keep) for block in stack]
    output = model(input_ids=IDS, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    for state, hidden in zip(states[:-1], output.hidden_states, strict=False):
        torch.testing.assert_close(state, hidden)
    value = LOSS(output)
    value.backward()
    assert result.settings["loss"] == pytest.approx(value.item(), rel=1e-6)
    assert result.settings["gradient"] == "measured"
    for i, state in enumerate(states):
        v = gram(state)
        rho = v / np.sqrt(np.einsum("bi,bj->bij", *2 * [np.einsum("bii->bi", v)]))
        pairs = np.abs(rho[:, *np.tril_indices(6, -1)])
        layer = result.data.isel(layer=i)
        same(layer.covariance, v)
        same(layer.token_norm, np.einsum("bii->b", v) / 6)
        same(layer.mean_absolute_correlation, pairs.mean(1))
        same(layer.correlation_quantile, np.quantile(pairs, layer["quantile"].values, axis=1).T)
        eigenvalues = np.linalg.eigvalsh(v)
        same(layer.largest_eigenvalue, eigenvalues[:, -1])
        same(layer.stable_rank, eigenvalues.sum(1) / eigenvalues[:, -1])
        assert state.grad is not None
        same(layer.gradient_covariance, gram(state.grad), rtol=1e-4)
        same(layer.gradient_norm, state.grad.norm(dim=(1, 2)).numpy() / state.shape[-1] ** 0.5, rtol=1e-4)
        if i:
            branch = (state - states[i - 1]).norm(dim=(1, 2)) ** 2 / state.norm(dim=(1, 2)) ** 2
            same(layer.branch_share, branch.detach())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            same(float(result.data.weight_gradient.sel(weight=name)), float(parameter.grad.norm()), rtol=1e-4)


def test_the_loss_of_labels_is_the_models_own() -> None:
    model = gpt2()
    result = st.probe.run(model, {"input_ids": IDS, "labels": IDS})
    assert result.settings["loss"] == pytest.approx(model(input_ids=IDS, labels=IDS).loss.item(), rel=1e-6)


def test_encoder_and_decoder_of_other_lengths() -> None:
    model, batch = t5(), {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}
    result = st.probe.run(model, batch)
    stacks = ["encoder.block.input", *(f"encoder.block.{i}" for i in range(2))]
    stacks += ["decoder.block.input", *(f"decoder.block.{i}" for i in range(3))]
    assert result.layers == stacks
    assert result.data.tokens.values.tolist() == 3 * [[6, 6]] + 4 * [[4, 4]]
    assert result.settings["gradient"] == "measured"
    output = model(**batch, output_hidden_states=True)
    same(result.data.covariance[1], gram(output.encoder_hidden_states[1]))
    same(result.data.covariance[4, :, :4, :4], gram(output.decoder_hidden_states[1]))
    assert not result.data.covariance[4, :, 4:].any()


def test_padding_of_the_encoder_is_no_padding_of_the_decoder() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    result = st.probe.run(t5(), {"input_ids": IDS, "attention_mask": mask, "decoder_input_ids": IDS})
    assert result.data.tokens.values.tolist() == 3 * [[4, 6]] + 4 * [[6, 6]]


def test_calls_of_a_shared_block_are_numbered() -> None:
    model = albert()
    result = st.probe.run(model, {"input_ids": IDS})
    stack = "encoder.albert_layer_groups"
    assert result.layers == [f"{stack}.input", f"{stack}.0", f"{stack}.0#2", f"{stack}.0#3"]
    states = model(input_ids=IDS, output_hidden_states=True).hidden_states
    for i, state in enumerate(states):
        same(result.data.covariance[i], gram(state), rtol=1e-4)
    assert (result.data.branch_share[1:] > 0).all()


def test_a_block_that_is_several_times_in_a_list_is_one() -> None:
    block = Block()
    result = st.probe.run(Stack(lambda: block), vectors())
    assert result.layers == ["layers.input", "layers.0", "layers.0#2", "layers.0#3"]


def test_tokens_may_come_first() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), vectors()
    result = st.probe.run(model, x.transpose(0, 1), batch_first=False)
    assert result.settings["gradient"] == "measured"
    assert result.data.tokens.values.tolist() == 3 * [[5, 5]]
    same(result.data.covariance[0], gram(x))
    model.eval()
    same(result.data.covariance[1], gram(model.layers[0](x.transpose(0, 1)).transpose(0, 1)), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_padding_of_pytorchs_encoder() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for backward in (True, False):  # without gradients PyTorch has a fast path of its own
        result = st.probe.run(model, {"src": vectors(), "src_key_padding_mask": mask}, backward=backward)
        assert result.data.tokens.values.tolist() == 3 * [[5, 3]]


@dataclasses.dataclass
class Output:
    mask: Any
    tokens: Tensor


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: (x, None), lambda y: y[0]),
        (lambda x: [torch.ones(3, dtype=torch.int64), (x,)], lambda y: y[1][0]),
        (lambda x: {"tokens": x, "other": 1}, lambda y: y["tokens"]),
        (lambda x: Output(None, x), lambda y: y.tokens),
    ],
)
def test_outputs_of_any_form(wrap: Any, unwrap: Any) -> None:
    torch.manual_seed(0)
    model = Stack(lambda: Block(wrap), unwrap=unwrap)
    plain = Stack()
    plain.load_state_dict(model.state_dict())
    got, wanted = st.probe.run(model, vectors()), st.probe.run(plain, vectors())
    assert got.data.equals(wanted.data)


@pytest.mark.parametrize("build", [gpt2, bert])
def test_padding_is_left_out(build: Any) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    batch = {"input_ids": IDS, "attention_mask": mask}
    loss = lambda output: (output.logits * mask[..., None]).square().sum()  # noqa: E731
    padded = st.probe.run(build(), batch, loss=loss)
    alone = [
        st.probe.run(build(), {"input_ids": IDS[i : i + 1, :m]}, loss=lambda output: output.logits.square().sum())
        for i, m in ((0, 6), (1, 4))
    ]
    for i, (one, m) in enumerate(zip(alone, (6, 4), strict=True)):
        assert (padded.data.tokens[:, i] == m).all()
        for name in st.probe.MEASURES:
            same(padded.data[name][:, i], one.data[name][:, 0], rtol=1e-3)
        same(padded.data.covariance[:, i, :m, :m], one.data.covariance[:, 0], rtol=1e-4)
    assert not padded.data.covariance[:, 1, 4:].any()


def test_long_sequences_are_sampled() -> None:
    torch.manual_seed(0)
    model, x = Stack(), vectors(tokens=40)
    whole = st.probe.run(model, x)
    one, again, other = (st.probe.run(model, x, max_tokens=7, seed=seed) for seed in (0, 0, 1))
    assert (one.settings["sampled"], one.settings["max_tokens"], whole.settings["sampled"]) == (True, 7, False)
    assert one.data.equals(again.data)
    assert not one.data.equals(other.data)
    assert (one.data.tokens == 7).all()
    norms = np.einsum("lsii->lsi", whole.data.covariance.values)
    kept = np.einsum("lsii->lsi", one.data.covariance.values)
    places = [[np.flatnonzero(norms[0, s] == value) for value in kept[0, s]] for s in range(2)]
    for s in range(2):  # the same tokens in all layers, in their order
        rows = np.concatenate(places[s])
        assert len(rows) == 7
        assert (np.diff(rows) > 0).all()
        same(norms[:, s, rows], kept[:, s], rtol=1e-12)


@pytest.mark.parametrize("view", [False, True])
def test_blocks_that_overwrite_their_input(view: bool) -> None:
    torch.manual_seed(0)
    model: Any = Stack(Overwriting)
    plain: Any = Stack()
    plain.load_state_dict(model.state_dict())
    if not view:
        model.first, plain.first = (nn.Sequential(one.first, nn.Softplus()) for one in (model, plain))
    got, wanted = st.probe.run(model, vectors()), st.probe.run(plain, vectors())
    if view:  # of the matrix that nn.Linear computes
        reasons = {name: f"{name} is overwritten in place, which hides its gradient" for name in wanted.layers[:3]}
        assert got.settings["no_gradient"] == reasons
        assert got.known("gradient_norm").tolist() == [False, False, False, True]
        assert got.data.isel(layer=3).equals(wanted.data.isel(layer=3))
        assert got.data["token_norm"].equals(wanted.data["token_norm"])
    else:
        assert got.data.equals(wanted.data)


def test_changes_in_place_after_a_block() -> None:
    torch.manual_seed(0)
    model, plain = Stack(after=lambda x: x.mul_(2)), Stack(after=lambda x: x * 2)
    plain.load_state_dict(model.state_dict())
    got, wanted = st.probe.run(model, vectors()), st.probe.run(plain, vectors())
    assert got.data.equals(wanted.data)


class Cut(Stack):
    """Blocks of which the first gets no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](self.first(x)).detach()
        for layer in self.layers[1:]:
            x = layer(x)
        return x


def test_layers_without_gradient_leave_the_others_theirs() -> None:
    torch.manual_seed(0)
    model, plain = Cut(), Stack()
    plain.load_state_dict(model.state_dict())
    got, wanted = st.probe.run(model, vectors()), st.probe.run(plain, vectors())
    assert got.settings["gradient"] == "measured"
    assert list(got.settings["no_gradient"]) == ["layers.input", "layers.0"]
    assert got.known("gradient_norm").tolist() == [False, False, True, True]
    assert got.mean("gradient_norm")[:2].tolist() == [0, 0]
    assert got.mean("gradient_norm")[2:].tolist() == wanted.mean("gradient_norm")[2:].tolist()
    assert wanted.settings["no_gradient"] == {}
    comparison = got.compare(st.probe.expected(Cut, vectors(), 5))
    assert comparison.bands["gradient_norm"].high[2:].min() > 0
    assert comparison.bands["gradient_norm"].high[:2].tolist() == [0, 0]
    assert judge(got, comparison).good


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing(reentrant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(Checkpointed, "reentrant", reentrant)
    model, plain = Checkpointed(), Stack()
    plain.load_state_dict(model.state_dict())
    got, wanted = st.probe.run(model, vectors()), st.probe.run(plain, vectors())
    assert got.settings["gradient"] == "measured"
    assert got.layers == wanted.layers
    for name in wanted.data:
        same(got.data[name], wanted.data[name])


@pytest.mark.parametrize("block", [Block, Overwriting])
def test_a_batch_of_vectors_has_a_gradient_of_its_own(block: Any) -> None:
    model, x = Direct(block), vectors()
    before = x.clone()
    result = st.probe.run(model, x, loss=lambda y: y.square().sum())
    leaf = x.clone().requires_grad_()
    loss: Any = Direct.forward(model, leaf.clone()).square().sum()
    loss.backward()
    assert leaf.grad is not None
    same(result.data.gradient_covariance[0], gram(leaf.grad))
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("kind", [Stack, Checkpointed])
def test_frozen_parameters(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind()
    wanted = st.probe.run(model, vectors())
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    frozen = st.probe.run(model, vectors())
    assert frozen.settings["gradient"] == "measured"
    assert "weight_gradient" not in frozen.data
    same(frozen.data.gradient_covariance, wanted.data.gradient_covariance)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_frozen_embeddings_of_a_language_model() -> None:
    wanted = st.probe.run(model := gpt2(), {"input_ids": IDS})
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    result = st.probe.run(model, {"input_ids": IDS})
    assert result.settings["gradient"] == "measured"
    same(result.data.gradient_covariance, wanted.data.gradient_covariance)


def test_without_a_backward_pass() -> None:
    result = st.probe.run(gpt2(), {"input_ids": IDS}, backward=False)
    assert result.settings["gradient"] == "not asked for"
    assert "gradient_norm" not in result.data
    assert "weight_gradient" not in result.data
    with pytest.raises(st.InputError, match="unknown measure 'gradient_norm'"):
        result.mean("gradient_norm")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_measured_where_the_caller_has_none(mode: Any) -> None:
    model = gpt2()
    with mode():
        result = st.probe.run(model, {"input_ids": IDS})
    assert result.settings["gradient"] == "measured"


@pytest.mark.parametrize("build", [gpt2, bert, llama])
def test_attention(build: Any) -> None:
    model = build()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    batch = {"input_ids": IDS, "attention_mask": mask}
    before = model.config._attn_implementation
    result = st.probe.run(model, batch, attention=True)
    assert model.config._attn_implementation == before
    assert result.settings["attention"] == "eager"
    assert result.data.attention_entropy.shape == (3, 4)
    model.set_attn_implementation("eager")
    weights = torch.stack(model(**batch, output_attentions=True).attentions).detach().double()
    entropies: list[Tensor] = []
    own: list[Tensor] = []
    causal = build is not bert
    for b, m in ((0, 6), (1, 4)):
        for i in range(1 if causal else 0, m):
            a = weights[:, b, :, i, : i + 1 if causal else m]
            entropies.append(-(a * a.log()).sum(-1) / np.log(a.shape[-1]))
            own.append(1 - weights[:, b, :, i, i])
    same(result.data.attention_entropy, torch.stack(entropies).mean(0), rtol=1e-4)
    same(result.data.attention_from_identity, torch.stack(own).mean(0), rtol=1e-4)


def test_other_precisions() -> None:
    wanted = st.probe.run(gpt2(), {"input_ids": IDS})
    rough = st.probe.run(gpt2().bfloat16(), {"input_ids": IDS})
    exact = st.probe.run(gpt2().double(), {"input_ids": IDS})
    same(rough.data.token_norm, wanted.data.token_norm, rtol=0.05)
    same(exact.data.token_norm, wanted.data.token_norm, rtol=1e-5)
    same(exact.data.gradient_norm, wanted.data.gradient_norm, rtol=1e-3)


def test_layers_by_name() -> None:
    model = gpt2()
    every = st.probe.run(model, {"input_ids": IDS})
    some = st.probe.run(model, {"input_ids": IDS}, layers="transformer.h.*")
    assert some.layers == every.layers
    parts = st.probe.run(model, {"input_ids": IDS}, layers=["transformer.wte", "transformer.h.?.mlp"])
    assert parts.layers == ["transformer.wte", *(f"transformer.h.{i}.mlp" for i in range(3))]
    assert parts.settings["gradient"] == "measured"


def test_a_result_says_how_it_was_measured() -> None:
    model = gpt2()
    settings = st.probe.run(model, {"input_ids": IDS}).settings
    assert settings["model"] == "GPT2LMHeadModel"
    assert settings["parameters"] == sum(p.numel() for p in model.parameters())
    assert settings["not_finite"] is None


def test_a_weightless_model() -> None:
    model = st.weightless.from_config(gpt2().config, seed=1)
    first, again = (st.probe.run(model, {"input_ids": IDS}) for _ in range(2))
    assert first.settings["gradient"] == "measured"
    same(first.data.token_norm, again.data.token_norm, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_observed_uncompiled() -> None:
    model = gpt2()
    compiled = torch.compile(model)
    wanted = st.probe.run(model, {"input_ids": IDS})
    assert st.probe.run(compiled, {"input_ids": IDS}).data.equals(wanted.data)  # type: ignore[arg-type]


def test_spread_and_range_of_attention_are_those_of_its_logits() -> None:
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    row = attention_row((None, weights), lambda _: None)
    assert row is not None
    rows = [[logits[b, h, i, : i + 1] for b in range(2) for i in range(1, 6)] for h in range(3)]
    spread = [np.mean([float(one.std(correction=0)) for one in some]) for some in rows]
    reach = [max(float(one.max() - one.min()) for one in some) for some in rows]
    assert row.spread == pytest.approx(spread)
    assert row.range == pytest.approx(reach)
