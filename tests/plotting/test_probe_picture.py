"""The picture of a probe: its panels, marks and names of layers, from arrays alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray

from shaped_transformer.plotting import probe as picture


def measured(layers: list[str], sequences: int = 2, **changed: Any) -> Any:
    """What has the form of a probe's result; all numbers are 0.5."""
    size = (len(layers), sequences)
    numbers = {panel.name: np.full(size, 0.5) for panel in picture.PANELS} | changed
    data = xarray.Dataset({name: (("layer", "sequence"), values) for name, values in numbers.items()})
    settings = {"model": "Model", "parameters": 10, "not_finite": None}
    blocks_only = np.arange(len(layers)) > 0
    return SimpleNamespace(
        data=data, layers=layers, settings=settings, known=lambda name: blocks_only | (name != "branch_share")
    )


def compared(layers: list[str], low: float, high: float, unusual: Any) -> Any:
    """What has the form of a comparison: one band for all numbers."""
    size = len(layers)
    band = SimpleNamespace(low=np.full(size, low), median=np.full(size, 0.5), high=np.full(size, high))
    return SimpleNamespace(
        bands={panel.name: band for panel in picture.PANELS}, unusual=lambda: unusual, label="as x does", draws=20
    )


def blocks(count: int, stack: str = "h") -> list[str]:
    return [f"{stack}.input", *(f"{stack}.{i}" for i in range(count))]


def test_each_number_has_a_panel_and_those_not_measured_have_none() -> None:
    result = measured(blocks(3))
    titles = [axes.get_title(loc="left") for axes in picture.plot(result).axes]
    assert titles == [panel.title for panel in picture.PANELS]
    result.data = result.data.drop_vars(["gradient_norm", "gradient_effective_rank"])
    figure = picture.plot(result)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison] == titles[:4]


def test_band_and_unusual_layers_are_shown() -> None:
    layers = blocks(5)
    comparison = compared(layers, -0.1, 1.4, {"effective_rank": {"h.2": 3.0}})
    found = {curve.panel.name: curve for curve in picture.curves(measured(layers), comparison)}
    assert {name: curve.unusual for name, curve in found.items() if curve.unusual} == {"effective_rank": [3]}
    low, high = found["token_norm"].drawn_band
    assert (low > 0).all()  # an end below 0 lies at the end of a logarithmic axis
    assert (high == 1.4).all()
    low, high = found["mean_absolute_correlation"].drawn_band
    assert (low[0], high[0]) == (0, 1)
    legend = [text.get_text() for text in picture.plot(measured(layers), comparison).legends[0].get_texts()]
    assert any("95 % of networks" in text and "20 draws" in text for text in legend)
    assert any("hardly ever" in text for text in legend)


def test_zeros_are_marked_below_a_logarithmic_axis_but_not_where_there_is_no_branch() -> None:
    layers = blocks(4)
    share = np.full((5, 2), 0.5)
    share[[0, 3]] = 0
    curve = next(c for c in picture.curves(measured(layers, branch_share=share)) if c.panel.name == "branch_share")
    assert curve.zeros == [3]
    np.testing.assert_array_equal(np.isnan(curve.mean), [True, False, False, True, False])
    picture.plot(measured(layers, branch_share=share))


def test_a_model_that_overflows_says_from_where() -> None:
    result = measured(blocks(4), token_norm=np.array([[1e-300], [1.0], [1e100], [1e200], [1e300]]) * np.ones(2))
    result.settings["not_finite"] = "h.4"
    legend = [text.get_text() for text in picture.plot(result).legends[0].get_texts()]
    assert "not finite from h.4 on" in legend


def test_many_sequences_have_few_lines() -> None:
    axes = picture.plot(measured(blocks(3), sequences=100)).axes[0]
    assert len(axes.lines) == picture.SEQUENCES + 1


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (blocks(3), ["in", "0", "1", "2"]),
        (blocks(96), ["in", "20", "40", "60", "80"]),
        ([f"h.{i}" for i in range(12)], ["0", "2", "4", "6", "8", "10"]),
        (blocks(2, "encoder") + blocks(2, "decoder"), ["0", "1", "2", "3", "4", "5"]),
        (["a.very_long_name_of_a_layer", "a.b"], ["very_…layer", "b"]),
    ],
)
def test_layers_are_named_without_overlap(layers: list[str], names: list[str]) -> None:
    positions, found = picture.ticks(layers)
    assert found == names
    assert all(0 <= position < len(layers) for position in positions)
