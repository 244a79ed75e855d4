"""On a GPU the modules give the CPU's numbers, decode, compile, and repeat themselves."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn

from .device import DEVICE, assert_as_exact

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # PyTorch warns of its own prototypes

TOKENS = 33
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "rotary": {"causal": True, "rotary": True},
    "grouped": {"causal": True, "rotary": True, "kv_heads": 2},
    "learned": {"causal": True, "max_positions": 64, "shaping": "learn", "learnable_slopes": True},
    "recover": {"shaping": "recover", "recover_steps": 10},
    "checkpointing": {"causal": True, "checkpointing": True},
    "pre-norm": {"attention": "softmax", "norm": "pre", "activation": "gelu", "causal": True},
    "skipinit": {"attention": "skipinit", "norm": "post", "normaliser": "layer"},
}
ARCHITECTURES = {
    "shaped": st.shaped_transformer(32, 4, heads=4, mask="causal"),
    "own mask": st.Architecture(
        32, 2, (st.Residual(st.SoftmaxAttention(mask=np.tri(TOKENS, k=1), heads=2), 0.5, norm="pre"),)
    ),
    "dense": st.shaped_mlp(32, 4, activation=st.ShapedSmooth("tanh", 0.5)),
}
PIECES = ((33,), (20, 5, 1, 1, 6), (1,) * 33)


def model(**options: Any) -> Any:
    torch.manual_seed(0)
    return nn.ShapedTransformer(64, 3, 4, **options)


def tokens(width: int = 64) -> Any:
    return torch.randn(2, TOKENS, width, generator=torch.Generator().manual_seed(1))


def results(module: Any, x: Any, *, autocast: bool = False) -> list[Any]:
    """Return a module's output, under autocast to bfloat16 or not, and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=autocast):
        out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]
    found = torch.autograd.grad((out * weights).sum(), wanted, allow_unused=True)
    return [out.detach(), *(g for g in found if g is not None)]


def assert_the_same_on_both(module: Any, x: Any) -> None:
    """Assert that a module's numbers on the GPU are as exact as those on the CPU."""
    exact = results(copy.deepcopy(module).double(), x.double())
    usual = results(module, x)
    found = results(copy.deepcopy(module).to(DEVICE), x.to(DEVICE))
    for one, other, right in zip(found, usual, exact, strict=True):
        assert_as_exact(one, other, right, times=10)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_model_gives_the_cpus_values_and_gradients(options: dict[str, Any]) -> None:
    assert_the_same_on_both(model(**options), tokens())


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_definitions_module_gives_the_cpus_values_and_gradients(architecture: st.Architecture) -> None:
    torch.manual_seed(0)
    assert_the_same_on_both(nn.from_architecture(architecture), tokens(32))


def test_a_model_built_on_the_gpu_is_there_whole() -> None:
    with torch.device(DEVICE):
        one = model(**OPTIONS["learned"])
    assert {x.device.type for x in (*one.parameters(), *one.buffers())} == {DEVICE}
    assert one(tokens().to(DEVICE)).isfinite().all()


def decode(one: Any, x: Any, pieces: tuple[int, ...], mask: Any = None, positions: Any = None) -> Any:
    """Return a model's output for pieces of these sizes, one after another, with a cache."""
    cache, out, start = nn.Cache(len(one.blocks)), [], 0
    with torch.no_grad():
        for size in pieces:
            end = start + size
            own = None if positions is None else positions[:, start:end]
            rows = None if mask is None else mask[..., :end]
            out.append(one(x[:, start:end], attn_mask=rows, positions=own, cache=cache))
            start = end
    return torch.cat(out, 1)


@pytest.mark.parametrize("options", [OPTIONS[name] for name in ("rotary", "grouped", "learned")])
@pytest.mark.parametrize("pieces", PIECES)
def test_decoding_with_the_cache_equals_one_pass(options: dict[str, Any], pieces: tuple[int, ...]) -> None:
    one, x = model(**options).to(DEVICE).eval(), tokens().to(DEVICE)
    with torch.no_grad():
        whole = one(x)
    torch.testing.assert_close(decode(one, x, pieces), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pieces", PIECES)
def test_padded_rows_are_decoded_as_if_they_stood_alone(pieces: tuple[int, ...]) -> None:
    one, x = model(**OPTIONS["grouped"]).to(DEVICE).eval(), tokens().to(DEVICE)
    first = torch.tensor([0, 7], device=DEVICE)[:, None]
    at = torch.arange(TOKENS, device=DEVICE)
    mask, positions = (at >= first)[:, None, None], (at - first).clamp(min=0)
    with torch.no_grad():
        alone = one(x[1:, 7:])
    torch.testing.assert_close(decode(one, x, pieces, mask, positions)[1:, 7:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_block_compiles_as_one_graph(autocast: bool) -> None:
    torch.manual_seed(0)
    block = nn.ShapedBlock(64, 4, gamma=0.3, causal=True, rotary=True, shaping="learn", learnable_slopes=True).to(
        DEVICE
    )
    compiled, x = torch.compile(block, fullgraph=True), tokens().to(DEVICE)
    found, usual = results(compiled, x, autocast=autocast), results(block, x, autocast=autocast)
    tolerance = 0.05 if autocast else 1e-4
    for one, other in zip(found, usual, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one.float(), other.float(), atol=tolerance * scale, rtol=0)


def test_a_model_compiles_into_cuda_graphs() -> None:
    one, x = model(**OPTIONS["grouped"]).to(DEVICE).eval(), tokens().to(DEVICE)
    compiled = torch.compile(one, mode="reduce-overhead", fullgraph=True)
    with torch.no_grad():
        usual = one(x)
        for _ in range(3):  # the third call replays the graph
            found = compiled(x).clone()
    torch.testing.assert_close(found, usual, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_near_to_32_bits(dtype: Any) -> None:
    one, x = model(**OPTIONS["grouped"]).to(DEVICE), tokens().to(DEVICE)
    with torch.autocast(DEVICE, dtype=dtype):
        out = one(x)
    torch.testing.assert_close(out.float(), one(x), atol=20 * torch.finfo(dtype).eps, rtol=0)


def test_the_same_seed_gives_the_same_model_and_the_same_output() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        with torch.device(DEVICE):
            one = nn.ShapedTransformer(64, 3, 4, causal=True, dropout=0.1)
        found.append((one(tokens().to(DEVICE)), [p.detach() for p in one.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize("name", ["full", "grouped"])
def test_a_second_backward_pass_gives_the_same_gradients(name: str, record_property: Any) -> None:
    """To the bit or, where the GPU adds in another order, within rounding."""
    one, x = model(**OPTIONS[name]).to(DEVICE), tokens().to(DEVICE)
    first, second = results(one, x), results(one, x)
    record_property("the same bits", all(torch.equal(a, b) for a, b in zip(first, second, strict=True)))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


def test_fused_adamw_makes_the_steps_of_the_cpus() -> None:
    """With the learning rates of `parameter_groups`, on a task of regression."""
    losses: dict[str, list[float]] = {}
    for device, options in (("cpu", {}), (DEVICE, {"fused": True})):
        one, x = model(**OPTIONS["learned"]).to(device), tokens().to(device)
        target = tokens().flip(1).to(device)
        optimiser = torch.optim.AdamW(nn.parameter_groups(one, lr=2e-3), weight_decay=0.1, **options)
        losses[device + str(options)] = []
        for _ in range(10):
            loss = (one(x) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            nn.advance(one)
            losses[device + str(options)].append(float(loss))
    usual, found = losses.values()
    assert usual[-1] < usual[0]
    assert found == pytest.approx(usual, rel=1e-3)
