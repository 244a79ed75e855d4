"""Rank collapse with the components of shaped attention removed one by one, with and without skips.

The attention matrix is a·I + softmax(Y/τ) − b·U. The components are the identity (a), the centring (b) and the
temperature (τ = τ0√(n n_k) instead of √n_k). Only all three together keep both the rank and the norms of the tokens.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.architecture import Architecture
from ..design.definition import PositiveFloat, PositiveInt
from ..design.layers import Residual, ShapedAttention
from ..estimates import LEVELS, Estimate, median
from ..inputs import equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import add_legend_above, plot_band
from ..plotting.style import DESIGNS, SERIES
from .observed import QUANTILES, draw_observables
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Correlation, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

VARIANTS = {
    "softmax only": (0.0, 0.0, False),
    "+ temperature": (0.0, 0.0, True),
    "+ identity": (1.0, 0.0, False),
    "+ centring": (0.0, 1.0, False),
    "+ identity + centring": (1.0, 1.0, False),
    "all: shaped": (1.0, 1.0, True),
}
"""Identity gain, uniform gain, and whether the temperature is the shaped one."""
SKIPS = {False: "without skip", True: "with skip"}
OBSERVED = ("effective_rank", "mean_token_norm")
SMALLEST = 1e-12
"""Smallest norm that the picture shows."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    records: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Sample attention layers with and without each component, by the exact chain.

    **Arguments:**

    - `gamma`: strength of the branch beside a skip of √(1 − γ²); without a skip the strength is 1.
    - the others as in the figure `correlation`.

    **Returns:** quantiles of effective rank and mean token norm through depth, over (skip, variant), and their samples
    at the last layer.
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    tasks: dict[str, Task] = {}
    for skip in SKIPS:
        for name, (identity, uniform, shaped_temperature) in VARIANTS.items():
            attention = ShapedAttention(
                tau0=tau0,
                identity_gain=identity,
                uniform_gain=uniform,
                logit_gain=1.0 if shaped_temperature else tau0 * np.sqrt(width),
            )
            layer = Residual(attention, scale=gamma) if skip else Residual(attention, scale=1.0, skip=0.0)
            arch = Architecture(width, depth, (layer,))
            tasks[f"{SKIPS[skip]} {name}"] = partial(
                draw_observables, "chain", arch, v0, samples, seed, OBSERVED, record=records
            )
    done = runner.run(tasks)
    out: dict[str, Any] = {}
    for name in OBSERVED:
        samples_of = [[done[f"{skip} {variant}"][name] for variant in VARIANTS] for skip in SKIPS.values()]
        quantiles = [[np.quantile(x, LEVELS, axis=0) for x in row] for row in samples_of]
        out[name] = (("skip", "variant", "quantile", "layer"), quantiles)
        out[f"last {name}"] = (("skip", "variant", "sample"), [[x[:, -1] for x in row] for row in samples_of])
    coords = QUANTILES | {
        "skip": list(SKIPS.values()),
        "variant": list(VARIANTS),
        "layer": next(iter(done.values()))["depth"],
    }
    return xr.Dataset(out, coords=coords, attrs={"gamma": gamma, "tokens": tokens})


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the median effective rank at the last layer of each variant."""
    last = data["last effective_rank"]
    return {
        f"median effective rank, {skip}, {variant}": median(last.sel(skip=skip, variant=variant))
        for skip in data["skip"].values
        for variant in data["variant"].values
    }


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot effective rank and norm through depth, without skips on the left and with skips on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    layer = data["layer"].to_numpy()
    styles: tuple[LineStyleType, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-")
    colours = (DESIGNS["skipless"], *SERIES[:4], DESIGNS["shaped"])
    for column, skip in zip(axes.T, data["skip"].values, strict=True):
        for panel, name in zip(column, OBSERVED, strict=True):
            for variant, colour, style in zip(VARIANTS, colours, styles, strict=True):
                values = data[name].sel(skip=skip, variant=variant).to_numpy()
                if name == "mean_token_norm":
                    values = np.maximum(values, SMALLEST)
                plot_band(panel, layer, values, colour, variant, style)
            panel.set_ylabel(OBSERVABLES[name].label)
        with_gamma = f" √(1 − γ²), γ = {data.attrs['gamma']:.3g}" if skip == SKIPS[True] else ""
        column[0].set_title(f"{skip}{with_gamma}", loc="left")
        column[0].set_ylim(0.9, data.attrs["tokens"] + 0.1)
        column[1].set_yscale("log")
        column[1].set_ylim(SMALLEST, None)
        column[1].set_xlabel("layer")
    add_legend_above(figure, axes[0, 0], ncols=3)
    figure.supxlabel("medians and 5–95 % bands, exact chain; attention layers only", fontsize="small")
    return figure
