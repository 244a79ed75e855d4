"""The report's plot."""

import pytest

from shaped_transformer.training.report import plot_curves


@pytest.mark.parametrize(
    ("low", "high"), [(0.0104, 0.0119), (0.097, 0.152), (0.11, 0.19), (0.2, 1.9), (0.2, 5.5), (1e-22, 1.0)]
)
def test_the_ticks_of_gradients_differ_whatever_their_span(low: float, high: float) -> None:
    figure = plot_curves([], [{"step": 1, "gradient": [low, high]}])
    figure.canvas.draw()
    bottom, top = figure.axes[1].get_ylim()
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels() if bottom <= text.get_position()[1] <= top]
    assert len(labels) >= 2
    assert len(set(labels)) == len(labels), labels
