"""On a GPU fused shaped attention equals the definition, in all dtypes, and reaches PyTorch's fused kernels."""

from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel

from shaped_transformer.nn.functional import shaped_attention, shaped_attention_weights

from .device import DEVICE, assert_as_exact, largest_error

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # PyTorch warns of its own prototypes

BATCH, SCALE = 2, 0.1
MASKS = ("none", "causal", "padding", "boolean", "boolean per head", "additive", "blind row")
HEADS = {"one head": (1, 1), "heads": (4, 4), "grouped": (8, 2)}
DTYPES = {"32 bits": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIXTEEN = [torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Case:
    """One way to call shaped attention."""

    mask: str
    heads: int
    groups: int
    tokens: int
    width: int = 64

    def tensors(self, dtype: Any) -> list[Any]:
        """Return Q, K and V on the CPU, whose numbers a dtype holds exactly."""
        generator = torch.Generator().manual_seed(0)
        heads = (self.heads, self.groups, self.groups)
        shapes = [(BATCH, one, self.tokens, self.width) for one in heads]
        return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    def options(self, dtype: Any, device: str) -> dict[str, Any]:
        """Return the mask and the gains."""
        gains = 0.5 + torch.arange(self.heads) / 8  # 16 bits hold them exactly
        given: dict[str, Any] = {
            "attn_mask": mask_of(self.mask, self.heads, self.tokens),
            "identity_gain": gains,
            "uniform_gain": gains.flip(0),
        }
        placed = {
            name: None if x is None else x.to(device, x.dtype if x.dtype == torch.bool else dtype)
            for name, x in given.items()
        }
        return placed | {"is_causal": self.mask == "causal", "scale": SCALE}


def mask_of(kind: str, heads: int, tokens: int) -> Any:
    """Return a mask on the CPU; each query may attend to itself, unless its row is blind."""
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, heads, tokens, tokens) if kind == "boolean per head" else (tokens, tokens)
    allowed = (torch.rand(shape, generator=generator) < 0.6) | torch.eye(tokens, dtype=torch.bool)
    if kind == "padding":
        allowed = torch.ones(BATCH, 1, 1, tokens, dtype=torch.bool)
        allowed[0, ..., -(tokens // 3) :] = False
    elif kind == "additive":
        bias = torch.randint(-2, 3, shape, generator=generator).float()  # 16 bits hold them exactly
        return bias.masked_fill(~allowed, -torch.inf)
    elif kind == "blind row":
        allowed[3] = False
    return None if kind in ("none", "causal") else allowed


def results(form: Any, qkv: list[Any], options: dict[str, Any]) -> list[Any]:
    """Return A V, and the gradients of Q, K and V for a fixed gradient of A V."""
    qkv = [x.detach().clone().requires_grad_() for x in qkv]
    out = form(*qkv, **options)
    weights = torch.randint(-2, 3, out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out, *torch.autograd.grad(out, qkv, weights)]


def dense(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """Return A V by the matrix A."""
    heads = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return shaped_attention_weights(query, key, **options) @ heads


def exact_and_usual(case: Case, dtype: Any) -> tuple[list[Any], list[Any]]:
    """Return the exact results, in float64 on the CPU, and those of the dense form in float32 on the GPU."""
    qkv = case.tensors(dtype)
    exact = results(dense, [x.double() for x in qkv], case.options(torch.float64, "cpu"))
    usual = results(dense, [x.to(DEVICE).float() for x in qkv], case.options(torch.float32, DEVICE))
    return [x.detach() for x in exact], usual


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> Any:
    """Return the kind of a mask."""
    return request.param


@pytest.fixture(params=HEADS)
def heads(request: pytest.FixtureRequest) -> Any:
    """Return the number of heads of queries, and of keys and values."""
    return HEADS[request.param]


@pytest.mark.parametrize("tokens", [9, 64, 257])
def test_values_and_gradients_in_32_bits_are_those_of_the_definition(
    mask: str, heads: tuple[int, int], tokens: int
) -> None:
    """The fused form is as exact as the dense one."""
    case = Case(mask, *heads, tokens)
    exact, usual = exact_and_usual(case, torch.float32)
    qkv = [x.to(DEVICE) for x in case.tensors(torch.float32)]
    for one, other, right in zip(
        results(shaped_attention, qkv, case.options(torch.float32, DEVICE)), usual, exact, strict=True
    ):
        assert_as_exact(one, other, right)


@pytest.mark.parametrize("tokens", [9, 257])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_values_and_gradients_in_16_bits_are_the_definitions_rounded_once(
    mask: str, heads: tuple[int, int], tokens: int, dtype: Any
) -> None:
    """If they are computed in 32 bits: each number is rounded to 16 bits at the end."""
    case = Case(mask, *heads, tokens)
    exact, usual = exact_and_usual(case, dtype)
    qkv = [x.to(DEVICE) for x in case.tensors(dtype)]
    for one, other, right in zip(
        results(shaped_attention, qkv, case.options(dtype, DEVICE) | {"upcast": True}), usual, exact, strict=True
    ):
        assert one.dtype == dtype
        rounding = torch.finfo(dtype).eps * (0.505 * right.abs() + torch.finfo(dtype).tiny)
        beyond = ((one.detach().cpu().double() - right).abs() - rounding).clamp(min=0)
        assert_as_exact(beyond, other.detach().cpu().double() - right, torch.zeros_like(right))


def test_the_definition_with_another_gain_is_noticed() -> None:
    """The companion: a gain that is 0.01 % off exceeds the error that is allowed."""
    case = Case("causal", 4, 4, 257)
    exact, usual = exact_and_usual(case, torch.float32)
    options = case.options(torch.float32, DEVICE)
    qkv = [x.to(DEVICE) for x in case.tensors(torch.float32)]
    wrong = shaped_attention(*qkv, **options | {"uniform_gain": 1.0001 * options["uniform_gain"]})
    with pytest.raises(AssertionError, match="allowed"):
        assert_as_exact(wrong, usual[0], exact[0])


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("kind", ["none", "causal", "padding", "boolean"])
def test_autocast_changes_nothing(kind: str, dtype: Any) -> None:
    case = Case(kind, 4, 2, 129)
    qkv, options = [x.to(DEVICE) for x in case.tensors(torch.float32)], case.options(torch.float32, DEVICE)

    def cast(*tensors: Any, **options: Any) -> Any:
        with torch.autocast(DEVICE, dtype=dtype):
            return shaped_attention(*tensors, **options)

    plain = results(shaped_attention, qkv, options)
    for one, other in zip(results(cast, qkv, options), plain, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # some gradients are sums in changing order


def test_head_widths_that_no_fused_kernel_takes_are_right_too(mask: str) -> None:
    case = Case(mask, 4, 2, 33, width=6)
    exact, usual = exact_and_usual(case, torch.float32)
    qkv = [x.to(DEVICE) for x in case.tensors(torch.float32)]
    found = results(shaped_attention, qkv, case.options(torch.float32, DEVICE))
    for one, other, right in zip(found, usual, exact, strict=True):
        assert_as_exact(one, other, right)


@pytest.mark.parametrize("upcast", [True, False])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_the_informative_part_in_16_bits(dtype: Any, upcast: bool, record_property: Any) -> None:
    """What docs/nn.md says of 256 tokens at width 256: below 1e-5 in 32 bits; percents in a 16-bit kernel."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 256, 64, generator=generator).to(dtype) for _ in range(3))
    options: dict[str, Any] = {"scale": 1 / (256 * 64) ** 0.5, "identity_gain": 0.0}
    exact = shaped_attention(*(x.double() for x in (q, k, v)), **options)
    out = shaped_attention(*(x.to(DEVICE) for x in (q, k, v)), upcast=upcast, **options).cpu().double()
    rounding = (exact.to(dtype).double() - exact).abs() + torch.finfo(dtype).eps * exact.abs() / 1e3
    beyond = ((out - exact).abs() - rounding).clamp(min=0)
    error = float(beyond.square().mean().sqrt() / exact.square().mean().sqrt())
    record_property("relative error of the informative part", f"{error:.3g}")
    if upcast:
        assert error < 1e-4
    else:
        assert error > 1e-3


FUSED_MASKS = ("none", "causal", "padding", "boolean", "boolean per head", "additive")


@pytest.mark.parametrize("width", [8, 32, 64, 128])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kind", FUSED_MASKS)
def test_the_memory_efficient_kernel_takes_every_pass(
    kind: str, dtype: Any, width: int, heads: tuple[int, int]
) -> None:
    """By default; another kernel is refused by `sdpa_kernel`, which raises an error if this one does not run."""
    case = Case(kind, *heads, 129, width)
    qkv = [x.to(DEVICE) for x in case.tensors(dtype)]
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        found = results(shaped_attention, qkv, case.options(dtype, DEVICE) | {"upcast": True})
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("kind", ["none", "causal"])
@pytest.mark.parametrize("width", [40, 64, 128])
def test_flash_attention_takes_16_bits_that_stay_16_bits(
    kind: str, dtype: Any, width: int, heads: tuple[int, int]
) -> None:
    case = Case(kind, *heads, 257, width)
    exact, _ = exact_and_usual(case, dtype)
    qkv = [x.to(DEVICE) for x in case.tensors(dtype)]
    options = case.options(dtype, DEVICE) | {"upcast": False}
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = results(shaped_attention, qkv, options)
    usual = results(dense, qkv, case.options(dtype, DEVICE))
    for one, other, right in zip(found, usual, exact, strict=True):
        unit = torch.finfo(dtype).eps * float(right.abs().max())
        assert largest_error(one, right) <= 4 * (largest_error(other, right) + unit)


@pytest.mark.parametrize("kind", ["none", "causal", "padding", "boolean"])
@pytest.mark.parametrize("groups", [8, 2])
def test_no_matrix_is_formed(kind: str, groups: int, record_property: Any) -> None:
    """At 4,096 tokens one matrix of eight heads takes 512 MB. The mask, as numbers, takes 64 MB."""
    tokens = 4096
    q, k, v = (torch.randn(1, h, tokens, 64, device=DEVICE, requires_grad=True) for h in (8, groups, groups))
    allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=DEVICE).tril()
    given = {"none": None, "causal": None, "padding": allowed[-1:], "boolean": allowed}[kind]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = shaped_attention(q, k, v, scale=SCALE, attn_mask=given, is_causal=kind == "causal")
    torch.autograd.grad(out.sum(), (q, k, v))
    added = (torch.cuda.max_memory_allocated() - before) / 2**20
    record_property("megabytes", f"{added:.0f}")
    assert added < 400


@pytest.mark.parametrize("kind", ["none", "causal"])
def test_second_derivatives_are_those_of_the_definition(kind: str) -> None:
    case = Case(kind, 2, 2, 17, width=8)

    def second(form: Any, qkv: list[Any], options: dict[str, Any]) -> list[Any]:
        qkv = [x.detach().clone().requires_grad_() for x in qkv]
        first = torch.autograd.grad(form(*qkv, **options).square().sum(), qkv, create_graph=True)
        return list(torch.autograd.grad(sum(x.square().sum() for x in first), qkv))

    qkv = case.tensors(torch.float32)
    exact = second(dense, [x.double() for x in qkv], case.options(torch.float64, "cpu"))
    placed, options = [x.to(DEVICE) for x in qkv], case.options(torch.float32, DEVICE)
    found, usual = second(shaped_attention, placed, options), second(dense, placed, options)
    for one, other, right in zip(found, usual, exact, strict=True):
        assert_as_exact(one, other, right, times=10)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}])
def test_deterministic_algorithms_give_the_same_bits(options: dict[str, Any]) -> None:
    qkv = [x.to(DEVICE) for x in Case("none", 4, 4, 513).tensors(torch.float32)]
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(mode=True)
        one, other = (results(shaped_attention, qkv, options | {"scale": SCALE}) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(mode=before)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_numbers_as_gains_wait_for_nothing() -> None:
    """A copy from the CPU would wait for the GPU, and could not be captured in a CUDA graph."""
    qkv = [x.to(DEVICE) for x in Case("causal", 4, 4, 65).tensors(torch.float32)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        shaped_attention(*qkv, scale=SCALE, is_causal=True, identity_gain=0.9, uniform_gain=1.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
