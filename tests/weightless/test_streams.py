"""Random numbers of a matrix: the same address gives the same normals, and other addresses independent ones."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

torch = pytest.importorskip("torch")

from assertions import FALSE_ALARM, z_limit

from shaped_transformer.weightless.matrices import streams
from shaped_transformer.weightless.matrices.streams import LEAST_WIDTH, PANEL, PURPOSES, Stream


def stream(seed: int = 0, name: str = "layer.weight", dtype: Any = torch.float64) -> Stream:
    return Stream(seed, name, dtype)


def p_value(values: Any) -> float:
    return float(kstest(values.double().flatten().numpy(), "norm").pvalue)


def correlation(first: Any, second: Any) -> float:
    """Return the correlation of two sets of independent normals, in its standard errors."""
    return float((first * second).double().mean() * first.numel() ** 0.5)


@pytest.fixture(params=["state", "fallback"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the normals come from: the state of PyTorch's generator, or NumPy where that is not known."""
    if request.param == "fallback":
        monkeypatch.setattr(streams, "_state_is_known", lambda: False)
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("source", "threads")
def test_an_address_gives_the_same_normals_whatever_came_before() -> None:
    shape = (3 * PANEL // 100 + 7, 100)
    expected = stream().normals(shape, "left", 3)
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        torch.manual_seed(count)
        np.random.seed(count)  # noqa: NPY002 - the global generator is what must not matter
        stream().normals((5,), "right", count)
        assert torch.equal(stream().normals(shape, "left", 3), expected)


def test_the_generators_of_pytorch_and_numpy_are_not_touched() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state()
    state: Any = np.random.get_state()  # noqa: NPY002
    stream().normals((1000,), "whole")
    stream().uniforms((1000,), 1)
    assert torch.equal(torch.get_rng_state(), before)
    after: Any = np.random.get_state()  # noqa: NPY002
    assert (after[1] == state[1]).all()


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_normal(dtype: Any) -> None:
    values = stream(dtype=dtype).normals((300, 1000), "left", 0)
    assert values.dtype == dtype
    assert p_value(values) > FALSE_ALARM
    assert p_value(values * 1.02) < FALSE_ALARM
    rows = torch.stack([stream(dtype=dtype).normals((100,), "row", row) for row in range(500)])
    assert p_value(rows) > FALSE_ALARM
    assert p_value(rows.mean(1) * 10) > FALSE_ALARM


def addresses() -> list[tuple[Stream, str, tuple[int, ...]]]:
    one = [(stream(), purpose, (number,)) for purpose in PURPOSES for number in range(3)]
    two = [(stream(), "left", (0, 0)), (stream(), "left", (0, 1)), (stream(), "left", (1, 0)), (stream(), "left", ())]
    return [
        *one,
        *two,
        (stream(1), "left", (0,)),
        (stream(name="other"), "left", (0,)),
        (stream(name=""), "left", (0,)),
    ]


@pytest.mark.usefixtures("source")
def test_other_seeds_names_purposes_and_numbers_are_independent() -> None:
    draws = [one.normals((2000,), purpose, *numbers) for one, purpose, numbers in addresses()]
    pairs = [(a, b) for number, a in enumerate(draws) for b in draws[:number]]
    assert not any(torch.equal(a, b) for a, b in pairs)
    limit = z_limit(len(pairs))
    assert all(abs(correlation(a, b)) < limit for a, b in pairs)
    assert abs(correlation(draws[0], draws[1] + 0.2 * draws[0])) > limit


@pytest.mark.usefixtures("source")
def test_chunks_of_one_draw_are_independent() -> None:
    values = stream().normals((4 * 2**17,), "whole").view(4, -1)
    limit = z_limit(6)
    for number in range(4):
        assert all(abs(correlation(values[number], values[other])) < limit for other in range(number))


def test_types_have_the_shape_asked_for() -> None:
    assert stream().normals((0, 5), "left").shape == (0, 5)
    assert stream().normals((), "left").shape == ()
    assert stream(dtype=torch.float32).uniforms((3, 2), 1).dtype == torch.float32


def test_many_streams_have_different_numbers() -> None:
    """Seeds of 32 bits would give two of 300,000 streams the same numbers ten times."""
    first = [float(stream(name=f"layers.{n}").normals((1,), "left", 0)) for n in range(2000)]
    assert len(set(first)) == 2000
    assert p_value(torch.tensor(first)) > FALSE_ALARM


@pytest.mark.parametrize("rows", [1, 7, PANEL // 100])
def test_panels_are_a_matrix_of_bounded_size(rows: int) -> None:
    columns = 2500
    ours = stream(dtype=torch.float32)
    parts = [(part, normals.clone()) for part, normals in ours.panels(rows, columns, "left", 0)]
    assert parts[0][0].start == 0
    assert all(first.stop == second.start for (first, _), (second, _) in pairwise(parts))
    assert parts[-1][0].stop == columns
    assert all(normals.shape == (rows, part.stop - part.start) for part, normals in parts)
    assert all(normals.numel() <= max(PANEL, rows * LEAST_WIDTH) for _, normals in parts)
    whole = ours.matrix(rows, columns, "left", 0)
    assert torch.equal(whole, torch.cat([normals for _, normals in parts], 1))
    assert p_value(whole[:, :50]) > FALSE_ALARM


def test_uniforms() -> None:
    values = stream().uniforms((20_000,), 2)
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    assert kstest(values.numpy(), "uniform").pvalue > FALSE_ALARM
    assert kstest((values * 1.05).numpy(), "uniform").pvalue < FALSE_ALARM
    assert torch.equal(values, stream().uniforms((20_000,), 2))
    assert abs(correlation(values - 0.5, stream().uniforms((20_000,), 3) - 0.5)) < z_limit()


def test_uniforms_in_float32_stay_below_one() -> None:
    """A conversion from float64 would round one number in 30 million up to 1, of which the erfinv is infinite."""
    values = stream(dtype=torch.float32).uniforms((100_000,), 0)
    assert values.dtype == torch.float32
    assert torch.equal(values * 2**24, (values * 2**24).round())
    assert kstest(values.numpy(), "uniform").pvalue > FALSE_ALARM
