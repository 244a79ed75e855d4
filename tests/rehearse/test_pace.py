"""The bar of a rehearsal moves while updates are made."""

import pytest

pytest.importorskip("torch")

from shaped_transformer.rehearse.pace import Pace


def test_each_step_counts_one_however_much_of_it_is_streamed() -> None:
    moved: list[float] = []
    pace = Pace(moved.append, 100, 2)
    for share in (50, 40):  # of 100 in the first step: the size of its update
        pace.made(share)
    assert sum(moved) == pytest.approx(0.9)
    pace.finish_step()
    assert sum(moved) == pytest.approx(1)
    for _ in range(4):  # of 400: forward, backward, and the size of an update after two steps
        pace.made(150)
    assert sum(moved) == pytest.approx(2)
    pace.finish_step()
    pace.finish_step()
    assert sum(moved) == pytest.approx(3)
    assert min(moved) >= 0


def test_a_model_without_streamed_updates() -> None:
    moved: list[float] = []
    pace = Pace(moved.append, 0, 1)
    pace.made(10)
    pace.finish_step()
    pace.finish_step()
    assert sum(moved) == 2
