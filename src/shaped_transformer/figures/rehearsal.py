"""What the first optimiser steps move, at widths up to 16,384: standard, μP and our learning rates.

A Llama of two blocks is trained without its weights, and the shaped Transformer beside it. A quantity that is flat
keeps its learning rate in wider models; one that fans out does not.
"""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, Estimate, from_array
from ..plotting.plots import label_plainly
from ..plotting.style import COLOURS, DESIGNS, SERIES
from .pieces import Arrays, PieceRunner, Task
from .settings import AtLeastTwo

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD_SIZE, PART = 32, 8
"""Size of a head; the MLP, and keys and values together, are smaller than the model by this factor."""
KINDS = {
    "standard": "Llama, one rate for all",
    "mup": "Llama, μP",
    "shaped": "shaped, our rates",
}
"""Parametrisations with their titles."""
SHOWN = {
    "stream": "stream, last layer:\n‖X − X₀‖ / ‖X₀‖",
    "outputs": "outputs:\nrms of Y − Y₀",
    "update of query": "queries:\ntheir update in logits",
    "update of MLP in": "MLP's first map:\n‖xΔW‖ / ‖xW‖",
}
"""Quantities with their labels."""
COLOUR = {
    "standard": COLOURS["network"],
    "mup": SERIES[0],
    "shaped": DESIGNS["shaped"],
}


def _check_draws(draws: dict[int, int]) -> dict[int, int]:
    """Refuse widths without a whole number of heads of keys, and draws that give no interval."""
    for width in draws:
        if width % (HEAD_SIZE * PART):
            raise ValueError(f"widths must be multiples of {HEAD_SIZE * PART} (got {width})")
    if max(draws.values()) < 2:
        raise ValueError("an interval needs at least 2 draws at a width")
    return draws


Draws = Annotated[dict[PositiveInt, PositiveInt], Field(min_length=2), AfterValidator(_check_draws)]


def compute(
    runner: PieceRunner,
    draws: Draws,
    layers: PositiveInt,
    tokens: AtLeastTwo,
    vocabulary: AtLeastTwo,
    steps: PositiveInt,
    rate: PositiveFloat,
    shaped_rate: PositiveFloat,
    seed: int,
) -> "xarray.Dataset":
    """Rehearse models of several widths in several parametrisations.

    **Arguments:**

    - `draws`: number of networks of each width. μP is relative to the smallest width.
    - `layers`, `vocabulary`: of the models.
    - `tokens`: that they are trained on, the same in each step.
    - `steps`: of AdamW.
    - `rate`, `shaped_rate`: learning rate of Llama, and of the shaped Transformer.
    - `seed`: of the networks.

    **Returns:** `moved`, geometric mean over networks, with `low` and `high`, the smallest and largest, (kind,
    quantity, width, step), and `slope` of its logarithm against that of the width, (kind, quantity, step, bound).

    **Raises:** `MissingExtra` without PyTorch or Hugging Face.
    """
    import xarray as xr

    from .. import hf  # noqa: F401 - raises `MissingExtra` before any work
    from ..rehearse.slopes import fit

    widths = sorted(draws)
    model = (widths[0], layers, vocabulary, tokens, steps)
    tasks: dict[str, Task] = {
        f"{kind} {width}": partial(
            _measure, kind, width, draws[width], model, shaped_rate if "shaped" in kind else rate, seed
        )
        for width in widths
        for kind in KINDS
    }
    done = runner.run(tasks)
    names = [name for name in done[f"mup {widths[0]}"] if all(name in one for one in done.values())]
    dims = ("kind", "quantity", "width", "step")
    logs = {key: {name: np.log(values) for name, values in one.items()} for key, one in done.items()}

    def over_draws(reduced: Any) -> Any:
        return np.exp(
            [[[reduced(logs[f"{kind} {width}"][name], 0) for width in widths] for name in names] for kind in KINDS]
        )

    slopes = [
        [
            [
                fit(widths, [done[f"{kind} {width}"][name][:, step] for width in widths]).to_array()
                for step in range(steps)
            ]
            for name in names
        ]
        for kind in KINDS
    ]
    return xr.Dataset(
        {
            "moved": (dims, over_draws(np.mean)),
            "low": (dims, over_draws(np.min)),
            "high": (dims, over_draws(np.max)),
            "slope": (("kind", "quantity", "step", "bound"), np.array(slopes)),
        },
        {"kind": list(KINDS), "quantity": names, "width": widths, "step": range(1, steps + 1), "bound": list(BOUNDS)},
    )


def _measure(kind: str, width: int, draws: int, model: tuple[int, ...], rate: float, seed: int) -> Arrays:
    """Return what the steps move in models of one width, (draws, steps) each."""
    import torch

    from ..rehearse import run
    from ..rehearse.coordinates import quantities
    from ..rehearse.parametrisations import parametrisation_of

    base, layers, vocabulary, tokens, steps = model
    wide, small = (_configuration(kind, n, layers, vocabulary) for n in (width, base))
    one = parametrisation_of(kind)(wide, small, None)
    ids = torch.arange(tokens)[None] % vocabulary
    found = run(
        one.model,
        {"input_ids": ids, "labels": ids},
        lr=rate,
        steps=steps,
        groups=one.groups,
        draws=draws,
        seed=seed,
    )
    return dict(quantities(found, (width / base) ** one.logits))


def _configuration(kind: str, width: int, layers: int, vocabulary: int) -> Any:
    """Return the configuration of a Llama, or of a shaped Transformer of the same sizes."""
    from transformers import LlamaConfig

    from ..hf import ShapedTransformerConfig

    make: Any = ShapedTransformerConfig if "shaped" in kind else LlamaConfig
    return make(
        hidden_size=width,
        intermediate_size=width // PART,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_SIZE,
        num_key_value_heads=width // HEAD_SIZE // PART,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the slopes of the shown quantities at the last step."""
    return {
        f"slope over width, {KINDS[kind]}: {SHOWN[name].partition(':')[0]}": from_array(
            data["slope"].sel(kind=kind, quantity=name).isel(step=-1)
        )
        for kind in data["kind"].to_numpy().tolist()
        for name in SHOWN
    }


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot each quantity against width after each step, a row for each parametrisation."""
    from matplotlib.figure import Figure

    kinds, steps = data["kind"].to_numpy().tolist(), data["step"].to_numpy().tolist()
    figure = Figure(figsize=(13.5, 0.9 + 2.4 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), len(SHOWN), squeeze=False, sharex=True, sharey="col")
    for panels, kind in zip(grid, kinds, strict=True):
        for panel, name in zip(panels, SHOWN, strict=True):
            _plot_panel(panel, data.sel(kind=kind, quantity=name), COLOUR[kind])
        panels[0].set_ylabel(KINDS[kind])
    for panel, label in zip(grid[0], SHOWN.values(), strict=True):
        panel.set_title(label, loc="left", fontsize=9.5)
        panel.margins(y=0.1)
        label_plainly(panel.yaxis)
    widths = data["width"].to_numpy()
    for panel in grid[-1]:
        panel.set_xlabel("width")
        panel.set_xticks(widths, [f"{n:,}" for n in widths], rotation=40, fontsize=8)
        panel.minorticks_off()
    handles = [line for line in grid[0, 0].get_lines() if not str(line.get_label()).startswith("_")]
    figure.legend(
        handles, [f"after step {step}" for step in steps], loc="outside upper right", ncols=len(steps), frameon=False
    )
    figure.suptitle("How far the first steps of AdamW move a network, by its width: flat is right", x=0.02, ha="left")
    return figure


def _plot_panel(panel: "Axes", data: "xarray.Dataset", colour: str) -> None:
    """Plot one quantity of one parametrisation after each step, and write its slope at the last."""
    widths, steps = data["width"].to_numpy(), data["step"].to_numpy().tolist()
    for i, step in enumerate(steps):
        one, shade = data.sel(step=step), 0.35 + 0.65 * (i + 1) / len(steps)
        panel.fill_between(widths, one["low"], one["high"], color=colour, alpha=0.15, linewidth=0)
        panel.plot(
            widths, one["moved"], "o-", color=colour, alpha=shade, markersize=3, linewidth=1 + 0.5 * i, label=str(step)
        )
    panel.set(xscale="log", yscale="log")
    slope = from_array(data["slope"].isel(step=-1))
    panel.set_title(f"slope {slope.value:.2f}", loc="right", fontsize=8.5, color=colour)
