"""A hundred blocks at initialisation: the shaped model's gradients keep their norm, skipless softmax's vanish."""

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

from shaped_transformer.figures import catalogue

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    """Return the gradient norms of networks of a hundred blocks."""
    others = {"wide_width": 64, "wide_depth": 3, "perceptron_width": 16, "perceptron_depths": [1, 4]}
    few = {"networks": 8, "samples": 50, "network_samples": 20}
    made = catalogue.compute("gradients", catalogue.settings("gradients", changes=others | few))
    assert made.sizes["block"] == 100
    return made


@pytest.mark.parametrize("quantity", ["stream", "query"])
def test_gradients_of_the_shaped_transformer_keep_their_norm(data: xr.Dataset, quantity: str) -> None:
    norms = np.median(data[quantity].sel(design="shaped"), axis=0)
    assert norms.max() / norms.min() < 10


def test_query_gradients_of_skipless_softmax_vanish_within_five_blocks(data: xr.Dataset) -> None:
    query = data["query"].sel(design="skipless").to_numpy()
    assert (query[:, :4].max(axis=1) / query[:, 4] > 1e10).all()


def test_query_gradients_are_finite_in_all_designs(data: xr.Dataset) -> None:
    assert np.isfinite(data["query"]).all()
