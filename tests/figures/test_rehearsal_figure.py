"""The figure of the coordinate check: its settings, and slopes of what is known."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.figures import catalogue, rehearsal
from shaped_transformer.figures.pieces import PieceRunner


class Known(PieceRunner):
    """Returns constructed pieces: what moves grows as a power of the width, another one for each quantity."""

    def run(self, tasks: Any) -> Any:
        rng = np.random.default_rng(0)
        done = {}
        for name, task in tasks.items():
            assert isinstance(task, partial)
            width, draws = task.args[1:3]
            noise = np.exp(1e-3 * rng.standard_normal((draws, 3)))
            done[name] = {key: width ** (0.25 * i) * noise for i, key in enumerate(rehearsal.SHOWN)}
        return done


def test_the_full_preset_reaches_the_width_that_small_stand_ins_do_not() -> None:
    settings = catalogue.settings("rehearsal")
    assert max(settings["draws"]) == 16_384
    assert settings["steps"] == 3


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ({100: 2, 256: 2}, "widths must be multiples of 256 .got 100"),
        ({256: 1, 512: 1}, "an interval needs at least 2 draws"),
        ({256: 2}, "at least 2 items"),
    ],
)
def test_widths_that_do_not_fit_are_refused(draws: dict[int, int], message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        catalogue.settings("rehearsal", changes={"draws": draws})


def test_slopes_are_those_of_the_pieces() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    data = catalogue.compute("rehearsal", catalogue.settings("rehearsal"), Known())
    for i, name in enumerate(rehearsal.SHOWN):
        np.testing.assert_allclose(data["slope"].sel(quantity=name, bound="value"), 0.25 * i, atol=1e-3)
    assert (data["low"] <= data["moved"]).all()
    assert (data["moved"] <= data["high"]).all()
    titles = list(rehearsal.headline(data))
    assert len(titles) == len(set(titles)) == len(rehearsal.KINDS) * len(rehearsal.SHOWN)


def test_all_models_of_a_width_have_the_same_sizes() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    made = [rehearsal._configuration(kind, 512, 2, 64) for kind in rehearsal.KINDS]
    assert len({tuple(getattr(one, name) for name in names) for one in made}) == 1
    assert len({type(one).__name__ for one in made}) == 2
