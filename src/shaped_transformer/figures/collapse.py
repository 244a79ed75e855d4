"""What depth does to tokens: a softmax Transformer makes them all alike, the shaped one does not; real and predicted.

The effective rank counts the different directions of the tokens. The prediction is the exact chain, which needs no
weights; the points are real networks of the same two designs.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design import architecture as presets
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import LEVELS, Estimate, distance, median
from ..inputs import from_text
from ..plotting.plots import add_legend_above, evenly_spaced
from ..plotting.style import COLOURS, DESIGNS, LABELS
from .observed import QUANTILES, draw_observables
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SHOWN = "effective_rank"
"""The observable of the figure."""
TITLES = {
    "post-norm": "softmax Transformer:\nall tokens become one",
    "shaped": "shaped Transformer:\nthe tokens stay different",
}
"""Label of each design at the end of its line."""
FONT_SIZE = 13
"""Size of the text, in points: the picture stands first in the README, 800 pixels wide."""

NETWORKS_SHOWN = 17
"""Number of layers at which real networks are shown, as points."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: AtLeastTwo,
    samples: Samples,
    network_samples: Samples,
    records: AtLeastTwo,
    seed: int,
) -> "xarray.Dataset":
    """Sample a softmax and a shaped Transformer from the packaged text, by the exact chain and as real networks.

    **Arguments:**

    - `width`, `depth`: size of both.
    - `gamma`, `tau0`: branch strength and temperature constant of the shaped one; the other is the original
      Transformer, with LayerNorm after each sum.
    - `tokens`: number of tokens of the text.
    - `samples`: number of samples of the chain.
    - `network_samples`: number of real networks of each design.
    - `records`: number of recorded layers.
    - `seed`: seed of input and samples.

    **Returns:** for each view the quantiles of the effective rank through depth, (design, quantile, layer), and its
    samples at the last layer.
    """
    import xarray as xr

    designs = {
        "post-norm": presets.post_norm_transformer(width, depth),
        "shaped": presets.shaped_transformer(width, depth, gamma=gamma, tau0=tau0),
    }
    v0 = from_text(max_tokens=tokens, embedding_width=width, seed=seed)
    counts = {"chain": samples, "network": network_samples}
    tasks: dict[str, Task] = {
        f"{view} {name}": partial(draw_observables, view, arch, v0, count, seed, [SHOWN], record=records)
        for view, count in counts.items()
        for name, arch in designs.items()
    }
    done = runner.run(tasks)
    data: dict[str, Any] = {}
    for view in counts:
        ranks = [done[f"{view} {name}"][SHOWN] for name in designs]
        data[f"path_{view}"] = (("design", "quantile", "layer"), [np.quantile(x, LEVELS, axis=0) for x in ranks])
        data[f"last_{view}"] = (("design", f"sample_{view}"), [x[:, -1] for x in ranks])
    coords = QUANTILES | {"design": list(designs), "layer": done["chain shaped"]["depth"]}
    return xr.Dataset(data, coords=coords, attrs={"tokens": len(v0)})


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the median effective ranks at the last layer, and the distances of networks and chain."""
    numbers = {}
    for design in data["design"].values:
        one = data.sel(design=design)
        for view in ("chain", "network"):
            numbers[f"median effective rank, {design}, {LABELS[view]}"] = median(one[f"last_{view}"])
        numbers[f"KS distance, {design}, network to chain"] = distance(one["last_network"], one["last_chain"])
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the number of different directions of the tokens against the layer: prediction as bands, networks as points.

    Each line is labelled at its end.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    layer, tokens = data["layer"].to_numpy(), data.attrs["tokens"]
    bars: dict[str, Any] = {"fmt": "o", "color": COLOURS["network"], "markersize": 5, "capsize": 3, "linewidth": 1}
    with rc_context({"font.size": FONT_SIZE}):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        axes = figure.subplots()
        for design, title in TITLES.items():
            colour = DESIGNS[design]
            low, middle, high = data["path_chain"].sel(design=design).to_numpy()
            axes.fill_between(layer, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(layer, middle, color=colour, linewidth=2.5)
            every = evenly_spaced(len(layer), NETWORKS_SHOWN)
            low, middle, high = data["path_network"].sel(design=design).to_numpy()[:, every]
            axes.errorbar(layer[every], middle, np.maximum([middle - low, high - middle], 0), **bars)
            place: dict[str, Any] = {"xytext": (12, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(title, (layer[-1], middle[-1]), color=colour, weight="bold", annotation_clip=False, **place)
        axes.plot([], [], color="grey", linewidth=2.5, label="predicted, without weights (median, 5–95 %)")
        axes.errorbar([], [], [], label="real networks", **bars)
        axes.set(xlabel="layer", ylabel=f"different directions among\n{tokens} tokens (effective rank)")
        axes.set(ylim=(0.7, tokens + 0.2), xlim=(0, layer[-1] * 1.01), yticks=range(1, tokens + 1))
        add_legend_above(figure, axes, loc="outside upper left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure
