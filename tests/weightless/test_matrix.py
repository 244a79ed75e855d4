"""Products with a matrix that is known only by what it has met: consistent to rounding, and exact in distribution."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from scipy.stats import ks_2samp

torch = pytest.importorskip("torch")

from assertions import FALSE_ALARM

from shaped_transformer import InputError
from shaped_transformer.weightless.matrices import matrix, once
from shaped_transformer.weightless.matrices.factor import factorise, multiply, product_norm, tolerance
from shaped_transformer.weightless.matrices.matrix import Matrix, query_gaussian, query_haar, unknown
from shaped_transformer.weightless.matrices.streams import Side, Stream

Query = Callable[..., tuple[Any, Matrix]]
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-13}
SIDES: tuple[Side, Side] = ("left", "right")


def generator(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


class Drawn:
    """A random matrix that answers queries, and remembers them with their answers."""

    def __init__(self, a: int, b: int, dtype: Any, *, haar: bool = False, samples: tuple[int, ...] = ()) -> None:
        self.state, self.query = unknown(a, b, dtype, samples), query_haar if haar else query_gaussian
        self.dtype, self.samples, self.sizes = dtype, samples, {"left": b, "right": a}
        self.generator, self.draws = generator(1), 0
        self.asked: list[tuple[Side, Any, Any]] = []

    def __call__(self, side: Side, x: Any) -> Any:
        def draw(count: int) -> Any:
            self.draws += 1
            shape = (*self.samples, count, self.sizes[side])
            return torch.randn(shape, dtype=self.dtype, generator=self.generator)

        product, self.state = self.query(self.state, side, x, draw)
        self.asked.append((side, x, product))
        return product


def vectors(count: int, length: int, dtype: Any, seed: int) -> Any:
    """Vectors in general position, repeated, scaled, nearly parallel, and zero."""
    x = torch.randn(count, length, dtype=torch.float64, generator=generator(seed))
    kind = seed % 5
    if kind == 1:
        x[-1] = x[0]
    elif kind == 2:
        x[-1] = -1e6 * x[0] + 1e-3 * x[1]
    elif kind == 3:
        x[1:] = x[:1] + 1e-3 * x[1:]  # correlations of 1 - 1e-6
    elif kind == 4:
        x[0] = 0
    return x.to(dtype)


def asked(dtype: Any, *, haar: bool, a: int = 400, b: int = 300, count: int = 100) -> Drawn:
    """A matrix after alternating queries, some of which repeat or combine earlier vectors and products."""
    w = Drawn(a, b, dtype, haar=haar)
    for number in range(count):
        side = SIDES[number % 2]
        x = vectors(3, a if side == "left" else b, dtype, number)
        if number % 7 == 6:  # vectors that depend on what is known
            x = w.asked[-1][2]
        if number % 11 == 10:
            x = torch.cat([w.asked[-2][1], x[:1]])
        w(side, x)
    return w


def errors(w: Drawn) -> tuple[float, float]:
    """Return the largest deviation of the directions from orthonormal, and of the products from adjoint ones."""
    sides = [one.directions.double() for one in (w.state.left, w.state.right)]
    orthonormal = max(float((q @ q.mT - torch.eye(len(q), dtype=q.dtype)).abs().max()) for q in sides if len(q))
    lefts = [(x.double(), y.double()) for side, x, y in w.asked if side == "left"]
    rights = [(x.double(), y.double()) for side, x, y in w.asked if side == "right"]
    adjoint = 0.0
    for x, xw in lefts:
        for g, gw in rights:
            scale = 1e-300 + x.norm(dim=1)[:, None] * g.norm(dim=1) * w.state.left.images.norm(dim=1).max().double()
            adjoint = max(adjoint, float(((x @ gw.T - xw @ g.T) / scale).abs().max()))
    return orthonormal, adjoint


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_hundred_queries_of_a_gaussian_matrix_are_those_of_one_matrix(dtype: Any) -> None:
    orthonormal, adjoint = errors(asked(dtype, haar=False))
    assert orthonormal < ROUNDING[dtype]
    assert adjoint < 10 * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_hundred_queries_of_a_haar_matrix_are_those_of_one_matrix(dtype: Any) -> None:
    w = asked(dtype, haar=True, a=500, b=500)
    orthonormal, adjoint = errors(w)
    assert orthonormal < ROUNDING[dtype]
    assert adjoint < 10 * ROUNDING[dtype]
    images = w.state.left.images.double()
    assert float((images @ images.T - torch.eye(len(images), dtype=images.dtype)).abs().max()) < ROUNDING[dtype]
    for _, x, product in w.asked:
        torch.testing.assert_close(product.norm(dim=1), x.norm(dim=1), rtol=30 * ROUNDING[dtype], atol=0)


@pytest.mark.parametrize("haar", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_known_vector_has_its_product_without_a_draw(dtype: Any, *, haar: bool) -> None:
    w = asked(dtype, haar=haar, a=300, b=300, count=12)
    before = w.draws, w.state.left.directions.shape, w.state.right.directions.shape
    for side, x, product in list(w.asked):
        scale = product.abs().max()
        torch.testing.assert_close(w(side, x), product, rtol=0, atol=float(100 * ROUNDING[dtype] * scale))
        torch.testing.assert_close(w(side, -2 * x), -2 * product, rtol=0, atol=float(200 * ROUNDING[dtype] * scale))
        total = x.sum(0, keepdim=True)
        torch.testing.assert_close(w(side, total)[0], product.sum(0), rtol=0, atol=float(300 * ROUNDING[dtype] * scale))
    assert (w.draws, w.state.left.directions.shape, w.state.right.directions.shape) == before


def test_the_rank_is_that_of_the_vectors() -> None:
    w = Drawn(40, 30, torch.float64)
    assert (w("left", torch.zeros(3, 40, dtype=torch.float64)) == 0).all()
    assert w.draws == 0
    w("left", vectors(4, 40, torch.float64, 1))
    assert w.state.left.directions.shape == (3, 40)
    w("left", torch.randn(60, 40, dtype=torch.float64))
    assert w.state.left.directions.shape == (40, 40)
    w("right", torch.randn(50, 30, dtype=torch.float64))
    assert w.state.right.directions.shape == (30, 30)
    left, right = w.state.left, w.state.right
    torch.testing.assert_close(left.directions.T @ left.images, right.images.T @ right.directions, rtol=0, atol=1e-12)
    assert w("left", torch.zeros(0, 40, dtype=torch.float64)).shape == (0, 30)


@pytest.mark.parametrize("haar", [False, True])
def test_all_of_a_matrix_by_the_identity_is_that_matrix(*, haar: bool) -> None:
    w = Drawn(30, 30, torch.float64, haar=haar)
    x, g = (torch.randn(3, 30, dtype=torch.float64, generator=generator(seed)) for seed in (0, 1))
    first, second = w("left", x), w("right", g)
    whole = w("left", torch.eye(30, dtype=torch.float64))
    torch.testing.assert_close(x @ whole, first, rtol=0, atol=1e-12)
    torch.testing.assert_close(g @ whole.T, second, rtol=0, atol=1e-12)
    if haar:
        torch.testing.assert_close(whole @ whole.T, torch.eye(30, dtype=torch.float64), rtol=0, atol=1e-12)


SHAPE = {False: (12, 9), True: (10, 10)}
SAMPLES = 4000
Multiply = Callable[[Side, Any], Any]


def statistics(multiply: Multiply, a: int, dtype: Any, samples: int = SAMPLES) -> dict[str, Any]:
    """Return what alternating queries give, each of vectors that depend on the products before."""
    x = torch.eye(2, a, dtype=dtype).expand(samples, 2, a).clone()
    x[:, 1, 0] = 0.5
    xw = multiply("left", x)
    xww = multiply("right", xw)
    more = multiply("left", torch.tanh(xww))
    back = multiply("right", more[:, :1] + xw[:, 1:])
    return {
        "|xW|": xw[:, 0].norm(dim=-1),
        "first entry": xw[:, 0, 0],
        "inner product of two": (xw[:, 0] * xw[:, 1]).sum(-1),
        "|WᵀWx|": xww[:, 1].norm(dim=-1),
        "entry of WᵀWx": xww[:, 0, 1],
        "|tanh(WᵀWx)W|": more[:, 0].norm(dim=-1),
        "mixed": (more[:, 1] * xw[:, 0]).sum(-1),
        "last": back[:, 0, :3].sum(-1),
        "last with the first": (back[:, 0] * x[:, 0]).sum(-1),
    }


def real(*, haar: bool, dtype: Any, std: float = 1.0) -> dict[str, Any]:
    a, b = SHAPE[haar]
    w = std * torch.randn(SAMPLES, a, b, dtype=dtype, generator=generator(11))
    if haar:
        q, r = torch.linalg.qr(w)
        w = std * q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return statistics(lambda side, x: x @ (w if side == "left" else w.mT), a, dtype)


def weightless(*, haar: bool, dtype: Any) -> dict[str, Any]:
    return statistics(Drawn(*SHAPE[haar], dtype, haar=haar, samples=(SAMPLES,)), SHAPE[haar][0], dtype)


def different(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the statistics whose distributions differ, at the joint level `FALSE_ALARM`."""
    found = []
    for name, values in first.items():
        one, other = values.double().numpy(), second[name].double().numpy()
        if abs(one - one[0]).max() < 1e-4 and abs(other - one[0]).max() < 1e-4:
            continue  # a Haar matrix keeps norms
        if ks_2samp(one, other, method="asymp").pvalue < FALSE_ALARM / len(first):
            found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("haar", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_have_the_distribution_of_those_with_real_matrices(dtype: Any, *, haar: bool) -> None:
    drawn = weightless(haar=haar, dtype=dtype)
    assert different(drawn, real(haar=haar, dtype=dtype)) == []
    assert different(drawn, real(haar=haar, dtype=dtype, std=1.1)) != []


def test_the_test_sees_a_backward_pass_that_forgets_the_forward_one() -> None:
    """Independent products of the two sides, as they would come from differentiating through the draws."""
    forward, backward = (Drawn(*SHAPE[False], torch.float64, samples=(1000,)) for _ in range(2))
    backward.generator.manual_seed(2)
    sides = {"left": forward, "right": backward}
    forgetful = statistics(lambda side, x: sides[side](side, x), 12, torch.float64, 1000)
    assert len(different(forgetful, real(haar=False, dtype=torch.float64))) > 3


@pytest.mark.parametrize("haar", [False, True])
def test_samples_of_one_batch_may_have_different_ranks(*, haar: bool) -> None:
    a, b = SHAPE[haar]
    x = torch.randn(4, 3, a, dtype=torch.float64, generator=generator(5))
    x[1, 2], x[2], x[3, 1:] = x[1, 0], 0, 2 * x[3, :1]
    w = Drawn(a, b, torch.float64, haar=haar, samples=(4,))
    first = w("left", x)
    g = torch.randn(4, 2, b, dtype=torch.float64, generator=generator(6))
    back = w("right", g)
    torch.testing.assert_close(x @ back.mT, first @ g.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(first[1, 2], first[1, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(first[3, 1], 2 * first[3, 0], rtol=0, atol=1e-12)
    assert (first[2] == 0).all()
    for number in range(4):
        q = w.state.left.directions[number]
        present = q[q.norm(dim=-1) > 0]
        torch.testing.assert_close(present @ present.T, torch.eye(len(present), dtype=q.dtype), rtol=0, atol=1e-13)
    whole = w("left", torch.eye(a, dtype=torch.float64).expand(4, a, a))
    torch.testing.assert_close(x @ whole, first, rtol=0, atol=1e-11)
    torch.testing.assert_close(g @ whole.mT, back, rtol=0, atol=1e-11)


def test_samples_with_directions_that_others_lack_have_the_right_distribution() -> None:
    """Every second sample meets a repeated vector, so that its batch has a direction that it lacks."""
    a, b = SHAPE[False]
    x = torch.eye(2, a, dtype=torch.float64).repeat(2000, 1, 1)
    x[::2, 1] = x[::2, 0]
    w = Drawn(a, b, torch.float64, samples=(2000,))
    w("left", x)
    xw = w("left", torch.ones(2000, 1, a, dtype=torch.float64))[:, 0]
    norms = w("right", xw[:, None])[:, 0].norm(dim=-1)
    m = torch.randn(2000, a, b, dtype=torch.float64, generator=generator(13))
    expected = (m.mT.sum(-1)[:, None] @ m.mT)[:, 0].norm(dim=-1)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        assert ks_2samp(norms[part], expected[part]).pvalue > FALSE_ALARM / 2
        assert ks_2samp(norms[part], 1.15 * expected[part]).pvalue < FALSE_ALARM / 2


def times(u: Any, w: Any) -> Any:
    return u @ w


def single_use(x: Any, g: Any, first: Side, stream: Stream) -> tuple[Any, Any]:
    """Products of the first vectors of each side, without a history."""
    factors = [factorise(one, tolerance(x.dtype)) for one in (x, g)]
    forward = once.first_images(factors[0], g.shape[1], stream, first)
    part = once.own_part(g, factors[1], factors[0].rank, x.shape[1], stream, first)
    return forward, once.second_images(part, x, factors[0])


@pytest.mark.parametrize("first", SIDES)
@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("dtype", ROUNDING)
def test_single_use_is_the_history_of_the_same_stream(dtype: Any, kind: int, first: Side) -> None:
    stream = Stream(0, "w", dtype)
    x, g = vectors(4, 120, dtype, kind), vectors(3, 90, dtype, kind + 5)
    state = unknown(*((120, 90) if first == "left" else (90, 120)), dtype)
    second: Side = "right" if first == "left" else "left"
    expected = []
    for side, one, columns in ((first, x, 90), (second, g, 120)):
        normals = lambda count, side=side, columns=columns: stream.matrix(count, columns, side, 0)  # noqa: E731
        product, state = query_gaussian(state, side, one, normals)
        expected.append(product)
    for ours, theirs in zip(single_use(x, g, first, stream), expected, strict=True):
        scale = theirs.double().norm(dim=1, keepdim=True) + 1e-300
        assert float(((ours - theirs) / scale).abs().max()) < 3000 * ROUNDING[dtype]
    forward, backward = single_use(x, g, first, stream)
    bound = x.double().norm(dim=1)[:, None] * g.double().norm(dim=1)
    gap = (x.double() @ backward.double().T - forward.double() @ g.double().T).abs()
    assert bool((gap <= 300 * ROUNDING[dtype] * (bound + 1e-300)).all())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_use_has_the_distribution_of_a_real_matrix(dtype: Any) -> None:
    a, b = SHAPE[False]
    x, g = torch.eye(2, a, dtype=dtype), torch.ones(2, b, dtype=dtype)
    x[1, :3], g[0, 4:] = 1.0, 0.5

    def measured(xw: Any, multiply: Callable[[Any], Any]) -> list[Any]:
        gw = multiply(g * (1 + xw.tanh()))
        return [xw[0].norm(), (xw[0] * xw[1]).sum(), gw[0].norm(), gw[0, 0], (gw[0] * gw[1]).sum(), gw[1, 5:].sum()]

    ours, theirs = [], []
    for seed in range(2000):
        stream = Stream(seed, "w", dtype)
        factor = factorise(x, tolerance(dtype))

        def back(u: Any, stream: Stream = stream, factor: Any = factor) -> Any:
            part = once.own_part(u, factorise(u, tolerance(dtype)), factor.rank, a, stream, "left")
            return once.second_images(part, x, factor)

        ours.append(torch.stack(measured(once.first_images(factor, b, stream, "left"), back)))
        w = torch.randn(a, b, dtype=dtype, generator=generator(seed))
        theirs.append(torch.stack(measured(x @ w, partial(times, w=w.T))))
    first, second = torch.stack(ours).T.double(), torch.stack(theirs).T.double()
    p_values = [ks_2samp(one, other).pvalue for one, other in zip(first, second, strict=True)]
    assert min(p_values) > FALSE_ALARM / 6
    wrong = [ks_2samp(1.1 * one, other).pvalue for one, other in zip(first, second, strict=True)]
    assert min(wrong) < FALSE_ALARM / 6


@pytest.mark.parametrize("scale", [1e-35, 1e-22, 1e-10, 1e10, 1e19, 1e30])
def test_tiny_and_huge_vectors_in_float32(scale: float) -> None:
    """Gradients of deep networks vanish or explode far beyond what the square of a float32 can hold."""
    x = vectors(3, 120, torch.float32, 0)
    w, other = Drawn(120, 90, torch.float32), Drawn(120, 90, torch.float32)
    torch.testing.assert_close(w("left", x * scale) / scale, other("left", x), rtol=1e-4, atol=1e-4)
    for seed, kind in enumerate((1, 2, 3)):
        y = vectors(3, 120, torch.float32, kind)
        exact, ours = (factorise(one, tolerance(torch.float32)) for one in (y.double(), y * scale))
        assert ours.rank <= exact.rank
        assert ours.rank == factorise(y, tolerance(torch.float32)).rank, seed
        rebuilt = ours.coordinates.double() @ (ours.inverse.double() @ (y * scale).double())
        torch.testing.assert_close((rebuilt / scale).float(), y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


def test_vectors_of_very_different_lengths() -> None:
    x = vectors(4, 120, torch.float32, 0) * torch.tensor([1e-25, 1.0, 1e-30, 1e20])[:, None]
    w = Drawn(120, 90, torch.float32)
    product = w("left", x)
    whole = w("left", torch.eye(120))
    norms = x.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(product / norms, (x / norms) @ whole.double(), rtol=0, atol=1e-5)


def test_vectors_that_are_not_finite_are_refused() -> None:
    for bad in (torch.inf, torch.nan):
        for dtype in ROUNDING:
            x = torch.ones(2, 40, dtype=dtype)
            x[1, 3] = bad
            with pytest.raises(InputError, match="infinite or undefined entries"):
                Drawn(40, 30, dtype)("left", x)


def test_passes_of_orthogonalisation_are_enough() -> None:
    assert matrix.PASSES > 1
    w = Drawn(200, 150, torch.float32)
    x = torch.randn(60, 200, generator=generator(1))
    for scale in (1e-2, 1e-4, 1e-5):
        w("left", x + scale * torch.randn(60, 200, generator=generator(2)))
        w("left", x[:1] + scale * torch.randn(5, 200, generator=generator(3)))
    q = w.state.left.directions.double()
    assert float((q @ q.T - torch.eye(len(q), dtype=q.dtype)).abs().max()) < 1e-6


def many_vectors(kind: str, dtype: Any) -> Any:
    x = torch.randn(700, 1000, dtype=torch.float64, generator=generator(len(kind)))
    if kind == "zeros":
        x[[0, 300]] = 0
    if kind == "repeated":
        x[400:500] = x[:100]
    if kind == "at small angles":
        x[400:500] = x[:100] + 1e-2 * x[400:500]
    return x.to(dtype)


@pytest.mark.parametrize("kind", ["independent", "zeros", "repeated", "at small angles"])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_many_vectors_are_multiplied_block_by_block(dtype: Any, kind: str) -> None:
    x, y = many_vectors(kind, dtype), many_vectors("independent", dtype)[:, :900]
    factor, other = (factorise(one, tolerance(dtype)) for one in (x, y))
    expected = x.double() @ x.double().T
    found = factor.coordinates.double() @ factor.coordinates.double().T
    assert float((found - expected).abs().max()) < 30 * ROUNDING[dtype] * float(expected.abs().max())
    assert factor.rank == {"zeros": 698, "repeated": 600}.get(kind, 700)
    weights, z = factor.coordinates.to(dtype), many_vectors("independent", dtype)[: factor.rank]
    out = torch.full((700, 1000), torch.nan, dtype=dtype)
    multiply(factor, weights, z, out)
    expected = weights @ z
    assert float((out - expected).abs().max()) < ROUNDING[dtype] * float(expected.abs().max())
    for one, two, a, b in ((factor, other, x, y), (other, factor, y, x)):
        expected_norm = float((a.double().T @ b.double()).norm())
        assert product_norm(one, two) == pytest.approx(expected_norm, rel=100 * ROUNDING[dtype])


def test_triangles_save_a_third_of_the_products() -> None:
    factor = factorise(many_vectors("independent", torch.float32), tolerance(torch.float32))
    work = sum((rows.stop - rows.start) * count for rows, count in factor.blocks)
    assert work < 0.7 * 700 * 700
