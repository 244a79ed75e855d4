"""The two memory layouts: compiled kernels and plain NumPy give the same numbers from the same normals."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_same_law
from hypothesis import given
from hypothesis import strategies as some

import shaped_transformer as st
from shaped_transformer.numerics import compilation, linalg
from shaped_transformer.numerics.arrays import Array
from shaped_transformer.numerics.draws import Draws
from shaped_transformer.views import chain, sampling, sde

relu, tanh = st.Activation("relu"), st.ShapedSmooth("tanh", 2.0)
V0 = st.inputs.from_text(max_tokens=5)
CHAINS: dict[str, st.Architecture] = {
    "shaped": st.shaped_transformer(64, 6, gamma=0.7),
    "heads": st.shaped_attention_only(64, 6, gamma=0.7, heads=4, mask="causal"),
    "smooth": st.Architecture(64, 6, (st.Residual(st.MLP(tanh, hidden_width=96, input_gain=1.3), 0.5),)),
    "dense": st.shaped_mlp(64, 6, activation=st.ShapedReLU(0.0, -1.0)),
    "linear": st.deep_linear(64, 6),
    "post layer": st.Architecture(
        64,
        3,
        (
            st.Residual(st.SoftmaxAttention(mask="causal"), 1.0, 1.0, "post", "layer"),
            st.Residual(st.MLP(relu), 1.0, 1.0, "post", "layer"),
        ),
    ),
    "pre-norm": st.pre_norm_transformer(64, 6),
    "narrower than tokens": st.Architecture(4, 5, (st.Residual(st.ShapedAttention(), 0.6),)),
}


def in_both_layouts(verb: Callable[..., Array], *batches: Array) -> tuple[Array, Array]:
    """Return the result of a function in the sample-last and in the sample-first layout."""
    return verb(*(linalg.sample_last(a) for a in batches)), verb(*batches)


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@dataclass(frozen=True)
class Matrices:
    """Batches of random matrices to apply linalg's functions to."""

    samples: int
    m: int
    k: int
    n: int

    @property
    def a(self) -> Array:
        return normal(self.samples, self.m, self.k)

    @property
    def b(self) -> Array:
        return normal(self.samples, self.k, self.n)

    @property
    def wide(self) -> Array:
        return normal(self.samples, self.m, self.m + self.n)

    @property
    def lower(self) -> Array:
        return np.tril(self.a)

    @property
    def mask(self) -> Array:
        return np.tril(np.ones((self.m, self.m), dtype=bool))

    def masked_softmax(self, scale: float, mask: Array, plus: Array) -> tuple[Array, Array]:
        """The softmax of the first m columns, scaled, in both layouts."""
        return in_both_layouts(lambda x: linalg.masked_softmax(x[..., : self.m], 1.3, mask, plus), scale * self.wide)


VERBS: dict[str, Callable[[Matrices], tuple[Array, Array]]] = {
    "product": lambda x: in_both_layouts(linalg.product, x.a, x.b),
    "product with a lower-triangular factor": lambda x: in_both_layouts(linalg.product, x.lower, x.b),
    "product of lower-triangular factors": lambda x: in_both_layouts(linalg.product, x.lower, np.tril(x.b)),
    "product with one matrix": lambda x: in_both_layouts(lambda a: linalg.product(x.mask / x.m, a), x.a),
    "skip_and_product": lambda x: in_both_layouts(
        lambda skipped, a, b: linalg.skip_and_product(0.6, skipped, 0.8, a, b), x.lower[..., : min(x.k, x.n)], x.a, x.b
    ),
    "product_t": lambda x: in_both_layouts(linalg.product_t, x.a, normal(x.samples, x.n, x.k)),
    "product_t with a lower-triangular factor": lambda x: in_both_layouts(linalg.product_t, x.lower, x.a),
    "product_t with one matrix": lambda x: in_both_layouts(
        lambda a: linalg.product_t(a, x.mask / x.m), normal(x.samples, x.n, x.m)
    ),
    "gram": lambda x: in_both_layouts(linalg.gram, x.a),
    "squared_norm": lambda x: in_both_layouts(linalg.squared_norm, x.a),
    "inverse_squared_norm": lambda x: in_both_layouts(linalg.inverse_squared_norm, linalg.lq(x.wide)),
    "lq": lambda x: in_both_layouts(linalg.lq, x.a),
    "lq of a wide matrix": lambda x: in_both_layouts(linalg.lq, x.wide),
    "semidefinite_factor": lambda x: in_both_layouts(linalg.semidefinite_factor, linalg.gram(x.wide)),
    "masked_softmax": lambda x: x.masked_softmax(1.0, x.mask, np.eye(x.m)),
    "masked_softmax of large logits": lambda x: x.masked_softmax(30.0, x.mask | True, np.ones((x.m, x.m))),
    "unit_rows": lambda x: in_both_layouts(linalg.unit_rows, x.a),
    "pad": lambda x: in_both_layouts(lambda a: linalg.pad(a, x.k + 2), x.a),
    "vstack": lambda x: in_both_layouts(linalg.vstack, x.a, x.b),
    "hstack": lambda x: in_both_layouts(linalg.hstack, x.a, x.wide),
    "squared_singular_values": lambda x: in_both_layouts(linalg.squared_singular_values, x.a),
}


@pytest.mark.parametrize("verb", VERBS)
@given(some.builds(Matrices, some.integers(2, 40), some.integers(1, 9), some.integers(1, 9), some.integers(1, 9)))
def test_both_layouts_give_the_same_numbers(verb: str, matrices: Matrices) -> None:
    compiled, plain = VERBS[verb](matrices)
    assert compiled.shape == plain.shape
    np.testing.assert_allclose(compiled, plain, rtol=1e-9, atol=1e-11)


@given(some.integers(1, 8), some.integers(0, 4), some.integers(0, 100))
def test_factors_of_dependent_rows_are_exact(rows: int, rank: int, seed: int) -> None:
    """Rows of zeros and rows that depend on the rows above them occur behind a ReLU with few units."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((6, rows, rank)) @ rng.standard_normal((6, rank, rows + 2))
    a[:, 0] = 0
    for wide in (a, a[..., : max(rank, 1)]):
        factor = linalg.lq(linalg.sample_last(wide))
        assert factor.shape == (6, rows, min(wide.shape[1:]))
        np.testing.assert_allclose(linalg.gram(factor), linalg.gram(wide), atol=1e-11)


def test_a_factor_of_parts_is_that_of_the_whole() -> None:
    a = normal(20, 5, 23)
    parts = (linalg.sample_last(a[..., start : start + 7]) for start in range(0, 23, 7))
    np.testing.assert_allclose(linalg.factor_of_sum(parts), linalg.lq(a), atol=1e-12)


def test_compiled_factors_keep_eigenvalues_far_below_the_rounding_of_a_gram_matrix() -> None:
    q, _ = np.linalg.qr(normal(4, 4))
    a = np.stack([q * np.array([1, 1e-5, 1e-10, 1e-13])] * 3)
    values = linalg.squared_singular_values(linalg.lq(linalg.sample_last(a)))
    np.testing.assert_allclose(values[:, :3], [[1, 1e-10, 1e-20]] * 3, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-170, 1e-120, 1e120])
def test_compiled_factors_neither_overflow_nor_divide_by_zero(scale: float) -> None:
    a = normal(4, 3, 5) * scale
    factor = linalg.lq(linalg.sample_last(a))
    assert np.isfinite(factor).all()
    np.testing.assert_allclose(factor, linalg.lq(a), rtol=1e-10, atol=1e-139)


def test_infinite_entries_affect_their_own_sample_only() -> None:
    a = normal(6, 4, 4)
    a[2, 1, 1], a[4, 0, 0] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        for found in (
            linalg.gram(linalg.sample_last(a)),
            linalg.lq(linalg.sample_last(np.nan_to_num(a, posinf=1e300))),
        ):
            assert np.isfinite(found[[0, 1, 3, 5]]).all()
    assert not np.isfinite(linalg.squared_norm(linalg.sample_last(a))[[2, 4]]).any()


def test_wide_matrices_are_factored_as_accurately_as_by_reflections() -> None:
    """By Cholesky where its pivots are safe, else by reflections; the second matrix here is of the latter kind."""
    rows = linalg.MAX_KERNEL_TOKENS + 8
    a = normal(3, rows, 4 * rows)
    a[1, 5] = a[1, 4] + 1e-9 * a[1, 5]
    factor = linalg.lq(a)
    np.testing.assert_allclose(factor, linalg.lq_by_reflections(a), rtol=1e-7, atol=1e-12)
    assert 1e-10 < factor[1, 5, 5] / np.linalg.norm(a[1, 4]) < 1e-8


def draw_in_both_layouts(walk: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[sampling.Paths, sampling.Paths]:
    """Return a batch drawn with the compiled kernels, and the same by NumPy from the same random numbers."""
    records = tuple(range(walk.steps + 1))
    compiled = sampling.draw_batch(walk, 0, records, (0.0, 1e8), 0)
    monkeypatch.setattr(linalg, "is_sample_last", lambda _: False)
    return compiled, sampling.draw_batch(walk, 0, records, (0.0, 1e8), 0)


@pytest.mark.parametrize("name", CHAINS)
def test_chain_draws_the_same_in_both_layouts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = CHAINS[name]
    factor = np.linalg.cholesky(V0)[:, : arch.width]
    walk = replace(chain.new_walk(arch, factor, sample_last=True), size=40)
    compiled, plain = draw_in_both_layouts(walk, monkeypatch)
    np.testing.assert_allclose(compiled.covariance, plain.covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(compiled.eigenvalues, plain.eigenvalues, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scheme", ["wishart", "euler"])
@pytest.mark.parametrize("name", ["shaped", "heads", "smooth", "dense", "linear"])
def test_limit_draws_the_same_in_both_layouts(name: str, scheme: sde.Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = replace(sde.new_walk(CHAINS[name], np.linalg.cholesky(V0), 60, scheme, sample_last=True), size=30)
    compiled, plain = draw_in_both_layouts(walk, monkeypatch)
    np.testing.assert_allclose(compiled.covariance, plain.covariance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CHAINS)
def test_steps_keep_the_layout(name: str) -> None:
    """So no layer falls back to the slower layout unnoticed."""
    arch = CHAINS[name]
    factor = np.linalg.cholesky(V0)[:, : arch.width]
    for last in (True, False):
        walk = chain.new_walk(arch, factor, sample_last=last)
        draws = Draws(0, 1, 0, walk.size, sample_last=last)
        state = walk.step(walk.start(draws), draws)
        assert linalg.is_sample_last(state) is last


def test_both_layouts_have_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = CHAINS["shaped"]
    compiled = st.chain.sample(arch, V0, 4000, seed=0)
    monkeypatch.setattr(linalg, "prefers_kernels", lambda _: False)
    assert_same_law(compiled, st.chain.sample(arch, V0, 4000, seed=1))


@pytest.mark.parametrize("tokens", [linalg.MAX_KERNEL_TOKENS, linalg.MAX_KERNEL_TOKENS + 1])
def test_large_matrices_take_the_sample_first_layout(tokens: int) -> None:
    factor = np.eye(tokens)
    assert chain.new_walk(CHAINS["shaped"], factor).sample_last is (tokens == linalg.MAX_KERNEL_TOKENS)
    assert sde.new_walk(CHAINS["shaped"], factor, 200, "wishart").sample_last is (tokens == linalg.MAX_KERNEL_TOKENS)


@pytest.mark.slow
def test_kernels_are_compiled_once_with_a_notice(tmp_path: Path) -> None:
    code = (
        "import shaped_transformer as st; arch = st.shaped_transformer(16, 2);"
        "print(st.chain.sample(arch, st.inputs.equicorrelated(3, 0.2), 10, 0).covariance.sum())"
    )
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stderr == compilation.COMPILING_NOTICE + "\n"
    assert runs[1].stderr == ""
    assert runs[0].stdout == runs[1].stdout
