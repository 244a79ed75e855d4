"""The picture of a comparison is plotted from saved data, with labelled axes and every view in the legend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import shaped_transformer as st
from shaped_transformer.analysis.comparison import compare
from shaped_transformer.plotting import comparison
from shaped_transformer.views import sampling


def labels(figure: Figure) -> list[str]:
    return [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]


@pytest.mark.parametrize(("tokens", "panels"), [(3, 4), (1, 2)])
def test_comparison_is_plotted_from_the_saved_dataset(tmp_path: Path, tokens: int, panels: int) -> None:
    import xarray as xr

    v0 = st.inputs.equicorrelated(tokens, 0.2)
    result = compare(st.shaped_transformer(16, 6), v0, samples=50, network_samples=20, workers=1)
    result.to_datatree().to_zarr(tmp_path / "data.zarr", consolidated=False)
    with xr.open_datatree(tmp_path / "data.zarr", engine="zarr", consolidated=False) as data:
        figure = comparison.plot(data)
    assert len(figure.axes) == panels
    assert all(labels(figure))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["real networks", "exact chain", "SDE (limit)"]


def test_samples_that_are_all_equal_can_be_plotted() -> None:
    """They have no width by which their density could be divided."""
    result = compare(st.skipless_transformer(64, 30), np.eye(4), samples=30, network_samples=None)
    figure = comparison.plot(result.to_datatree())
    figure.draw_without_rendering()
    assert len(figure.axes) == 4


def test_the_samples_of_all_views_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chain and SDE, 100 draws each, at 7 layers: 4 × 4 covariances and 4 eigenvalues, in half of the memory."""
    needed = 2 * 100 * 7 * (4 * 4 + 4) * 8
    arguments: dict[str, Any] = {"samples": 100, "network_samples": None}
    monkeypatch.setattr(sampling, "physical_memory", lambda: 2.0 * needed)
    assert list(compare(st.shaped_transformer(16, 6), np.eye(4), **arguments).ensembles) == ["chain", "sde"]
    monkeypatch.setattr(sampling, "physical_memory", lambda: 2.0 * needed - 2)
    with pytest.raises(st.InputError, match=r"200 draws of 4 tokens at 7 recorded layers take .* ask for fewer"):
        compare(st.shaped_transformer(16, 6), np.eye(4), **arguments)
