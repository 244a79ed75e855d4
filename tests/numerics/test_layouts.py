"""The two layouts: compiled kernels and plain NumPy give the same numbers from the same normals, draw by draw."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
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


def either(verb: Callable[..., Array], *batches: Array) -> tuple[Array, Array]:
    """What a verb gives in the two layouts."""
    return verb(*(linalg.sample_last(a) for a in batches)), verb(*batches)


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@given(some.integers(2, 40), some.integers(1, 9), some.integers(1, 9), some.integers(1, 9))
def test_verbs_agree(samples: int, m: int, k: int, n: int) -> None:
    a, b = normal(samples, m, k), normal(samples, k, n)
    wide, mask = normal(samples, m, m + n), np.tril(np.ones((m, m), dtype=bool))
    lower = np.tril(a)
    pairs = [
        either(linalg.product, a, b),
        either(linalg.product, lower, b),
        either(lambda x, y, z: linalg.skip_and_product(0.6, x, 0.8, y, z), lower[..., : min(k, n)], a, b),
        either(linalg.product, lower, np.tril(b)),
        either(lambda x: linalg.product(mask / m, x), a),
        either(linalg.product_t, a, normal(samples, n, k)),
        either(linalg.product_t, lower, a),
        either(lambda x: linalg.product_t(x, mask / m), normal(samples, n, m)),
        either(linalg.gram, a),
        either(linalg.squared_norm, a),
        either(linalg.inverse_squared_norm, linalg.lq(wide)),
        either(linalg.lq, a),
        either(linalg.lq, wide),
        either(linalg.semidefinite_factor, linalg.gram(wide)),
        either(lambda x: linalg.masked_softmax(x[..., :m], 1.3, mask, np.eye(m)), wide),
        either(lambda x: linalg.masked_softmax(x[..., :m], 1.3, mask | True, np.ones((m, m))), 30 * wide),
        either(linalg.unit_rows, a),
        either(lambda x: linalg.pad(x, k + 2), a),
        either(lambda x, y: linalg.above(x, y), a, b),
        either(lambda x, y: linalg.beside(x, y), a, wide),
        either(linalg.squared_singular_values, a),
    ]
    for compiled, plain in pairs:
        assert compiled.shape == plain.shape
        np.testing.assert_allclose(compiled, plain, rtol=1e-9, atol=1e-11)


@given(some.integers(1, 8), some.integers(0, 4), some.integers(0, 100))
def test_a_factor_of_dependent_rows_loses_nothing(rows: int, rank: int, seed: int) -> None:
    """Rows of zeros and rows that depend on those above, as a ReLU of few units makes them."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((6, rows, rank)) @ rng.standard_normal((6, rank, rows + 2))
    a[:, 0] = 0
    for wide in (a, a[..., : max(rank, 1)]):
        factor = linalg.lq(linalg.sample_last(wide))
        assert factor.shape == (6, rows, min(wide.shape[1:]))
        np.testing.assert_allclose(linalg.gram(factor), linalg.gram(wide), atol=1e-11)


def test_a_factor_may_come_in_pieces() -> None:
    a = normal(20, 5, 23)
    pieces = (linalg.sample_last(a[..., start : start + 7]) for start in range(0, 23, 7))
    np.testing.assert_allclose(linalg.factor_of_sum(pieces), linalg.lq(a), atol=1e-12)


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


def test_infinite_entries_stay_in_their_sample() -> None:
    a = normal(6, 4, 4)
    a[2, 1, 1], a[4, 0, 0] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        for found in (
            linalg.gram(linalg.sample_last(a)),
            linalg.lq(linalg.sample_last(np.nan_to_num(a, posinf=1e300))),
        ):
            assert np.isfinite(found[[0, 1, 3, 5]]).all()
    assert not np.isfinite(linalg.squared_norm(linalg.sample_last(a))[[2, 4]]).any()


def test_wide_matrices_take_the_short_way_only_where_it_is_safe() -> None:
    """By Cholesky where the pivots allow it, else by reflections: both to the last digits."""
    rows = linalg.SMALL + 8
    a = normal(3, rows, 4 * rows)
    a[1, 5] = a[1, 4] + 1e-9 * a[1, 5]
    factor = linalg.lq(a)
    np.testing.assert_allclose(factor, linalg._lq_by_reflections(a), rtol=1e-7, atol=1e-12)
    assert 1e-10 < factor[1, 5, 5] / np.linalg.norm(a[1, 4]) < 1e-8


def walk_with_layouts(walk: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[sampling.Drawn, sampling.Drawn]:
    """A block drawn with the compiled kernels, and the same by NumPy on the same random numbers."""
    records = tuple(range(walk.steps + 1))
    compiled = sampling.draw_block(walk, 0, records, (0.0, 1e8), 0)
    monkeypatch.setattr(linalg, "is_sample_last", lambda _: False)
    return compiled, sampling.draw_block(walk, 0, records, (0.0, 1e8), 0)


@pytest.mark.parametrize("name", CHAINS)
def test_chain_is_the_same_draw_by_draw(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = CHAINS[name]
    factor = np.linalg.cholesky(V0)[:, : arch.width]
    walk = replace(chain.new_walk(arch, factor, sample_last=True), size=40)
    compiled, plain = walk_with_layouts(walk, monkeypatch)
    np.testing.assert_allclose(compiled.covariance, plain.covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(compiled.eigenvalues, plain.eigenvalues, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scheme", ["wishart", "euler"])
@pytest.mark.parametrize("name", ["shaped", "heads", "smooth", "dense", "linear"])
def test_limit_is_the_same_draw_by_draw(name: str, scheme: sde.Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = replace(sde.new_walk(CHAINS[name], np.linalg.cholesky(V0), 60, scheme, sample_last=True), size=30)
    compiled, plain = walk_with_layouts(walk, monkeypatch)
    np.testing.assert_allclose(compiled.covariance, plain.covariance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", CHAINS)
def test_steps_keep_the_layout(name: str) -> None:
    """No layer falls back to the slow path unnoticed."""
    arch = CHAINS[name]
    factor = np.linalg.cholesky(V0)[:, : arch.width]
    for last in (True, False):
        walk = chain.new_walk(arch, factor, sample_last=last)
        draws = Draws(0, 1, 0, walk.size, sample_last=last)
        state = walk.step(walk.start(draws), draws)
        assert linalg.is_sample_last(state) is last


def test_both_layouts_have_the_same_law(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = CHAINS["shaped"]
    compiled = st.chain.sample(arch, V0, 4000, seed=0)
    monkeypatch.setattr(linalg, "is_small", lambda _: False)
    assert_same_law(compiled, st.chain.sample(arch, V0, 4000, seed=1))


@pytest.mark.parametrize("tokens", [linalg.SMALL, linalg.SMALL + 1])
def test_large_matrices_take_the_plain_path(tokens: int) -> None:
    factor = np.eye(tokens)
    assert chain.new_walk(CHAINS["shaped"], factor).sample_last is (tokens == linalg.SMALL)
    assert sde.new_walk(CHAINS["shaped"], factor, 200, "wishart").sample_last is (tokens == linalg.SMALL)


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
    assert runs[0].stderr == compilation.NOTICE + "\n"
    assert runs[1].stderr == ""
    assert runs[0].stdout == runs[1].stdout
