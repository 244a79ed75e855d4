# ruff: noqa: T201
"""Train five small models on real text, probe them over their steps, and draw the picture of docs/probe.md.

python tools/probe_training.py         trains, and writes docs/results/probe-training.zarr and the picture
python tools/probe_training.py --plot  draws the picture of that dataset again
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shaped_transformer as st
from shaped_transformer.plotting.probe import PANELS, ticks
from shaped_transformer.plotting.style import DESIGNS, save
from shaped_transformer.probe.result import read, write
from shaped_transformer.training import Recipe
from shaped_transformer.training.optimiser import build_optimiser
from shaped_transformer.training.task import ENTROPY, build, prepare

DOCS = Path(__file__).parent.parent / "docs"
DATASET, PICTURE, KIND = DOCS / "results" / "probe-training.zarr", DOCS / "figures" / "probe-training", "probe training"
MODELS = {
    "shaped, no norm\nrates by group, 0.004": ("shaped-learn", 0.004),
    "pre-norm\nrates by group, 0.004": ("pre-norm-groups", 0.004),
    "pre-norm\none rate, 0.001": ("pre-norm", 0.001),
    "post-norm\none rate, 0.001": ("post-norm", 0.001),
    "post-norm\none rate, 0.002": ("post-norm", 0.002),
}
"""Title → variant and learning rate: the best at this depth (docs/training.md), and for post-norm twice that."""
COLOURS = {
    "shaped-learn": DESIGNS["shaped"],
    "pre-norm-groups": DESIGNS["pre-norm"],
    "pre-norm": DESIGNS["pre-norm"],
    "post-norm": DESIGNS["post-norm"],
}
DEPTH = 24
STEPS = (0, 5, 10, 20, 40, 70, 100)
"""Steps that are measured, the last of them at the end."""
SEQUENCES = 4
NUMBERS = ("effective_rank", "mean_absolute_correlation", "token_norm", "gradient_norm")
LIGHT, DARK = "#e4e4e4", "#000000"
"""Ends of the shades of a colour."""


def train(variant: str, rate: float) -> tuple[Any, Any, float]:
    """Return what the layers of a model do to held-out text over its training, the losses, and the unigram entropy."""
    recipe = Recipe(task="causal-lm", variant=variant, lr=rate, depth=DEPTH, steps=STEPS[-1])
    task = prepare(recipe)
    model = build(recipe, task)
    optimiser = build_optimiser(model, recipe)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, step / recipe.warmup))
    spread = np.linspace(0, len(task.held_out) - 1, SEQUENCES).astype(int)
    history, losses = st.probe.History(batch_of(task.held_out, spread)), []
    for step in range(STEPS[-1]):
        if step in STEPS:
            history.measure(model, step)
        optimiser.zero_grad()
        loss = model(**batch_of(task.train, range(step * recipe.batch, (step + 1) * recipe.batch))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        warmup.step()
        losses.append(float(loss.detach()))
    history.measure(model, STEPS[-1])
    return history.data[list(NUMBERS)].mean("sequence"), losses, task.facts[ENTROPY]


def batch_of(examples: Any, rows: Any) -> dict[str, torch.Tensor]:
    """Return examples as one batch."""
    chosen = [examples[int(i)] for i in rows]
    return {name: torch.stack([one[name] for one in chosen]) for name in chosen[0]}


def compute() -> Any:
    """Return what happens in all models, an xarray dataset (model, step, layer)."""
    import xarray

    columns, losses, entropy = [], [], 0.0
    for title, (variant, rate) in MODELS.items():
        data, loss, entropy = train(variant, rate)
        columns.append(data)
        losses.append(loss)
        end, name = np.mean(loss[-10:]), ", ".join(title.splitlines())
        print(f"{name}: mean loss of the last ten steps {end:.2f}, unigram entropy {entropy:.2f}")
        for name in NUMBERS:
            print(f"  {name}, last layer:", " ".join(f"{x:.3g}" for x in data[name].values[:, -1]))
    data = xarray.concat(columns, "model").assign_coords(model=list(MODELS))
    return data.assign(loss=(("model", "update"), np.array(losses)), entropy=entropy)


def plot(data: Any) -> Any:
    """Plot each number of all layers against the layer, a line for each step, a column for each model."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 10), layout="constrained")
    grid = figure.subplots(len(NUMBERS), len(MODELS), sharex=True, sharey="row")
    layers, steps = [str(name) for name in data.layer.values], data.step.values
    panels = {panel.name: panel for panel in PANELS}
    places = np.linspace(0.2, 0.9, len(steps))
    for column, (title, (variant, _)) in zip(grid.T, MODELS.items(), strict=True):
        shades = LinearSegmentedColormap.from_list(variant, [LIGHT, COLOURS[variant], DARK])
        for axes, name in zip(column, NUMBERS, strict=True):
            for step, place in zip(steps, places, strict=True):
                axes.plot(data[name].sel(model=title, step=step).values, color=shades(place))
            axes.set_xticks(*ticks(layers))
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        end = float(data["loss"].sel(model=title).values[-10:].mean())
        column[0].set_title(f"{title}\nloss at the end {end:.2f}", loc="left", fontsize="medium")
        column[-1].set_xlabel("layer")
    for row, name in zip(grid, NUMBERS, strict=True):
        row[0].set_ylabel(panels[name].title)
        if panels[name].logarithmic:
            row[0].set_yscale("log")
        else:
            row[0].set_ylim(bottom=0)
    greys = LinearSegmentedColormap.from_list("greys", [LIGHT, DARK])
    lines = [Line2D([], [], color=greys(place), label=f"{step}") for step, place in zip(steps, places, strict=True)]
    figure.legend(handles=lines, loc="outside right center", title="step", frameon=False)
    return figure


def main() -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--plot", action="store_true", help="draw the picture of the saved dataset again")
    if not parser.parse_args().plot:
        write(compute(), {"depth": DEPTH, "models": MODELS}, KIND, DATASET)
    data, _ = read(KIND, DATASET)
    save(plot(data), PICTURE)
    PICTURE.with_suffix(".svg").unlink()


if __name__ == "__main__":
    main()
