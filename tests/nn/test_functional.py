"""Fused shaped attention equals the dense definition, in values and derivatives, and also for 16-bit inputs."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel

import shaped_transformer as st
from shaped_transformer.nn import Cache
from shaped_transformer.nn.functional import shaped_attention, shaped_attention_weights

BATCH, TOKENS, WIDTH = 2, 9, 8
MASKS = ("none", "causal", "padding", "boolean", "boolean per head", "additive", "blind row")
GAINS: dict[str, tuple[float, float] | None] = {
    "ones": (1.0, 1.0),
    "numbers": (0.7, 1.2),
    "zeros": (0.0, 0.0),
    "per head": None,
}


def mask_of(kind: str, heads: int, dtype: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, heads, TOKENS, TOKENS) if kind == "boolean per head" else (TOKENS, TOKENS)
    allowed = (torch.rand(shape, generator=generator) < 0.6) | torch.eye(TOKENS, dtype=torch.bool)
    if kind == "padding":
        allowed = torch.ones(BATCH, 1, 1, TOKENS, dtype=torch.bool)
        allowed[0, ..., 6:] = False
    elif kind == "additive":
        bias = torch.randn(shape, generator=generator, dtype=dtype)
        return bias.masked_fill(~allowed, torch.finfo(dtype).min)
    elif kind == "blind row":
        allowed[3] = False
    return None if kind in ("none", "causal") else allowed


def inputs(heads: int, groups: int, dtype: Any, grad: bool = False) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((BATCH, heads, TOKENS, WIDTH), (BATCH, groups, TOKENS, WIDTH), (BATCH, groups, TOKENS, WIDTH))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(grad) for shape in shapes]


def gains_of(kind: str, heads: int, dtype: Any) -> tuple[Any, Any]:
    """Return a and b, numbers or one per head."""
    gains = GAINS[kind]
    if gains is not None:
        return gains
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, heads, generator=generator, dtype=dtype).unbind(0)


def fused_and_dense(q: Any, k: Any, v: Any, **options: Any) -> tuple[Any, Any]:
    """Return A V in the fused form, and with the matrix A."""
    dense = shaped_attention_weights(q, k, scale=0.4, **options) @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    return shaped_attention(q, k, v, scale=0.4, **options), dense


@dataclass(frozen=True)
class Case:
    """One way to call shaped attention, and the error that its dtype allows."""

    mask: str
    heads: int
    groups: int
    dtype: Any
    tolerance: float

    def options(self, gains: str) -> dict[str, Any]:
        a, b = gains_of(gains, self.heads, self.dtype)
        mask = mask_of(self.mask, self.heads, self.dtype)
        return {"attn_mask": mask, "is_causal": self.mask == "causal", "identity_gain": a, "uniform_gain": b}


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> Any:
    """Return the kind of a mask."""
    return request.param


@pytest.fixture(params=[(1, 1), (4, 4), (4, 2)], ids=["one head", "heads", "grouped"])
def heads(request: pytest.FixtureRequest) -> Any:
    """Return the number of heads of queries, and of keys and values."""
    return request.param


@pytest.fixture(params=[(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["32 bits", "64 bits"])
def case(mask: str, heads: tuple[int, int], request: pytest.FixtureRequest) -> Case:
    return Case(mask, *heads, *request.param)


@pytest.mark.parametrize("gains", GAINS)
def test_the_fused_form_equals_the_dense_one(case: Case, gains: str) -> None:
    fused, dense = fused_and_dense(*inputs(case.heads, case.groups, case.dtype), **case.options(gains))
    assert fused.isfinite().all()
    torch.testing.assert_close(fused, dense, atol=case.tolerance, rtol=0)


@pytest.mark.parametrize("gains", GAINS)
def test_gradients_of_the_fused_form_equal_those_of_the_dense_one(case: Case, gains: str) -> None:
    qkv = inputs(case.heads, case.groups, case.dtype, grad=True)
    fused, dense = fused_and_dense(*qkv, **case.options(gains))
    weights = torch.randn(fused.shape, generator=torch.Generator().manual_seed(3), dtype=case.dtype)
    found, expected = (torch.autograd.grad((out * weights).sum(), qkv) for out in (fused, dense))
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, atol=20 * case.tolerance, rtol=0)


@pytest.mark.parametrize("mask", [kind for kind in MASKS if kind != "additive"])
def test_every_pass_over_the_tokens_is_fused(mask: str) -> None:
    """PyTorch's plain path would form the matrices; `sdpa_kernel` has it refuse instead."""
    case = Case(mask, 4, 4, torch.float32, 1e-5)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused, dense = fused_and_dense(*inputs(4, 4, torch.float32), **case.options("ones"))
    torch.testing.assert_close(fused, dense, atol=case.tolerance, rtol=0)


def test_the_fused_form_with_another_gain_differs_from_the_dense_one() -> None:
    """The companion: a gain that is 10 % off is noticed."""
    q, k, v = inputs(4, 4, torch.float32)
    fused = shaped_attention(q, k, v, scale=0.4, uniform_gain=1.1)
    dense = shaped_attention_weights(q, k, scale=0.4) @ v
    assert (fused - dense).abs().max() > 1e-2


def small_case(mask: str) -> tuple[Any, tuple[Any, ...]]:
    """Return shaped attention of four tokens as a function of Q, K, V, a and b, and values of these."""
    qkv = (x[:, :, :4, :3].detach().requires_grad_() for x in inputs(2, 2, torch.float64))
    given = mask_of(mask, 2, torch.float64)
    given = None if given is None else given[..., :4, :4] if mask == "boolean" else given[..., :4]
    gains = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def call(*arguments: Any) -> Any:
        *qkv, a, b = arguments
        options = {"attn_mask": given, "is_causal": mask == "causal", "identity_gain": a, "uniform_gain": b}
        return shaped_attention(*qkv, scale=0.5, **options)

    return call, (*qkv, *gains)


@pytest.mark.parametrize("mask", ["none", "causal", "padding", "boolean"])
def test_first_derivatives(mask: str) -> None:
    assert torch.autograd.gradcheck(*small_case(mask))


@pytest.mark.parametrize("mask", ["none", "causal", "padding", "boolean"])
def test_second_derivatives(mask: str) -> None:
    assert torch.autograd.gradgradcheck(*small_case(mask))


def test_pytorchs_fused_attention_alone_has_no_second_derivative() -> None:
    """The trap: the kernel that runs decides whether there is one, and only the second backward pass fails."""
    q, k, v = (x.requires_grad_() for x in inputs(2, 2, torch.float64))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    (first,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first.sum(), q)


def static_cache() -> tuple[list[Any], Any]:
    """Return three queries, more keys and values than they may attend to, and the queries' positions."""
    q, k, v = inputs(4, 2, torch.float64)
    return [q[:, :, :3], k, v], torch.tensor([2, 3, 4])


def test_query_positions_with_a_mask_equal_the_dense_form() -> None:
    qkv, positions = static_cache()
    allowed = torch.arange(TOKENS) <= positions[:, None]
    fused, dense = fused_and_dense(*qkv, attn_mask=allowed, query_positions=positions)
    torch.testing.assert_close(fused, dense, atol=1e-12, rtol=0)


def test_causal_query_positions_equal_the_mask_up_to_them() -> None:
    qkv, positions = static_cache()
    allowed = torch.arange(TOKENS) <= positions[:, None]
    _, dense = fused_and_dense(*qkv, attn_mask=allowed, query_positions=positions)
    causal, _ = fused_and_dense(*qkv, is_causal=True, query_positions=positions)
    torch.testing.assert_close(causal, dense, atol=1e-12, rtol=0)


def test_query_positions_of_each_row_equal_the_dense_form() -> None:
    qkv, positions = static_cache()
    rows = positions + torch.tensor([[0], [1]])
    fused, dense = fused_and_dense(*qkv, is_causal=True, query_positions=rows)
    torch.testing.assert_close(fused, dense, atol=1e-12, rtol=0)


def test_the_own_value_in_a_static_cache_is_not_that_of_the_last_keys() -> None:
    """The companion: the last keys in place of the own ones are noticed."""
    (q, k, v), positions = static_cache()
    options = {"attn_mask": torch.arange(TOKENS) <= positions[:, None], "query_positions": positions}
    fused = shaped_attention(q, k, v, scale=0.4, **options)
    others = shaped_attention_weights(q, k, scale=0.4, identity_gain=0.0, **options)
    wrong = others @ v.repeat_interleave(2, 1) + v[:, :, -3:].repeat_interleave(2, 1)
    assert (fused - wrong).abs().max() > 0.1


def test_a_known_mean_takes_the_place_of_the_centring() -> None:
    q, k, v = inputs(4, 2, torch.float64)
    mean = v.cumsum(-2) / torch.arange(1, TOKENS + 1)[:, None]
    _, dense = fused_and_dense(q, k, v, is_causal=True)
    given = shaped_attention(q, k, v, scale=0.4, is_causal=True, value_mean=mean)
    torch.testing.assert_close(given, dense, atol=1e-12, rtol=0)


INFORMATIVE: dict[str, Any] = {"identity_gain": 0.0}


def informative_error(dtype: Any, upcast: bool, autocast: bool = False) -> float:
    """Return the relative error of softmax − U at the shaped temperature, beyond the rounding of the result itself."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 256, 64, generator=generator).to(dtype) for _ in range(3))
    scale = 1 / (256 * 64) ** 0.5
    exact = shaped_attention(*(x.double() for x in (q, k, v)), scale=scale, **INFORMATIVE)
    if autocast:
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        out = shaped_attention(q, k, v, scale=scale, upcast=upcast, **INFORMATIVE)
    rounded = exact.to(out.dtype).double()
    error = (out.double() - exact).abs() - (rounded - exact).abs() - torch.finfo(out.dtype).eps * exact.abs() / 1e3
    return float(error.clamp(min=0).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_informative_part_is_exact_for_16_bit_inputs(dtype: Any, autocast: bool) -> None:
    assert informative_error(dtype, upcast=True, autocast=autocast) < 1e-4


def test_the_informative_part_is_inexact_in_a_16_bit_kernel() -> None:
    """The companion, and the error that the documentation states."""
    assert informative_error(torch.bfloat16, upcast=False) > 0.03


@pytest.mark.parametrize("shared", [0.0, 0.7])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_kernel_adds_little_to_the_rounding_of_the_result(dtype: Any, causal: bool, shared: float) -> None:
    """Errors of result and gradients beside those of float32 throughout; values share a part, as tokens do."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(1, 4, 256, 64, generator=generator) for _ in range(4))
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v + shared * v[:, :, :1]))
    options: dict[str, Any] = {"scale": 1 / (256 * 64) ** 0.5, "is_causal": causal}

    def found(*inputs: Any, **more: Any) -> list[Any]:
        query, key, value = inputs
        out = shaped_attention(query, key, value, **options, **more)
        return [x.detach().double() for x in (out, *torch.autograd.grad(out, inputs, grad.to(dtype).to(out.dtype)))]

    exact = found(*(x.detach().double().requires_grad_() for x in (q, k, v)))
    errors = [
        [float((x - y).square().mean().sqrt()) for x, y in zip(found(q, k, v, upcast=upcast), exact, strict=True)]
        for upcast in (True, False)
    ]
    assert errors[1][0] < 1.15 * errors[0][0]
    assert errors[1][3] < 1.6 * errors[0][3]  # the kernel's gradient of the values is rounded too
    for error, right in zip(errors[1], exact, strict=True):
        assert error < 4 * torch.finfo(dtype).eps * float(right.square().mean().sqrt())


def test_dropout_applies_to_the_softmax_only() -> None:
    """For one token the softmax is 1, and dropout makes it 0 or 2; the identity adds 1 in both cases."""
    torch.manual_seed(0)
    q, k, v = (torch.ones(64, 1, 1, 4) for _ in range(3))
    out = shaped_attention(q, k, v, scale=1.0, uniform_gain=0.0, dropout_p=0.5)
    assert set(out.flatten().tolist()) == {1.0, 3.0}


def test_tensors_without_heads_or_batch() -> None:
    q, k, v = (torch.randn(5, 4, dtype=torch.float64) for _ in range(3))
    dense = shaped_attention_weights(q, k, scale=0.3) @ v
    torch.testing.assert_close(shaped_attention(q, k, v, scale=0.3), dense)


ALL = torch.ones(TOKENS, TOKENS, dtype=torch.bool)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler uses deprecated functions of its own
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": ALL}])
def test_shaped_attention_compiles_as_one_graph(options: dict[str, Any]) -> None:
    qkv = inputs(2, 2, torch.float32, grad=True)
    compiled = torch.compile(shaped_attention, fullgraph=True)
    out, usual = (form(*qkv, scale=0.4, **options) for form in (compiled, shaped_attention))
    torch.testing.assert_close(out, usual)
    found, expected = (torch.autograd.grad(one.square().sum(), qkv) for one in (out, usual))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "widths": ({"key": torch.zeros(2, 4, 9, 7)}, "last dimension of query"),
    "lengths": ({"value": torch.zeros(2, 4, 8, 8)}, "the others of value"),
    "dimensions": ({"query": torch.zeros(8)}, "same number of dimensions"),
    "groups": (
        {"key": torch.zeros(2, 3, 9, 8), "value": torch.zeros(2, 3, 9, 8)},
        "3 heads of key and value must divide",
    ),
    "mask": ({"attn_mask": torch.ones(9, 8, dtype=torch.bool)}, r"attn_mask of shape \(9, 8\) does not broadcast"),
    "both": ({"attn_mask": torch.ones(9, 9, dtype=torch.bool), "is_causal": True}, "not both"),
    "gain": ({"identity_gain": torch.ones(3)}, "one number or one for each of 4 heads"),
    "cross": ({"query": torch.zeros(2, 4, 5, 8)}, "5 queries and 9 keys: give query_positions"),
    "positions": ({"query_positions": torch.zeros(4, dtype=torch.long)}, "query_positions must be one for each of 9"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    given = dict(zip(("query", "key", "value"), inputs(4, 4, torch.float32), strict=True)) | changes
    with pytest.raises(st.InputError, match=message):
        shaped_attention(**given, scale=0.4)


ENDS = (0, 1, 3, 70, 71, 150)
"""Numbers of tokens after each update: the cache starts with room for 64."""


def test_the_growing_cache_keeps_keys_and_values() -> None:
    cache = Cache(1).layers[0]
    keys, values = torch.randn(2, 1, 2, 150, 4).unbind(0)
    for start, end in itertools.pairwise(ENDS):
        k, v, _ = cache.update(keys[..., start:end, :], values[..., start:end, :])
        torch.testing.assert_close(k, keys[..., :end, :])
        torch.testing.assert_close(v, values[..., :end, :])


def test_the_growing_cache_keeps_the_running_mean_of_the_values() -> None:
    cache = Cache(1).layers[0]
    keys, values = torch.randn(2, 1, 2, 150, 4).unbind(0)
    expected = values.cumsum(-2) / torch.arange(1, 151)[:, None]
    for start, end in itertools.pairwise(ENDS):
        _, _, mean = cache.update(keys[..., start:end, :], values[..., start:end, :])
        torch.testing.assert_close(mean, expected[..., start:end, :])
