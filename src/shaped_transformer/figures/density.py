"""Distributions of V₁₁, V₁₂ and ρ₁₂ in the full shaped Transformer for several γ, in all three views [ST]."""

from functools import partial
from typing import TYPE_CHECKING

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import Estimate, distance, median
from ..inputs import equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import RANGES, add_legend_above, plot_densities
from ..plotting.style import LABELS
from .observed import draw_observables, samples_by_view
from .pieces import PieceRunner, Task
from .settings import AtLeastTwo, Correlation, PositiveFloats, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = ("V11", "V12", "rho12")


def compute(
    runner: PieceRunner,
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
    """Sample the shaped Transformer by all three views for several γ.

    **Arguments:**

    - `gammas`: branch strengths, one for each column of the figure.
    - the others as in the figure `correlation`.

    **Returns:** for each view its samples at the last layer, (gamma, statistic, sample).
    """
    import xarray as xr

    v0 = equicorrelated(tokens, correlation)
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {
        f"{view} gamma={gamma:g}": partial(
            draw_observables,
            view,
            shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_minus=c_minus),
            v0,
            count,
            seed,
            OBSERVED,
        )
        for gamma in gammas
        for view, count in counts.items()
    }
    done = runner.run(tasks)
    return xr.Dataset(
        {
            view: (
                ("gamma", "statistic", f"sample_{view}"),
                [[done[f"{view} gamma={gamma:g}"][name][:, -1] for name in OBSERVED] for gamma in gammas],
            )
            for view in counts
        },
        coords={"gamma": list(gammas), "statistic": list(OBSERVED)},
    )


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return each view's median norm at the largest γ, and the distances of network and SDE to the chain at each γ."""
    last = data.isel(gamma=-1)
    numbers = {
        f"median V11 at γ = {float(last['gamma']):g}, {LABELS[v]}": median(last[v].sel(statistic="V11")) for v in LABELS
    }
    for gamma in data["gamma"].values:
        rho = {view: data[view].sel(gamma=gamma, statistic="rho12").to_numpy() for view in LABELS}
        for view in ("network", "sde"):
            name = f"KS distance of ρ12 at γ = {float(gamma):g}, {LABELS[view]} to chain"
            numbers[name] = distance(rho[view], rho["chain"])
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the densities, with a column for each γ and a row for each statistic."""
    from matplotlib.figure import Figure

    gammas = data["gamma"].values
    figure = Figure(figsize=(3.6 * len(gammas), 8.4), layout="constrained")
    axes = figure.subplots(len(OBSERVED), len(gammas), squeeze=False)
    for column, gamma in zip(axes.T, gammas, strict=True):
        column[0].set_title(f"γ = {float(gamma):g}", loc="left")
        for panel, name in zip(column, OBSERVED, strict=True):
            samples = {view: data[view].sel(gamma=gamma, statistic=name).to_numpy() for view in LABELS}
            plot_densities(panel, samples, OBSERVABLES[name].scale, RANGES.get(name))
            panel.set_xlabel(OBSERVABLES[name].label)
    for panel in axes[:, 1:].flat:
        panel.set_ylabel("")
    add_legend_above(figure, axes[0, 0], title="distributions at the last layer; real networks with 95 % bars")
    return figure
