"""A hundred blocks at initialisation: the shaped model's gradients stay, those of skipless softmax die."""

import numpy as np
import pytest

pytest.importorskip("torch")

from shaped_transformer.figures import catalogue


@pytest.mark.slow
def test_gradients_through_a_hundred_blocks() -> None:
    data = catalogue.compute("gradients", catalogue.settings("gradients", changes={"networks": 8}))
    assert data.sizes["block"] == 100
    for quantity in ("stream", "query"):
        norms = np.median(data[quantity].sel(design="shaped"), axis=0)
        assert norms.max() / norms.min() < 10, quantity
    query = data["query"].sel(design="skipless").to_numpy()
    assert (query[:, :4].max(axis=1) / query[:, 4] > 1e10).all()
    assert np.isfinite(data["query"]).all()
