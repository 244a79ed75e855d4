"""The picture of the figure `training`: thirteen variants in rows of a few, the others in grey behind them."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plotting.plots import label_line_ends
from ..plotting.style import DESIGNS, SERIES

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAPED_NORM = "#00523B"
"""Colour of shaped Transformers with pre-norm."""
GROUPS = {
    "shaped, no norm": {
        "shaped-fixed": (DESIGNS["shaped"], "-"),
        "shaped-learn": (DESIGNS["shaped"], "--"),
        "shaped-recover": (DESIGNS["shaped"], ":"),
    },
    "shaped, pre-norm": {
        "shaped-fixed-pre": (SHAPED_NORM, "-"),
        "shaped-learn-pre": (SHAPED_NORM, "--"),
        "shaped-recover-pre": (SHAPED_NORM, ":"),
    },
    "softmax, norms": {
        "pre-norm": (DESIGNS["pre-norm"], "-"),
        "pre-norm-groups": (DESIGNS["pre-norm"], "--"),
        "post-norm": (DESIGNS["post-norm"], "-"),
    },
    "others, no norm": {
        "value-skipinit": (SERIES[1], "-"),
        "skipless": (DESIGNS["skipless"], "-"),
        "unit-skips": (SERIES[0], "-"),
        "unit-skips-small": (SERIES[2], "-"),
    },
}
"""Colour and line of each variant, by the row in which it is shown."""
STYLES = {variant: style for group in GROUPS.values() for variant, style in group.items()}
TIMED = ("shaped-learn", "pre-norm", "pre-norm-groups")
"""Variants whose loss is shown against seconds: those that the numbers compare."""
BEHIND = "#d9d9d9"
"""Colour of the variants that are shown in another row."""
TOP = 7.8
"""Largest loss in the picture: higher losses are of runs that diverge."""
READING = "training loss: medians of the seeds and their range; × a run that diverged was stopped; grey: other rows"
"""Explanation of the curves in the picture."""


def plot_training(data: "xarray.Dataset") -> "Figure":
    """Plot the dataset of the figure `training`.

    A row for each group of variants shows the loss against the step, with a column for each depth; the next row the
    loss against seconds. In the last row are the masked models, and the held-out losses at the end.
    """
    from matplotlib.figure import Figure

    present, depths = set(data["variant"].to_numpy()), data["depth"].to_numpy()
    groups = {title: [v for v in group if v in present] for title, group in GROUPS.items()}
    rows = [(title, group, False) for title, group in groups.items() if group]
    rows += [("against seconds", [v for v in TIMED if v in present], True)]
    figure = Figure(figsize=(10, 2 * len(rows) + 3.6), layout="constrained")
    figure.suptitle(READING, fontsize="medium")
    grid = figure.add_gridspec(len(rows) + 1, len(depths) + 1, height_ratios=[2] * len(rows) + [3.2])
    for row, (title, group, timed) in enumerate(rows):
        panels = [figure.add_subplot(grid[row, column]) for column in range(len(depths))]
        for panel, depth in zip(panels, depths, strict=True):
            _plot_group(panel, data.sel(depth=depth), group, timed=timed)
            if row == 0:
                panel.set_title(f"depth {depth}", loc="left")
            panel.set_xlabel("seconds" if timed else "step")
        panels[0].set_ylabel("loss (nats)")
        beside = figure.add_subplot(grid[row, -1])
        beside.set_axis_off()
        beside.legend(
            *panels[0].get_legend_handles_labels(), loc="center left", frameon=False, title=title, alignment="left"
        )
    last = grid[len(rows), :].subgridspec(1, 2, width_ratios=(1, 1.6))
    if "masked_loss" in data:
        _plot_masked(figure.add_subplot(last[0]), data)
    _plot_ends(figure.add_subplot(last[1]), data)
    return figure


def _plot_group(panel: "Axes", at: "xarray.Dataset", group: Sequence[str], *, timed: bool) -> None:
    """Plot the losses of some variants, with those of all others in grey behind them."""
    for variant in at["variant"].to_numpy():
        one = at.sel(variant=variant)
        scale = float(one["step_seconds"]) if timed else 1.0
        if variant in group:
            colour, line = STYLES[variant]
            _plot_curve(panel, one, scale, colour, line, fill(str(one["title"].item()), 25, break_on_hyphens=False))
        elif not timed:
            shown = one["step"].to_numpy() < int(one["stopped"].min())
            panel.plot(one["step"][shown], one["loss"].median("seed")[shown], color=BEHIND, linewidth=0.8, zorder=0)
    _plot_entropy(panel, float(at["entropy"]))
    panel.set_ylim(float(at["loss"].min()) - 0.2, TOP)


def _plot_curve(panel: "Axes", one: "xarray.Dataset", scale: float, colour: str, line: Any, label: str = "") -> None:
    """Plot median and range over seeds, up to the step at which the first was stopped, which a cross marks."""
    steps = one["step"].to_numpy()
    until = int(one["stopped"].min())
    shown = np.flatnonzero(steps < until)
    stopped = until <= steps[-1]
    shown = shown if shown.size else np.array([0])
    x, losses = steps[shown] * scale, one["loss"].to_numpy()[:, shown]
    panel.fill_between(x, losses.min(0), losses.max(0), color=colour, alpha=0.2, linewidth=0)
    panel.plot(x, np.median(losses, 0), label=label or None, color=colour, linestyle=line, linewidth=1.6)
    if stopped:
        panel.plot(x[-1:], np.median(losses, 0)[-1:], marker="x", color=colour, linestyle="none")


def _plot_entropy(panel: "Axes", entropy: float) -> None:
    """Plot a line at the loss of a model that knows only the frequencies of the tokens."""
    panel.axhline(entropy, color="#777777", linewidth=0.8, zorder=0)
    panel.annotate(
        "unigram entropy",
        (1, entropy),
        xycoords=panel.get_yaxis_transform(),
        xytext=(-3, 4),
        textcoords="offset points",
        ha="right",
        color="#555555",
        fontsize="small",
    )


def _plot_masked(panel: "Axes", data: "xarray.Dataset") -> None:
    """Plot the losses of the masked models."""
    names = {"masked_loss": "loss", "masked_stopped": "stopped", "masked_step": "step"}
    curves = data[["masked_loss", "masked_stopped"]].rename(names)
    for variant in data["masked_variant"].to_numpy():
        _plot_curve(panel, curves.sel(masked_variant=variant), 1.0, *STYLES[variant], label=str(variant))
    entropy = float(data["masked_entropy"])
    _plot_entropy(panel, entropy)
    panel.set(xlabel="step", ylabel="training loss (nats)", ylim=(None, entropy + 1))
    panel.set_title("masked language models", loc="left")
    panel.legend(frameon=False, loc="center right")


def _plot_ends(panel: "Axes", data: "xarray.Dataset") -> None:
    """Plot the final losses against depth, labelled at the largest one, with crosses where a run diverged."""
    depths, ended = data["depth"].to_numpy(), data["stopped"] > data["step"][-1]
    final = data["final"].where(ended).median("seed")
    ends, rows = {}, 0
    for variant in data["variant"].to_numpy():
        colour, line = STYLES[variant]
        values = final.sel(variant=variant).to_numpy()
        panel.plot(depths, values, marker="o", markersize=3, color=colour, linestyle=line)
        if np.isfinite(values[-1]):
            ends[variant] = (float(values[-1]), colour)
        diverged = depths[~ended.sel(variant=variant).all("seed").to_numpy()]
        if diverged.size:
            height = np.full(diverged.size, 0.96 - 0.06 * rows)
            panel.plot(diverged, height, "x", color=colour, transform=panel.get_xaxis_transform())
            rows += 1
    low, high = panel.get_ylim()
    panel.set(
        xlabel="depth", ylabel="held-out loss (nats)", xscale="log", ylim=(low, high + 0.08 * rows * (high - low))
    )
    panel.set_title("at the end" + ("; × a seed or both diverged" if rows else ""), loc="left")
    panel.set_xticks(depths, [str(d) for d in depths], minor=False)
    panel.xaxis.minorticks_off()
    label_line_ends(panel, depths[-1], ends, gap=0.075)
