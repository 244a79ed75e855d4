"""Draws that come batch by batch are the same for any number of workers, and end when nobody wants more."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from assertions import FALSE_ALARM

import shaped_transformer as st
from shaped_transformer.analysis.advice import with_gamma
from shaped_transformer.views import chain, sampling
from shaped_transformer.views.by_name import VIEWS
from shaped_transformer.views.ensemble import joined
from shaped_transformer.views.stopping import WINDOW

ARCH, V0 = st.shaped_transformer(16, 12, gamma=0.6), st.inputs.equicorrelated(4, 0.2)


def stream(samples: int, batch: int = 16, workers: int | None = None) -> list[st.Ensemble]:
    return list(chain.stream(ARCH, V0, samples, 3, batch=batch, stop=WINDOW, workers=workers))


def test_a_stream_has_the_wanted_number_of_samples_in_batches() -> None:
    assert [e.samples for e in stream(40)] == [16, 16, 8]


def test_a_stream_is_the_same_for_any_number_of_workers_and_when_more_is_wanted() -> None:
    one, two, more = (
        np.concatenate([e.covariance for e in stream(samples, workers=workers)])
        for samples, workers in ((100, 1), (100, 2), (300, 2))
    )
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, more[:100])


def test_a_stream_has_the_distribution_of_sample() -> None:
    ranks = np.concatenate([e.effective_rank()[:, -1] for e in stream(2000, batch=256)])
    whole = st.chain.sample(ARCH, V0, 2000, 4, record=1, stop=WINDOW).effective_rank()[:, -1]
    assert st.statistics.two_sample(ranks, whole).p_value > FALSE_ALARM
    stronger = st.chain.sample(with_gamma(ARCH, 0.66), V0, 2000, 4, record=1, stop=WINDOW).effective_rank()[:, -1]
    assert st.statistics.two_sample(ranks, stronger).p_value < FALSE_ALARM


def test_a_stream_that_is_closed_draws_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw_batch = sampling.draw_batch

    def count(*arguments: Any, **options: Any) -> Any:
        drawn.append(1)
        return draw_batch(*arguments, **options)

    monkeypatch.setattr(sampling, "draw_batch", count)
    with closing(chain.stream(ARCH, V0, 16_000, 3, batch=16, stop=WINDOW, workers=1)) as batches:
        next(batches)
    assert len(drawn) < 10


@pytest.mark.parametrize("view", VIEWS)
def test_a_stream_continues_after_the_batches_that_it_skips(view: str) -> None:
    options: dict[str, Any] = {"batch": 8, "stop": WINDOW, "record": 3}
    whole = joined(list(VIEWS[view].stream(ARCH, V0, 24, 3, **options)))
    first = list(VIEWS[view].stream(ARCH, V0, 8, 3, **options))
    rest = list(VIEWS[view].stream(ARCH, V0, 16, 3, skip=1, **options))
    assert (whole.samples, len(whole.depth)) == (24, 3)
    for name in ("covariance", "eigenvalues", "stopped"):
        np.testing.assert_array_equal(getattr(joined(first + rest), name), getattr(whole, name))


@pytest.mark.parametrize("view", ["network", "sde"])
def test_a_stream_has_the_distribution_of_its_view(view: str) -> None:
    ranks = joined(list(VIEWS[view].stream(ARCH, V0, 2000, 3, batch=256, stop=WINDOW))).effective_rank()[:, -1]
    whole = VIEWS[view].sample(ARCH, V0, 2000, 4, record=1, stop=WINDOW).effective_rank()[:, -1]
    assert st.statistics.two_sample(ranks, whole).p_value > FALSE_ALARM
    stronger = VIEWS[view].sample(with_gamma(ARCH, 0.66), V0, 2000, 4, record=1, stop=WINDOW).effective_rank()[:, -1]
    assert st.statistics.two_sample(ranks, stronger).p_value < FALSE_ALARM
