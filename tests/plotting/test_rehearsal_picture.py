"""The picture of a rehearsal: its panels, lines and bands, from arrays alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray
from matplotlib.text import Text

from shaped_transformer.plotting import rehearsal as picture

LAYERS = ["h.input", "h.0", "h.1", "h.2"]


def measured(steps: int = 3, draws: int = 1, *, attention: bool = True, **changed: Any) -> Any:
    """What has the form of a rehearsal; numbers grow with the step, and with the draw."""
    step, draw = np.arange(steps + 1.0), 1 + np.arange(draws, dtype=float)
    layers = len(LAYERS)
    grows = draw[:, None, None] * step[:, None] * np.ones(layers)
    numbers: dict[str, Any] = {
        "loss": (("draw", "step"), draw[:, None] * (7 - step)),
        "output_largest": (("draw", "step"), draw[:, None] * (1 + step)),
        "gradient_total": (("draw", "update"), draw[:, None] * (1 + step[:-1])),
        "stream_change": (("draw", "step", "layer"), grows),
        "branch_change": (("draw", "step", "layer"), grows),
        "gradient_norm": (("draw", "step", "layer"), np.where(grows < steps * draw[:, None, None], 1 + grows, np.nan)),
    }
    coordinates = {"layer": LAYERS, "step": range(steps + 1), "draw": range(draws)}
    if attention:
        numbers["attention_range"] = (("draw", "step", "attention"), 10 * (1 + grows[:, :, 1:]))
        coordinates["attention"] = [f"h.{i}.attn" for i in range(3)]
    numbers |= changed

    def effects(blocks: list[str]) -> Any:
        values = 0.1 * np.ones((draws, steps, len(blocks))) * draw[:, None, None]
        return xarray.DataArray(values, {"draw": range(draws), "update": range(steps), "block": blocks})

    roles = {"embedding": effects([""]), "query": effects(["h.0", "h.1", "h.2"]), "head": effects([""])}
    settings = {"model": "Model", "parameters": 10, "optimiser": "adamw", "lr": 1e-3, "warmup": 20}
    return SimpleNamespace(
        data=xarray.Dataset(numbers, coordinates), layers=LAYERS, settings=settings, effect_by_role=lambda: roles
    )


def panel(result: Any, name: str, marks: Any = None) -> picture.Panel:
    (found,) = [one for one in picture.panels(result, marks) if one.name == name]
    return found


def test_each_number_has_a_panel_and_those_not_measured_have_none() -> None:
    names = [one.name for one in picture.panels(measured())]
    over = [*picture.OVER_LAYERS, *picture.OVER_ATTENTION, "effective_update", *picture.OVER_STEPS]
    assert names == over
    assert [one.name for one in picture.panels(measured(attention=False))] == [
        name for name in over if name != "attention_range"
    ]


def test_a_line_for_each_step_that_has_changed_something() -> None:
    assert [one.label for one in panel(measured(), "stream_change").series] == ["step 1", "step 2", "step 3"]
    assert [one.label for one in panel(measured(), "gradient_norm").series] == ["step 0", "step 1", "step 2"]
    many = [one.label for one in panel(measured(40), "stream_change").series]
    assert (many[0], many[-1], len(many)) == ("step 1", "step 40", picture.STEPS - 1)
    colours = [one.colour for one in panel(measured(5), "stream_change").series]
    assert len(set(colours)) == 5
    assert picture.step_colour(0, 5) not in colours


def test_several_draws_are_a_band_and_their_mean() -> None:
    line = panel(measured(draws=3), "stream_change").series[1]
    np.testing.assert_array_equal((line.low[0], line.values[0], line.high[0]), (2, 4, 6))
    assert line.has_band
    assert not panel(measured(), "stream_change").series[1].has_band
    bands = [len(axes.collections) for axes in picture.plot(measured(draws=3)).axes]
    assert bands[0] == 3


def test_matrices_outside_the_blocks_stand_beside_them() -> None:
    found = panel(measured(), "effective_update")
    assert found.names == ["before the blocks", "h.0", "h.1", "h.2", "after the blocks"]
    there = {one.label: np.flatnonzero(np.isfinite(one.values)).tolist() for one in found.series}
    assert there == {"embedding": [0], "query": [1, 2, 3], "head": [4]}
    assert found.ticks == ([0, 1, 2, 3, 4], ["in", "0", "1", "2", "out"])


def test_numbers_that_are_zero_or_undefined_leave_gaps() -> None:
    change = np.ones((1, 4, 4))
    change[0, :, 0] = 0
    change[0, 2, 2] = np.inf
    found = panel(measured(stream_change=(("draw", "step", "layer"), change)), "stream_change")
    np.testing.assert_array_equal(found.series[2].values, [np.nan, 1, np.nan, 1])
    low, high = found.limits
    assert 0 < low < 1 < high < 2


def test_marks_are_drawn_where_they_are_in_sight() -> None:
    marks = {"stream_change": 1.5, "attention_range": 1e6}
    shown = picture.panels(measured(), marks)
    assert picture.any_marked(shown)
    assert not picture.any_marked(picture.panels(measured(), {"attention_range": 1e6}))
    figure = picture.plot(measured(), marks)
    dotted = [sum(line.get_linestyle() == ":" for line in axes.lines) for axes in figure.axes]
    assert (dotted[0], sum(dotted)) == (1, 1)


def test_the_legend_names_steps_and_matrices() -> None:
    steps, roles = picture.key_of(picture.panels(measured()))
    assert [one.label for one in steps] == ["step 0", "step 1", "step 2", "step 3"]
    assert [one.label for one in roles] == ["embedding", "query", "head"]
    figure = picture.plot(measured(draws=2))
    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert {"step 3", "query", "too much above it"} & set(texts) == {"step 3", "query"}
    title = figure.get_suptitle()
    assert "AdamW, rate 0.001, warm-up over 20 steps; 2 networks, bands from the smallest to the largest" in title


def test_a_rehearsal_without_a_step_has_a_picture() -> None:
    result = measured(0)
    result.data = result.data.drop_vars("gradient_total")
    result.effect_by_role = dict
    names = [one.name for one in picture.panels(result)]
    assert names == ["attention_range", "loss", "output_largest"]
    picture.plot(result)
