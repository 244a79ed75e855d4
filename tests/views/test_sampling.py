"""Samples depend on the seed alone, paths outside the window are frozen, and wrong arguments are refused."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_covariance

import shaped_transformer as st
from shaped_transformer.views import sampling

ARCH = st.shaped_transformer(16, 12, gamma=0.6)
V0 = st.inputs.from_text(max_tokens=5)
SEVERAL_BATCHES = 3 * sampling.MAX_BATCH
"""Number of samples for which every view needs several batches."""
VIEWS: list[Any] = [st.network, st.chain, st.sde]
views = pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__.rsplit(".", 1)[-1])


def draw(view: Any, samples: int = 700, **options: Any) -> st.Ensemble:
    ensemble: st.Ensemble = view.sample(ARCH, V0, samples=samples, seed=3, **options)
    return ensemble


@views
def test_samples_are_the_same_for_any_number_of_workers(view: Any) -> None:
    one, two = draw(view, SEVERAL_BATCHES, workers=1), draw(view, SEVERAL_BATCHES, workers=2)
    np.testing.assert_array_equal(one.covariance, two.covariance)
    np.testing.assert_array_equal(one.eigenvalues, two.eigenvalues)


@views
def test_another_seed_gives_other_samples(view: Any) -> None:
    other = view.sample(ARCH, V0, samples=700, seed=4, workers=1)
    assert not np.array_equal(draw(view).covariance[:, -1], other.covariance[:, -1])


@views
def test_samples_are_the_same_for_any_records(view: Any) -> None:
    options = {} if view is not st.sde else {"steps": 12}
    every = draw(view, record=13, **options)
    np.testing.assert_array_equal(every.depth, np.arange(13))
    some = draw(view, record=[7, 0, 12], **options)
    np.testing.assert_array_equal(some.depth, [0, 7, 12])
    np.testing.assert_array_equal(some.covariance, every.covariance[:, [0, 7, 12]])
    np.testing.assert_array_equal(draw(view, record=1, **options).covariance[:, 0], every.covariance[:, -1])


@views
def test_the_first_samples_of_a_larger_run_are_the_same(view: Any) -> None:
    larger = draw(view, SEVERAL_BATCHES).covariance
    np.testing.assert_array_equal(draw(view, 5).covariance, larger[:5])
    half = SEVERAL_BATCHES // 2
    np.testing.assert_array_equal(draw(view, half).covariance, larger[:half])


@views
def test_samples_are_not_repeated(view: Any) -> None:
    last = draw(view, SEVERAL_BATCHES).covariance[:, -1, 0, 0]
    assert len(np.unique(last)) == SEVERAL_BATCHES


def test_views_use_independent_streams() -> None:
    chain, network = draw(st.chain), draw(st.network)
    assert abs(np.corrcoef(chain.covariance[:, -1, 0, 0], network.covariance[:, -1, 0, 0])[0, 1]) < 0.15


def test_a_dask_cluster_draws_the_same() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for view in VIEWS:
            on_cluster = draw(view, SEVERAL_BATCHES, client=client)
            np.testing.assert_array_equal(on_cluster.covariance, draw(view, SEVERAL_BATCHES).covariance)


@views
def test_results_are_covariances_with_their_eigenvalues(view: Any) -> None:
    ensemble = draw(view)
    assert ensemble.covariance.dtype == np.float64
    assert_covariance(ensemble.covariance)
    want = np.linalg.eigvalsh(ensemble.covariance)[..., ::-1]
    np.testing.assert_allclose(ensemble.eigenvalues, want, atol=1e-13 * want.max())
    np.testing.assert_allclose(ensemble.covariance[:, 0], np.broadcast_to(V0, (700, 5, 5)), atol=1e-13)


def test_eleven_whole_layers_are_recorded_by_default() -> None:
    assert len(draw(st.chain, 1).depth) == 11
    assert draw(st.chain, 1).depth.dtype.kind == "i"


def test_the_limit_is_recorded_at_its_steps() -> None:
    limit = draw(st.sde, 1, steps=10)
    np.testing.assert_allclose(limit.depth[[0, -1]], [0, 12])
    np.testing.assert_allclose(limit.depth / 1.2, np.rint(limit.depth / 1.2))
    np.testing.assert_allclose(limit.time, limit.depth / 16)


@pytest.mark.parametrize("view", [st.network, st.chain])
def test_paths_are_frozen_at_the_first_layer_outside_the_window(view: Any) -> None:
    free, stopped = draw(view, record=13), draw(view, record=13, stop=(0.003, 5.0))
    values = free.eigenvalues
    outside = (values[..., 0] > 5.0) | (values[..., -1] < 0.003)
    first = np.where(outside.any(axis=1), outside.argmax(axis=1), 13)
    assert 0 < np.mean(first <= 12) < 1
    np.testing.assert_array_equal(stopped.stopped, first)
    for sample in range(50):
        until = min(first[sample], 12)
        np.testing.assert_array_equal(stopped.covariance[sample, : until + 1], free.covariance[sample, : until + 1])
        assert (stopped.covariance[sample, until:] == stopped.covariance[sample, until]).all()


def test_an_input_outside_the_window_is_frozen_at_layer_zero() -> None:
    ensemble = st.chain.sample(ARCH, 5 * np.eye(3), samples=4, seed=0, stop=(0, 4.0))
    assert (ensemble.stopped == 0).all()
    np.testing.assert_allclose(ensemble.covariance, np.broadcast_to(5 * np.eye(3), (4, 11, 3, 3)))


@views
def test_paths_that_explode_stay_finite(view: Any) -> None:
    block = [st.Residual(st.ShapedAttention(tau0=0.05), 1.0)]
    if view is not st.sde:
        block.append(st.Residual(st.MLP(st.Activation("relu"), input_gain=1e40, normalise=False), 1.0, skip=1.0))
    arch = st.Architecture(8, 40, tuple(block))
    ensemble = view.sample(arch, 50 * np.eye(4), samples=64, seed=0)
    assert np.isfinite(ensemble.covariance).all()
    assert np.isfinite(ensemble.eigenvalues).all()
    assert (ensemble.stopped <= 40).any()


SKIPLESS = st.Architecture(256, 12, (st.Residual(st.SoftmaxAttention(), 1.0, skip=0.0),))


@pytest.fixture(scope="module")
def collapsing() -> st.Ensemble:
    """A chain without skips, whose covariance collapses to rank 1."""
    return st.chain.sample(SKIPLESS, st.inputs.equicorrelated(6, 0.2), samples=64, seed=0, record=13)


def test_the_chain_follows_a_collapse_below_the_rounding_of_covariances(collapsing: st.Ensemble) -> None:
    ratio = collapsing.eigenvalues[..., 1] / collapsing.eigenvalues[..., 0]
    assert (ratio.min(axis=1) < 1e-25).all()
    assert np.isfinite(collapsing.covariance).all()


def test_chain_and_network_collapse_alike_below_the_rounding_of_covariances(collapsing: st.Ensemble) -> None:
    network = st.network.sample(SKIPLESS, st.inputs.equicorrelated(6, 0.2), samples=64, seed=0, record=[3])
    of_network = np.log(network.eigenvalues[:, 0, 1] / network.eigenvalues[:, 0, 0])
    of_chain = np.log(collapsing.eigenvalues[:, 3, 1] / collapsing.eigenvalues[:, 3, 0])
    assert st.statistics.two_sample(of_network, of_chain).p_value > 1e-4
    assert np.median(of_network) < np.log(1e-12)  # the eigenvalues of a covariance in float64 would be rounding errors


@pytest.mark.parametrize("view", [st.network, st.chain])
@pytest.mark.parametrize("tokens", [1, 3])
def test_width_one_is_drawn(view: Any, tokens: int) -> None:
    v0 = st.inputs.from_vectors(np.ones((tokens, 1)))
    ensemble = view.sample(st.shaped_transformer(1, 3), v0, samples=3, seed=0)
    assert np.isfinite(ensemble.covariance).all()


MISTAKES = [
    ("samples must be", {"samples": 0}),
    ("samples must be", {"samples": 2.5}),
    ("draws of 5 tokens at 1 recorded layer take .* ask for fewer", {"samples": 10**15, "record": 1}),
    ("seed must be", {"seed": -1}),
    ("workers must be", {"workers": 0}),
    ("record must", {"record": 0}),
    ("record must", {"record": [13]}),
    ("record must", {"record": [0.5]}),
    ("record must", {"record": True}),
    ("record must", {"record": [[1], [1, 2]]}),
    ("stop must satisfy", {"stop": (1.0, 0.5)}),
    ("stop must be a pair", {"stop": 3}),
]


@views
@pytest.mark.parametrize(("message", "options"), MISTAKES)
def test_wrong_arguments_are_refused(view: Any, message: str, options: dict[str, Any]) -> None:
    with pytest.raises(st.InputError, match=message):
        view.sample(ARCH, V0, **({"samples": 4, "seed": 0} | options))


@views
def test_a_dictionary_is_not_an_architecture(view: Any) -> None:
    with pytest.raises(st.InputError, match=r"an Architecture is expected \(got dict\)"):
        view.sample(ARCH.to_dict(), V0, 4, seed=0)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(st.InputError, match="dtype must be"):
        st.network.sample(ARCH, V0, 4, seed=0, dtype="float16")  # type: ignore[arg-type]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(st.InputError, match="scheme must be"):
        st.sde.sample(ARCH, V0, 4, seed=0, scheme="heun")  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [True, 2.5, 0])
def test_steps_are_a_positive_whole_number(steps: Any) -> None:
    with pytest.raises(st.InputError, match="steps must be a whole number of at least 1"):
        st.sde.sample(ARCH, V0, 4, seed=0, steps=steps)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(st.InputError, match="steps must be at least 8 for 5 tokens"):
        st.sde.sample(ARCH, V0, 4, seed=0, steps=7)
    assert st.sde.sample(ARCH, V0, 4, seed=0, steps=8).settings["steps"] == 8


def test_an_interrupt_stops_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the caller cancels the running tasks: no thread is left when `sample` returns."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "progress", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        draw(st.chain, 5000)
    assert threading.active_count() == before


@pytest.mark.slow
def test_memory_of_a_large_run() -> None:
    """100,000 samples of 8 tokens with 5 records need less than 1 GB; depth, 5 here, does not change that."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    code = (
        "import shaped_transformer as st;"
        "a = st.shaped_attention_only(1000, 5, gamma=0.3);"
        "e = st.chain.sample(a, st.inputs.equicorrelated(8, .2), samples=100_000, seed=0, record=5);"
        "assert e.covariance.shape == (100_000, 5, 8, 8);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert peak < 1_000_000, f"{peak} kB"
