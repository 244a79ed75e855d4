"""The report of a run that finished or diverged: curves, settings, data and versions."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.files import writing_into
from ..io.provenance import command_line
from ..plotting.style import save
from ..version import __version__
from .log import METRICS, WATCH, read
from .processes import process_count
from .recipe import Recipe
from .task import ENTROPY, Task
from .variants import VARIANTS
from .watch import TOKENS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "effective_rank": "effective rank of the tokens",
    "gradient": "norm of the block's gradient",
    "identity_gain": "gain of the identity, mean over heads",
    "uniform_gain": "gain of the centring, mean over heads",
}
"""Labels of the watched quantities that the report plots."""
READING = (
    "*How to read it:* left, the losses; then quantities of each block, later steps darker. The effective rank is that "
    f"of at most {TOKENS} tokens: near 1 the tokens are all alike, which is rank collapse. Gradients that differ by "
    "orders of magnitude between blocks mean that only some blocks learn."
)
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
MODEL = "The Auto classes of transformers load `model/` once `shaped_transformer.hf` is imported."
MARKED_POINTS = 30
"""Curves with fewer points than this get markers."""


def write(out: Path, recipe: Recipe, task: Task, diverged: str = "") -> None:
    """Plot the curves and write `report.md`, all or nothing.

    **Arguments:**

    - `out`: the run's folder, with its metrics.
    - `recipe`, `task`: of the run.
    - `diverged`: the message of a run that diverged, default none.
    """
    metrics, watch = read(out / METRICS), read(out / WATCH)
    with writing_into(out) as folder:
        save(plot_curves(metrics, watch, task.facts.get(ENTROPY)), folder / "curves")
        (folder / "report.md").write_text(_markdown(recipe, task, metrics, watch, diverged), encoding="utf-8")


def plot_curves(metrics: list[dict[str, Any]], watch: list[dict[str, Any]], entropy: float | None = None) -> "Figure":
    """Plot the losses against steps, and each watched quantity against blocks.

    **Arguments:**

    - `metrics`, `watch`: lines of `metrics.jsonl` and `watch.jsonl`.
    - `entropy`: unigram entropy of the held-out text in nats, a level in the first panel; default none.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    panels = [key for key in LABELS if any(key in line for line in watch)]
    figure = Figure(figsize=(4.6 * (1 + len(panels)), 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + len(panels)))
    for key, label in (("loss", "training"), ("held_out_loss", "held out")):
        points = [(x["step"], x[key]) for x in metrics if key in x]
        if points:
            marker = "o" if len(points) < MARKED_POINTS else ""
            axes[0].plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
    axes[0].set(xlabel="step", ylabel="loss (nats)")
    if entropy is not None:
        axes[0].axhline(entropy, color="#bbbbbb", linewidth=0.8, label="unigram entropy", zorder=0)
    if metrics:
        axes[0].legend(frameon=False)
    for panel, key in zip(axes[1:], panels, strict=True):
        lines = [x for x in watch if key in x]
        colours = _blues(len(lines))
        for line, colour in zip(lines, colours, strict=True):
            values = np.array([np.nan if v is None else v for v in line[key]])
            panel.plot(np.arange(1, len(values) + 1), values, color=colour)
        panel.set(xlabel="block", ylabel=LABELS[key])
        if key == "gradient":
            panel.set_yscale("log")
            low, high = panel.get_ylim()
            if high < 1000 * low:  # otherwise powers of ten suffice
                panel.yaxis.set_major_locator(MaxNLocator(5) if high < 10 * low else LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
        panel.set_title(f"steps {lines[0]['step']} (light) to {lines[-1]['step']} (dark)", fontsize="small")
    return figure


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
    recipe: Recipe, task: Task, metrics: list[dict[str, Any]], watch: list[dict[str, Any]], diverged: str
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
        "\n".join(f"- {fact}" for fact in _facts(task, metrics, watch)),
        "\n".join(_held_out_table(metrics)),
        "" if diverged else MODEL,
        "## Settings",
        "\n".join(["| key | value |", "|---|---|", *settings]),
        f"{gamma}Data: {task.source}, sha256 `{task.sha256}`.",
        f"Command: `{command_line()}`{_processes()}. shaped-transformer {__version__}, {versions}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _processes() -> str:
    count = process_count()
    return f", on {count} processes" if count > 1 else ""


def _facts(task: Task, metrics: list[dict[str, Any]], watch: list[dict[str, Any]]) -> list[str]:
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
        facts.append(f"held-out loss: {held_out[-1]['held_out_loss']:.4f} at step {held_out[-1]['step']}")
    facts += [f"{name}: {value:.4f}" for name, value in task.facts.items()]
    facts += _token_facts(watch)
    if held_out and "held_out_accuracy" in held_out[-1]:
        facts.append(f"held-out accuracy: {held_out[-1]['held_out_accuracy']:.4f}")
    if losses:
        facts.append(f"{last['tokens_per_second']:,.0f} tokens/s, {last['seconds']:.0f} s of training")
    return facts


def _held_out_table(metrics: list[dict[str, Any]]) -> list[str]:
    """Lines of a table of the held-out losses; none if none was measured."""
    columns = {"step": "d", "held_out_loss": ".4f", "held_out_accuracy": ".4f", "seconds": ".0f"}
    lines = [x for x in metrics if "held_out_loss" in x]
    shown = {name: form for name, form in columns.items() if lines and name in lines[0]}
    rows = [[name.replace("held_out_", "held-out ") for name in shown], ["---"] * len(shown)]
    rows += [[format(x[name], form) for name, form in shown.items()] for x in lines]
    return [f"| {' | '.join(row)} |" for row in rows] if lines else []
