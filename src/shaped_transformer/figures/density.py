"""The laws of V₁₁, V₁₂ and ρ₁₂ in the full shaped Transformer, three views over each other, for several γ [ST]."""

from functools import partial
from typing import TYPE_CHECKING

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..inputs import equicorrelated
from ..plotting.plots import densities, legend
from ..plotting.style import LABELS
from .observed import Number, distance, median, observe
from .pieces import Pieces, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

STATISTICS = {
    "V11": ("norm of token 1, V₁₁", "log"),
    "V12": ("covariance of tokens 1 and 2, V₁₂", "linear"),
    "rho12": ("correlation of tokens 1 and 2, ρ₁₂", "linear"),
}


def compute(
    pieces: Pieces,
    width: PositiveInt,
    depth: PositiveInt,
    gammas: PositiveFloats,
    tau0: PositiveFloat,
    c_minus: float,
    tokens: AtLeastTwo,
    correlation: Correlation,
    samples: Samples,
    network_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Draw the shaped Transformer by all three views for several γ.

    **Arguments:** `gammas`: one column of the figure each; the rest as in the figure `correlation`.

    **Returns:** for each view its draws at the last layer, (gamma, statistic, sample).
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    counts = {"network": network_samples, "chain": samples, "sde": samples}
    tasks: dict[str, Task] = {
        f"{view} gamma={gamma:g}": partial(
            observe,
            view,
            shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_minus=c_minus),
            v0,
            counts[view],
            seed,
            list(STATISTICS),
        )
        for gamma in gammas
        for view in counts
    }
    done = pieces(tasks)
    return xr.Dataset(
        {
            view: (
                ("gamma", "statistic", f"sample_{view}"),
                [[done[f"{view} gamma={gamma:g}"][name][:, -1] for name in STATISTICS] for gamma in gammas],
            )
            for view in counts
        },
        coords={"gamma": list(gammas), "statistic": list(STATISTICS)},
    )


def headline(data: "xarray.Dataset") -> list[Number]:
    """Return for the largest γ the median norm by view, and for each γ the distances between views in ρ₁₂."""
    last = data.isel(gamma=-1)
    norms = [
        median(f"median V11 at γ = {float(last['gamma']):g}, {LABELS[v]}", last[v].sel(statistic="V11")) for v in LABELS
    ]
    distances = []
    for gamma in data["gamma"].values:
        rho = {view: data[view].sel(gamma=gamma, statistic="rho12").to_numpy() for view in LABELS}
        for view in ("network", "sde"):
            name = f"KS distance of ρ12 at γ = {float(gamma):g}, {LABELS[view]} to chain"
            distances.append(distance(name, rho[view], rho["chain"]))
    return [*norms, *distances]


def draw(data: "xarray.Dataset") -> "Figure":
    """Draw one column for each γ, one row for each statistic."""
    from matplotlib.figure import Figure

    gammas = data["gamma"].values
    figure = Figure(figsize=(3.6 * len(gammas), 8.4), layout="constrained")
    axes = figure.subplots(len(STATISTICS), len(gammas), squeeze=False)
    for column, gamma in zip(axes.T, gammas, strict=True):
        column[0].set_title(f"γ = {float(gamma):g}", loc="left")
        for panel, (name, (label, scale)) in zip(column, STATISTICS.items(), strict=True):
            panels = {view: data[view].sel(gamma=gamma, statistic=name).to_numpy() for view in LABELS}
            densities(panel, panels, scale)
            panel.set_xlabel(label)
    for panel in axes[:, 1:].flat:
        panel.set_ylabel("")
    legend(axes[0, 0])
    return figure
