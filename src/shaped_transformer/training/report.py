"""The report of a run that finished or diverged: curves, settings, data and versions."""

import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.files import writing_into
from ..io.provenance import command_line
from ..plotting.style import SERIES, save
from ..version import __version__
from .log import METRICS, WATCH, read
from .processes import process_count
from .recipe import Recipe
from .sample import Sample, to_markdown
from .task import ENTROPY, Task
from .variants import VARIANTS
from .watch import TOKENS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "effective_rank": "effective rank of the tokens",
    "gradient": "norm of the block's gradient",
    "identity_gain": "gain of the identity, mean over heads",
    "uniform_gain": "gain of the centring, mean over heads",
}
"""Labels of the watched quantities that the report plots."""
READING = (
    "*How to read it:* the first panel shows the losses, the others a quantity of each block, later steps darker. The "
    f"effective rank is that of at most {TOKENS} tokens: near 1 the tokens are all alike, which is rank collapse. "
    "Gradients that differ by orders of magnitude between blocks mean that only some blocks learn."
)
LANGUAGE_MODELS = ("causal-lm", "masked-lm")
"""The tasks whose losses have a perplexity."""
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
MODEL = "The Auto classes of transformers load `model/` once `shaped_transformer.hf` is imported."
WIDTH, ROW_HEIGHT, LEGEND_HEIGHT, COLUMNS = 8.0, 2.7, 0.4, 2
"""Of the picture, in inches: scaled to the 800 pixels of a page, text of 10 points is 14 pixels high."""
FONT_SIZE = 10
LEGEND_STEPS = 4
"""At most so many of the watched steps are in the legend."""
MARKED_POINTS = 30
"""Curves with fewer points than this get markers."""


def write(
    out: Path, recipe: Recipe, task: Task, size: str, *, diverged: str = "", sample: Sample | None = None
) -> None:
    """Plot the curves and write `report.md`, all or nothing.

    **Arguments:**

    - `out`: the run's folder, with its metrics.
    - `recipe`, `task`: of the run.
    - `size`: of data and network, in words.
    - `diverged`: the message of a run that diverged, default none.
    - `sample`: of text from the trained model, default none.
    """
    metrics, watch = read(out / METRICS), read(out / WATCH)
    facts = [size, *_facts(recipe, task, metrics, watch)]
    table = _held_out_table(recipe, metrics)
    with writing_into(out) as folder:
        save(plot_curves(metrics, watch, task.facts.get(ENTROPY)), folder / "curves")
        (folder / "report.md").write_text(_markdown(recipe, task, facts, table, diverged, sample), encoding="utf-8")


def plot_curves(metrics: list[dict[str, Any]], watch: list[dict[str, Any]], entropy: float | None = None) -> "Figure":
    """Plot the losses against steps, and each watched quantity against blocks.

    **Arguments:**

    - `metrics`, `watch`: lines of `metrics.jsonl` and `watch.jsonl`.
    - `entropy`: unigram entropy of the held-out text in nats, a level in the first panel; default none.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    panels = [key for key in LABELS if any(key in line for line in watch)]
    lines = [line for line in watch if any(key in line for key in panels)]
    figure, axes = _grid(1 + len(panels))
    _plot_losses(axes[0], metrics, entropy)
    colours = _blues(len(lines))
    for panel, key in zip(axes[1:], panels, strict=True):
        for line, colour in zip(lines, colours, strict=True):
            values = np.array([np.nan if v is None else v for v in line.get(key, ())])
            marker = "o" if len(values) == 1 else ""
            label = f"step {line['step']}"
            panel.plot(np.arange(1, len(values) + 1), values, color=colour, label=label, marker=marker)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.set(xlabel="block")
        panel.set_title(LABELS[key], fontsize=FONT_SIZE)
        if key == "gradient":
            panel.set_yscale("log")
            low, high = panel.get_ylim()
            if high < 1000 * low:  # otherwise powers of ten suffice
                panel.yaxis.set_major_locator(MaxNLocator(5) if high < 10 * low else LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    if panels:
        shown = np.unique(np.linspace(0, len(lines) - 1, LEGEND_STEPS).round().astype(int))
        handles = [axes[1].get_lines()[i] for i in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_STEPS, frameon=False)
    return figure


def _grid(panels: int) -> "tuple[Figure, list[Axes]]":
    """A figure with panels in two columns; of an odd number the first is as wide as both."""
    from matplotlib.figure import Figure

    wide, rows = panels % COLUMNS, -(-panels // COLUMNS)
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * rows + LEGEND_HEIGHT), layout="constrained")
    grid = figure.add_gridspec(rows, COLUMNS)
    places = [(0, slice(None))] * wide + [(row, column) for row in range(wide, rows) for column in range(COLUMNS)]
    return figure, [figure.add_subplot(grid[place]) for place in places]


def _plot_losses(axes: "Axes", metrics: list[dict[str, Any]], entropy: float | None) -> None:
    """Plot the losses against steps, with the legend above the panel."""
    for key, label, colour in (("loss", "training", SERIES[3]), ("held_out_loss", "held out", SERIES[2])):
        points = [(x["step"], x[key]) for x in metrics if key in x]
        if points:
            marker = "o" if len(points) < MARKED_POINTS else ""
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3, color=colour)
    axes.set(xlabel="step", ylabel="loss (nats)")
    if entropy is not None:
        axes.axhline(entropy, color="#bbbbbb", linewidth=0.8, label="unigram entropy", zorder=0)
    if axes.get_lines():
        axes.legend(
            frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=0.8, handlelength=1.2
        )


def _token_facts(watch: list[dict[str, Any]]) -> list[str]:
    """First and last values of the tokens' statistics after the last block; none if nothing was watched."""
    lines = []
    for key, name in (("effective_rank", "effective rank of the tokens"), ("token_norm", "mean token norm")):
        found = [(line["step"], line[key][-1]) for line in watch if key in line and line[key][-1] is not None]
        if found:
            (first, before), (last, after) = found[0], found[-1]
            lines.append(f"{name} after the last block: {before:.3g} at step {first}, {after:.3g} at step {last}")
    return lines


def _blues(count: int) -> list[Any]:
    """Colours from light to dark blue."""
    from matplotlib import colormaps

    return [colormaps["Blues"](0.3 + 0.7 * i / max(count - 1, 1)) for i in range(count)]


def _markdown(
    recipe: Recipe, task: Task, facts: list[str], table: list[str], diverged: str, sample: Sample | None
) -> str:
    variant = VARIANTS[recipe.variant]
    settings = [f"| `{key}` | {value} |" for key, value in recipe.used().items()]
    gamma = f"γ is {recipe.branch_scale:.4g}. " if variant.branches else ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    parts = [
        f"# {variant.title}: {recipe.task}",
        diverged and f"**Stopped:** {diverged}",
        "![Curves](curves.png)",
        READING,
        "\n".join(f"- {fact}" for fact in facts),
        "\n".join(table),
        "" if diverged else MODEL,
        "" if sample is None else f"## Sample\n\n{to_markdown(sample)}",
        "## Settings",
        "\n".join(["| key | value |", "|---|---|", *settings]),
        f"{gamma}Data: {task.source}, sha256 `{task.sha256}`.",
        f"Command: `{command_line()}`{_processes()}. shaped-transformer {__version__}, {versions}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _processes() -> str:
    count = process_count()
    return f", on {count} processes" if count > 1 else ""


def _facts(recipe: Recipe, task: Task, metrics: list[dict[str, Any]], watch: list[dict[str, Any]]) -> list[str]:
    """The results of a run, one line each."""
    losses = [line for line in metrics if "loss" in line]
    held_out = [line for line in metrics if "held_out_loss" in line]
    facts = []
    if losses:
        first, last = losses[0], losses[-1]
        facts.append(
            f"training loss: {first['loss']:.4f} at step {first['step']}, {last['loss']:.4f} at step {last['step']}"
        )
    if held_out:
        loss, step = held_out[-1]["held_out_loss"], held_out[-1]["step"]
        measured = f", perplexity {perplexity(loss):.4g}" if recipe.task in LANGUAGE_MODELS else ""
        facts.append(f"held-out loss: {loss:.4f} at step {step}{measured}")
    facts += [f"validation loss: {line['validation_loss']:.4f}" for line in metrics if "validation_loss" in line][-1:]
    facts += [f"{name}: {value:.4f}" for name, value in task.facts.items()]
    facts += _token_facts(watch)
    if held_out and "held_out_accuracy" in held_out[-1]:
        facts.append(f"held-out accuracy: {held_out[-1]['held_out_accuracy']:.4f}")
    if losses:
        facts.append(f"{last['tokens_per_second']:,.0f} tokens/s, {last['seconds']:.0f} s of training")
    return facts


def perplexity(loss: float) -> float:
    """Return exp(loss), of a loss in nats per token; infinite where it is too large for a number."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


def _held_out_table(recipe: Recipe, metrics: list[dict[str, Any]]) -> list[str]:
    """Lines of a table of the held-out losses; none if none was measured."""
    columns = {"step": "d", "held_out_loss": ".4f", "perplexity": ".4g", "held_out_accuracy": ".4f", "seconds": ".0f"}
    lines = [x for x in metrics if "held_out_loss" in x]
    if recipe.task in LANGUAGE_MODELS:
        lines = [x | {"perplexity": perplexity(x["held_out_loss"])} for x in lines]
    shown = {name: form for name, form in columns.items() if lines and name in lines[0]}
    rows = [[name.replace("held_out_", "held-out ") for name in shown], ["---"] * len(shown)]
    rows += [[format(x[name], form) for name, form in shown.items()] for x in lines]
    return [f"| {' | '.join(row)} |" for row in rows] if lines else []
