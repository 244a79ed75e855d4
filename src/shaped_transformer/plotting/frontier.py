"""The picture of `advise`: the largest stable γ against τ0."""

from typing import TYPE_CHECKING

import numpy as np

from .style import COLOURS

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from ..analysis.advice import Advice


def compute(advice: "Advice") -> "xarray.Dataset":
    """Return the frontier of an advice as a dataset.

    **Returns:** over `tau0`, `gamma`, which is NaN where no γ is stable, and `healthy` with its interval
    (`healthy_low`, `healthy_high`); the arguments of `advise` are attributes.
    """
    import xarray as xr

    points = advice.frontier
    columns = {
        "gamma": [np.nan if p.gamma is None else p.gamma for p in points],
        "healthy": [p.healthy.value for p in points],
        "healthy_low": [p.healthy.low for p in points],
        "healthy_high": [p.healthy.high for p in points],
    }
    arguments = ("depth", "width", "tokens", "heads", "probability", "rank_share", "confidence", "samples", "seed")
    return xr.Dataset(
        {name: ("tau0", values) for name, values in columns.items()},
        coords={"tau0": [p.tau0 for p in points]},
        attrs={name: getattr(advice, name) for name in arguments} | {"advised_tau0": advice.tau0},
    )


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the dataset of `compute`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    tau0, gamma = data["tau0"].to_numpy(), data["gamma"].to_numpy()
    known = np.isfinite(gamma)
    axis.plot(tau0[known], gamma[known], "o-", color=COLOURS["chain"], label="largest stable γ (exact chain)")
    axis.fill_between(tau0[known], 0, gamma[known], color=COLOURS["chain"], alpha=0.15, linewidth=0, label="stable")
    for at in tau0[~known]:
        axis.plot(at, 0, "x", color=COLOURS["sde"], label="no stable γ" if at == tau0[~known][0] else None)
    axis.axvline(data.attrs["advised_tau0"], color="grey", linestyle=":", label="advised τ0")
    axis.set(xscale="log", xlabel="temperature constant τ0", ylabel="branch strength γ", ylim=(0, 1.05))
    axis.set_xticks(tau0, [f"{at:g}" for at in tau0], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=8)
    a = data.attrs
    axis.set_title(f"depth {a['depth']}, width {a['width']}, {a['tokens']} tokens, {a['heads']} heads", fontsize=10)
    return figure
