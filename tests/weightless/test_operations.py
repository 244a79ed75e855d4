"""Each function of PyTorch that takes a weightless parameter computes what it computes with real weights."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional
from twins import Parametrised, assert_is_the_real_network, build

Case = tuple[tuple[int, ...], Callable[..., Any], tuple[Any, ...]]


def some(*shape: int) -> Any:
    """Vectors, the same for the same shape."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def stack_of_three(w: Any, x: Any) -> Any:
    return torch.stack([x @ one for one in w])


def queries_keys_values(w: Any, x: Any) -> Any:
    q, k, v = (functional.linear(x, part) for part in w.chunk(3))
    return (q @ k.mT).softmax(-1) @ v


def split_by_sizes(w: Any, x: Any) -> Any:
    first, second = torch.split(w, [25, 35], dim=1)
    return torch.cat([x @ second, 2 * (x @ first)], -1)


def looked_up_and_multiplied(w: Any, x: Any) -> Any:
    return functional.linear(functional.embedding(IDS, w) + x, w)


IDS = torch.tensor([[3, 7, 3], [0, 7, 39]])
CASES: dict[str, Case] = {
    "linear": ((40, 60), lambda w, x: functional.linear(x, w), (some(3, 60),)),
    "linear, bias": ((40, 60), lambda w, x, b: functional.linear(x, w, b), (some(2, 3, 60), some(40))),
    "linear, one vector": ((40, 60), lambda w, x, b: functional.linear(x, w, b), (some(60), some(40))),
    "matmul": ((40, 60), lambda w, x: torch.matmul(x, w), (some(2, 2, 40),)),
    "@": ((40, 60), lambda w, x: x @ w, (some(3, 40),)),
    "@, one vector": ((40, 60), lambda w, x: x @ w, (some(40),)),
    "W @ x": ((40, 60), lambda w, x: w @ x, (some(60, 3),)),
    "W @ one vector": ((40, 60), lambda w, x: w @ x, (some(60),)),
    "W @ batch": ((40, 60), lambda w, x: w @ x, (some(2, 60, 2),)),
    "x.matmul": ((40, 60), lambda w, x: x.matmul(w.t()), (some(3, 60),)),
    "mm": ((40, 60), lambda w, x: torch.mm(x, w), (some(3, 40),)),
    "mm, W first": ((40, 60), lambda w, x: w.mm(x), (some(60, 3),)),
    "mv": ((40, 60), lambda w, x: w.mv(x), (some(60),)),
    "bmm": ((3, 40, 60), lambda w, x: torch.bmm(x, w), (some(3, 2, 40),)),
    "bmm, stack first": ((3, 40, 60), lambda w, x: torch.bmm(w, x), (some(3, 60, 2),)),
    "stack, one input": ((3, 40, 60), lambda w, x: x @ w, (some(2, 40),)),
    "stack of one": ((1, 40, 60), lambda w, x: x @ w, (some(2, 2, 40),)),
    "stack, four axes": ((3, 40, 60), lambda w, x: x @ w, (some(2, 3, 1, 40),)),
    "stack, one vector": ((3, 40, 60), lambda w, x: x @ w, (some(40),)),
    "stack, transposed": ((3, 40, 60), lambda w, x: x @ w.transpose(1, 2), (some(3, 2, 60),)),
    "addmm": ((40, 60), lambda w, b, x: torch.addmm(b, x, w), (some(60), some(3, 40))),
    "addmm, factors": ((40, 60), lambda w, b, x: torch.addmm(b, x, w, beta=0.5, alpha=2), (some(60), some(3, 40))),
    "baddbmm": ((3, 40, 60), lambda w, b, x: torch.baddbmm(b, x, w, alpha=2), (some(3, 2, 60), some(3, 2, 40))),
    "embedding": ((40, 60), lambda w, x: functional.embedding(IDS, w) * x, (some(60),)),
    "embedding, padding": ((40, 60), lambda w, x: functional.embedding(IDS, w, 7) * x, (some(60),)),
    "rows by number": ((40, 60), lambda w, x: w[IDS] * x, (some(60),)),
    "one row": ((40, 60), lambda w, x: w[5] * x + w[-1], (some(60),)),
    "tied head": ((40, 60), looked_up_and_multiplied, (some(60),)),
    "tied head, rows again": ((40, 60), lambda w, x: x @ w.T + w[IDS[0]].sum() * (x @ w.T), (some(3, 60),)),
    "t": ((40, 60), lambda w, x: x @ w.t(), (some(3, 60),)),
    "T": ((40, 60), lambda w, x: x @ w.T, (some(3, 60),)),
    "mT": ((40, 60), lambda w, x: x @ w.mT, (some(3, 60),)),
    "transpose": ((40, 60), lambda w, x: x @ w.transpose(0, 1), (some(3, 60),)),
    "transposed twice": ((40, 60), lambda w, x: x @ w.T.T, (some(3, 40),)),
    "permute": ((40, 60), lambda w, x: x @ w.permute(1, 0), (some(3, 60),)),
    "permute, stack": ((3, 40, 60), lambda w, x: x @ w.permute((0, 2, 1)), (some(3, 2, 60),)),
    "one of a stack": ((3, 40, 60), lambda w, x: x @ w[1] - x @ w[-1], (some(3, 40),)),
    "one by a tensor": ((3, 40, 60), lambda w, x: x @ w[torch.tensor(2)], (some(3, 40),)),
    "select": ((3, 40, 60), lambda w, x: functional.linear(x, w.select(0, 1)), (some(3, 60),)),
    "a stack's matrices": ((3, 40, 60), stack_of_three, (some(2, 40),)),
    "unbind": ((3, 40, 60), lambda w, x: sum(x @ one for one in w.unbind(0)), (some(2, 40),)),
    "slices": ((40, 60), lambda w, x: x @ w[5:25, -30:], (some(3, 20),)),
    "slices of slices": ((40, 60), lambda w, x: x @ w[5:25].T[10:40, :7], (some(3, 30),)),
    "narrow": ((40, 60), lambda w, x: x @ w.narrow(1, 3, 20).narrow(-1, 2, 9), (some(3, 40),)),
    "chunk": ((120, 60), queries_keys_values, (some(2, 3, 60),)),
    "split": ((40, 60), split_by_sizes, (some(3, 40),)),
    "split, equal": ((40, 60), lambda w, x: sum(x @ part for part in w.split(20, -1)), (some(3, 40),)),
    "einsum": ((40, 60), lambda w, x: torch.einsum("bsd,df->bsf", x, w), (some(2, 2, 40),)),
    "einsum, transposed": ((40, 60), lambda w, x: torch.einsum("fd,sd->fs", w, x), (some(3, 60),)),
    "einsum, no arrow": ((40, 60), lambda w, x: torch.einsum("sd,df", x, w), (some(3, 40),)),
    "einsum, dots": ((40, 60), lambda w, x: torch.einsum("...d,df->...f", x, w), (some(2, 2, 40),)),
    "einsum, heads": ((40, 6, 10), lambda w, x: torch.einsum("bsd,dnh->bsnh", x, w), (some(2, 2, 40),)),
    "einsum, heads first": ((6, 10, 40), lambda w, x: torch.einsum("bsd,nhd->bnsh", x, w), (some(2, 2, 40),)),
    "einsum, from heads": ((6, 10, 40), lambda w, x: torch.einsum("bsnh,nhd->bsd", x, w), (some(2, 2, 6, 10),)),
    "einsum, to heads": ((40, 6, 10), lambda w, x: torch.einsum("snh,dnh->sd", x, w), (some(3, 6, 10),)),
    "einsum, experts": ((3, 40, 60), lambda w, x: torch.einsum("ted,edf->tef", x, w), (some(2, 3, 40),)),
    "einsum, experts last": ((3, 40, 60), lambda w, x: torch.einsum("etf,edf->tde", x, w), (some(3, 2, 60),)),
    "conv1d": ((40, 6, 5), lambda w, x: functional.conv1d(x, w, stride=3, padding=2), (some(2, 6, 7),)),
    "conv1d, one signal": ((40, 6, 5), lambda w, x: functional.conv1d(x, w, dilation=2), (some(6, 11),)),
    "conv2d": (
        (40, 3, 4, 5),
        lambda w, x, b: functional.conv2d(x, w, b, stride=(2, 3), padding=(1, 2), dilation=(1, 2)),
        (some(1, 3, 5, 9), some(40)),
    ),
    "patches": ((40, 3, 4, 4), lambda w, x, b: functional.conv2d(x, w, b, stride=4), (some(1, 3, 8, 4), some(40))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_gives_what_it_gives_with_real_weights(name: str) -> None:
    shape, function, inputs = CASES[name]
    model = build(lambda: Parametrised(shape, function))
    assert_is_the_real_network(model, lambda: Parametrised(shape, function), inputs)
    source = model.weight.source
    assert source.data is None
    assert all(weight.real is None for weight in source.parts())


WHOLE = ["linear, bias", "W @ x", "bmm", "tied head, rows again", "slices", "split", "einsum, heads", "conv2d"]


@pytest.mark.parametrize("name", WHOLE)
def test_so_it_does_where_many_vectors_make_it_draw_the_matrix(name: str) -> None:
    shape, function, inputs = CASES[name]
    along = {"W @ x": -1, "bmm": 1}.get(name, 0)
    inputs = (inputs[0].repeat_interleave(40, along), *inputs[1:])
    inputs = tuple(x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for x in inputs)
    model = build(lambda: Parametrised(shape, function))
    assert_is_the_real_network(model, lambda: Parametrised(shape, function), inputs)
    assert all(weight.real is not None for weight in model.weight.source.parts())
