"""A zoo of published Transformers at initialisation: what each does to its tokens and gradients through depth.

Models are drawn without weights, as `transformers` initialises them, which is often not how their authors did. All read
the same pattern of tokens: equal words are equal tokens.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from ..estimates import Estimate, from_array
from ..io.yaml import read_yaml
from ..plotting.plots import label_plainly, plot_band
from .observed import INTERVALS, QUANTILES, medians_along, quantiles_along
from .pieces import Arrays, PieceRunner, Task
from .settings import Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZOO = Path(__file__).parent / "zoo.yaml"
"""Sizes of the models."""
TEXT = "the cat saw the dog and the dog saw the cat run to the old river"
"""What the models read, a token for each word."""
FIRST_WORD = 100
"""Token of the first word: smaller ones have special meanings in some models."""
PATCH = 16
"""Width of a patch of an image, in pixels."""
OBSERVED = {
    "token_norm": "token norm tr V / m",
    "mean_absolute_correlation": "mean |ρ|",
    "effective_rank": "effective rank",
    "gradient_norm": "gradient of the tokens\nover that of the last layer",
}
"""Numbers of a layer with their labels."""
LOGARITHMIC = ("token_norm", "gradient_norm")
GROUPS = {
    "causal": "Causal language models",
    "encoders": "BERT and ALBERT (encoders), T5 (encoder and decoder)",
    "images": "ViT, on images of 16 patches",
}
"""Rows of the picture with their titles."""
COLOURS = {
    "GPT-2": "#332288",
    "GPT-NeoX": "#88CCEE",
    "Llama": "#CC6677",
    "Mixtral": "#777777",
    "Qwen": "#117733",
    "Gemma": "#AA4499",
    "BERT": "#882255",
    "ALBERT": "#999933",
    "T5": "#44AA99",
    "ViT": "#661100",
}
"""Colour of each family (Tol)."""
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
"""Lines of the members of a family, in their order."""


def _check_models(draws: Mapping[str, int]) -> Mapping[str, int]:
    """Refuse models that are not in the zoo."""
    known = read_yaml(ZOO)
    for name in draws:
        if name not in known:
            raise ValueError(f"unknown model {name!r}: choose from {', '.join(known)}")
    return draws


Draws = Annotated[dict[str, Samples], Field(min_length=1), AfterValidator(_check_models)]


def compute(runner: PieceRunner, draws: Draws, seed: int) -> "xarray.Dataset":
    """Draw models at initialisation, and measure their layers.

    **Arguments:**

    - `draws`: number of networks of each model, by the names in `zoo.yaml`.
    - `seed`: of the networks.

    **Returns:** for each observed number its quantiles and its median with interval, over `point`. A point is a layer
    of a stack, with the coordinates `stack` (a model, or its encoder or decoder), `model` and `depth`, from 0, the
    input, to 1, the last layer.

    **Raises:** `MissingExtra` without PyTorch or Hugging Face.
    """
    import xarray as xr

    from .. import hf, probe  # noqa: F401 - raise `MissingExtra` before any work

    tasks: dict[str, Task] = {name: partial(_layers, name, count, seed) for name, count in draws.items()}
    done = runner.run(tasks)
    coords: dict[str, list[Any]] = {"stack": [], "model": [], "depth": []}
    columns: dict[str, list[Any]] = {name: [] for name in OBSERVED}
    for model, arrays in done.items():
        for stack, places in _stacks(model, arrays["layer"]).items():
            coords["stack"] += [stack] * len(places)
            coords["model"] += [model] * len(places)
            coords["depth"] += list(np.linspace(0, 1, len(places)))
            for name, columns_of in columns.items():
                of_stack = arrays[name][:, places]
                columns_of += list((of_stack / of_stack[:, -1:] if name == "gradient_norm" else of_stack).T)
    out: dict[str, Any] = {}
    for name, samples in columns.items():
        out[name] = quantiles_along("point", samples)
        out[f"median {name}"] = medians_along("point", samples)
    points: dict[str, Any] = {name: ("point", np.array(values)) for name, values in coords.items()}
    return xr.Dataset(out, coords=points | QUANTILES | INTERVALS)


def _layers(name: str, count: int, seed: int) -> Arrays:
    """Return the names of a model's layers, and each number of each layer in each draw, (draws, layers)."""
    import transformers

    from ..probe import expected
    from ..weightless.measure import configuration

    model = read_yaml(ZOO)[name]
    batch = _image() if model["group"] == "images" else _words()
    found = expected(configuration(name, ZOO), batch, count, seed=seed, cls=getattr(transformers, model["model"]))
    return {"layer": np.array(found.layers)} | {number: found.draws(number) for number in OBSERVED}


def _pattern() -> list[int]:
    """Return the number of the word at each place of the text."""
    words = TEXT.split()
    known = list(dict.fromkeys(words))
    return [known.index(word) for word in words]


def _words() -> dict[str, Any]:
    """Return the text as tokens, which are also what the loss expects."""
    import torch

    ids = FIRST_WORD + torch.tensor([_pattern()])
    return {"input_ids": ids, "labels": ids}


def _image() -> dict[str, Any]:
    """Return an image with a patch for each word: waves with a direction, a phase and colours that belong to it."""
    import torch

    pattern = np.array(_pattern())
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(PATCH), np.arange(PATCH))
    waves = []
    for _ in range(pattern.max() + 1):
        (a, b), phase = random.uniform(-1, 1, 2), random.uniform(0, 2 * np.pi, (3, 1, 1))
        waves.append(np.sqrt(2) * np.cos(a * x + b * y + phase))
    side = round(len(pattern) ** 0.5)
    rows = [np.concatenate([waves[word] for word in row], axis=2) for row in pattern.reshape(side, side)]
    image = torch.tensor(np.concatenate(rows, axis=1), dtype=torch.float32)
    return {"pixel_values": image[None], "labels": torch.tensor([0])}


def _stacks(model: str, layers: Any) -> dict[str, list[int]]:
    """Return the places of the layers of each stack; a model with an encoder and a decoder has two."""
    starts = [i for i, layer in enumerate(layers) if str(layer).endswith(".input")]
    ends = [*starts[1:], len(layers)]
    sides = [""] if len(starts) == 1 else [f" {str(layers[start]).partition('.')[0]}" for start in starts]
    return {model + side: list(range(*ends_of)) for side, *ends_of in zip(sides, starts, ends, strict=True)}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians of each stack at its last layer, and of its gradients at the input."""
    numbers = {}
    for stack in dict.fromkeys(data["stack"].to_numpy().tolist()):
        of_stack = data.isel(point=np.flatnonzero(data["stack"].to_numpy() == stack))
        for name, title, at in (
            ("token_norm", "token norm, last layer", -1),
            ("effective_rank", "effective rank, last layer", -1),
            ("gradient_norm", "gradient, input over last layer", 0),
        ):
            numbers[f"{stack}: {title}"] = from_array(of_stack[f"median {name}"].isel(point=at))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot each number against relative depth, a row for each group of models."""
    from matplotlib.figure import Figure

    zoo = read_yaml(ZOO)
    stacks = dict(zip(data["stack"].to_numpy().tolist(), data["model"].to_numpy().tolist(), strict=True))
    rows = {group: [s for s, model in stacks.items() if zoo[model]["group"] == group] for group in GROUPS}
    rows = {group: members for group, members in rows.items() if members}
    figure = Figure(figsize=(15, 0.9 + 3.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(OBSERVED), squeeze=False)
    for panels, (group, members) in zip(grid, rows.items(), strict=True):
        styles = _styles(members, {stack: zoo[stacks[stack]]["family"] for stack in members})
        for panel, name in zip(panels, OBSERVED, strict=True):
            for stack in members:
                of_stack = data[name].isel(point=np.flatnonzero(data["stack"].to_numpy() == stack))
                depth, quantiles = of_stack["depth"].to_numpy(), of_stack.to_numpy().T
                plot_band(panel, depth, quantiles, label=stack, **styles[stack])
            panel.set(xlabel="relative depth", ylabel=OBSERVED[name], xlim=(0, 1))
            _scale(panel, name)
        panels[0].set_title(GROUPS[group], loc="left")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.03, 0.5), frameon=False, fontsize=9)
    figure.suptitle(
        "At initialisation as transformers does it, often not as the authors did; 16 words, equal words are equal "
        "tokens; medians and 5–95 % of networks",
        fontsize=11,
    )
    return figure


def _styles(members: list[str], families: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return colour and line of each member."""
    styles: dict[str, dict[str, Any]] = {}
    for stack in members:
        before = [other for other in styles if families[other] == families[stack]]
        styles[stack] = {"colour": COLOURS[families[stack]], "style": LINES[len(before) % len(LINES)]}
    return styles


def _scale(panel: "Axes", name: str) -> None:
    """Set the scale of the vertical axis."""
    if name in LOGARITHMIC:
        panel.set_yscale("log")
        label_plainly(panel.yaxis)
    elif name == "mean_absolute_correlation":
        panel.set_ylim(0, 1.02)
    else:
        panel.set_ylim(0, 17)
