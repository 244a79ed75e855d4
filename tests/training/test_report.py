"""The report: its plot, readable at the width of a page, and its perplexities."""

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from shaped_transformer.training import train
from shaped_transformer.training.report import LABELS, perplexity, plot_curves

from .runs import Make, held_out

PAGE_WIDTH = 800
"""Pixels to which a page scales the picture."""
SMALLEST_TEXT = 12
"""Pixels of the smallest text, at that width."""


def curves(panels: int, steps: int = 7) -> Figure:
    """The plot of a run of 300 steps in which so many quantities of six blocks were watched, as it is saved."""
    metrics = [{"step": s, "loss": 7 - s / 100} for s in range(1, 301, 10)]
    metrics += [{"step": s, "held_out_loss": 7 - s / 100} for s in range(50, 301, 50)]
    keys = list(LABELS)[:panels]
    values = [[1.0 + i, 2.0, 3.0, 4.0, 3.0, 2.0] for i in range(steps)]
    watch = [{"step": 1 + 50 * i} | dict.fromkeys(keys, values[i]) for i in range(steps)]
    figure = plot_curves(metrics, watch, entropy=6.0)
    figure.canvas.draw()
    return figure


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


@pytest.mark.parametrize("panels", range(5))
def test_panels_are_in_at_most_two_columns(panels: int) -> None:
    axes = curves(panels).axes
    assert len(axes) == 1 + panels
    assert len({round(each.get_position().x0, 1) for each in axes}) <= 2


@pytest.mark.parametrize("panels", range(5))
def test_all_text_can_be_read_at_the_width_of_a_page(panels: int) -> None:
    figure = curves(panels)
    texts: Any = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    pixels = PAGE_WIDTH / figure.get_figwidth() / 72
    assert min(text.get_fontsize() for text in texts) * pixels >= SMALLEST_TEXT


@pytest.mark.parametrize("panels", range(5))
def test_legends_and_titles_cover_nothing(panels: int) -> None:
    figure = curves(panels)
    legends: Any = [figure.axes[0].get_legend(), *figure.legends]
    boxes = [legend.get_window_extent() for legend in legends]
    boxes += [each.title.get_window_extent() for each in figure.axes[1:]]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(each.get_window_extent()) for each in figure.axes)
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_legend_has_the_first_and_the_last_of_many_watched_steps() -> None:
    labels = [text.get_text() for text in curves(2, steps=100).legends[0].get_texts()]
    assert labels == ["step 1", "step 1651", "step 3301", "step 4951"]


def test_the_values_of_a_single_block_are_visible() -> None:
    figure = plot_curves([], [{"step": 1, "effective_rank": [3.0]}])
    assert figure.axes[1].get_lines()[0].get_marker() == "o"


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["causal-lm", "masked-lm"])
def test_language_models_have_perplexities(task: str, recipe: Make, tmp_path: Path) -> None:
    outcome = train(recipe(task=task, save=0), tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| step | held-out loss | perplexity | seconds |" in report
    for step, loss in held_out(tmp_path):
        assert f"| {step} | {loss:.4f} | {math.exp(loss):.4g} |" in report
    assert f"held-out loss: {outcome.loss:.4f} at step 12, perplexity {math.exp(outcome.loss):.4g}" in report


@pytest.mark.filterwarnings("ignore")
def test_classifiers_have_no_perplexity(recipe: Make, tmp_path: Path) -> None:
    train(recipe(task="classification", save=0), tmp_path)
    assert "perplexity" not in (tmp_path / "report.md").read_text(encoding="utf-8")
