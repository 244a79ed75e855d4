"""The picture of `advise`: the share of healthy networks against γ, and the largest stable γ against τ0."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ..estimates import BOUNDS, to_array
from .style import COLOURS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..analysis.advice import Advice


def compute(advice: "Advice") -> "xarray.Dataset":
    """Return the trials and the frontier of an advice as a dataset.

    **Returns:** over `trial`, in increasing order of `gamma`: `share` of healthy networks with its interval, and
    whether the trial is a `test`; over `tau0`: the `largest_gamma`, NaN where no γ is stable, and `frontier_share`.
    Attributes: the advised `gamma` (NaN if none), `training_gamma` (likewise), `seed`, architecture and criterion
    (JSON).
    """
    import xarray as xr

    trials = sorted(advice.trials, key=lambda trial: trial.gamma)
    points = advice.frontier
    data: dict[str, Any] = {
        "gamma": ("trial", [trial.gamma for trial in trials]),
        "test": ("trial", [trial.stage == "test" for trial in trials]),
        "share": (("trial", "bound"), to_array(trial.share for trial in trials)),
    }
    coords: dict[str, Any] = {"bound": list(BOUNDS)}
    if points:
        data["largest_gamma"] = ("tau0", [np.nan if p.gamma is None else p.gamma for p in points])
        data["frontier_share"] = (("tau0", "bound"), to_array(p.healthy for p in points))
        coords["tau0"] = [p.tau0 for p in points]
    attributes = {
        "gamma": np.nan if advice.gamma is None else advice.gamma,
        "training_gamma": np.nan if advice.training_gamma is None else advice.training_gamma,
        "seed": advice.seed,
        "architecture": json.dumps(advice.design.to_dict()),
        "criterion": json.dumps(asdict(advice.criterion)),
    }
    return xr.Dataset(data, coords=coords, attrs=attributes)


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the dataset of `compute`: one panel, or two if there is a frontier."""
    from matplotlib.figure import Figure

    panels = 2 if "tau0" in data.coords else 1
    figure = Figure(figsize=(5.5 * panels, 4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _plot_trials(axes[0], data)
    if panels == 2:
        _plot_frontier(axes[1], data)
    network = json.loads(data.attrs["architecture"])
    figure.suptitle(f"depth {network['depth']}, width {network['width']}", fontsize="medium")
    return figure


def _plot_trials(axis: "Axes", data: "xarray.Dataset") -> None:
    """Plot the share of healthy networks against γ, with the advised γ and the one that trains best."""
    gamma, share = data["gamma"].to_numpy(), data["share"].to_numpy()
    test = data["test"].to_numpy()
    wanted = json.loads(data.attrs["criterion"])["probability"]
    for kind, marker, label in ((test, "o", "test"), (~test, "x", "bracket, few draws")):
        value, low, high = share[kind].T
        error = np.maximum([value - low, high - value], 0)
        style: dict[str, Any] = {"fmt": marker, "markersize": 4, "linewidth": 0.8, "color": COLOURS["chain"]}
        axis.errorbar(gamma[kind], value, error, label=label, **style)
    axis.axhline(wanted, color="grey", linestyle=":", label=f"wanted: {wanted:g}")
    if np.isfinite(data.attrs["gamma"]):
        start = np.nanmin([gamma.min(), data.attrs["training_gamma"]]) / 1.2
        axis.axvspan(start, data.attrs["gamma"], color=COLOURS["chain"], alpha=0.12, linewidth=0, label="stable")
        axis.set_xlim(left=start)
    if np.isfinite(data.attrs["training_gamma"]):
        axis.axvline(data.attrs["training_gamma"], color="grey", linestyle="--", label="for training: 0.5/√depth")
    axis.set(xscale="log", xlabel="branch strength γ", ylabel="share of healthy networks", ylim=(-0.03, 1.03))
    axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def _plot_frontier(axis: "Axes", data: "xarray.Dataset") -> None:
    """Plot the largest stable γ against τ0."""
    tau0, gamma = data["tau0"].to_numpy(), data["largest_gamma"].to_numpy()
    known = np.isfinite(gamma)
    axis.plot(tau0[known], gamma[known], "o-", color=COLOURS["chain"], label="largest stable γ")
    axis.fill_between(tau0[known], 0, gamma[known], color=COLOURS["chain"], alpha=0.12, linewidth=0, label="stable")
    if not known.all():
        axis.plot(tau0[~known], np.zeros(np.sum(~known)), "x", color="grey", clip_on=False, label="no stable γ")
    top = 1.25 * float(np.max(gamma[known], initial=0.1))
    axis.set(
        xscale="log",
        xlabel="temperature constant τ0 (larger: cooler logits)",
        ylabel="branch strength γ",
        ylim=(0, top),
    )
    axis.set_xticks(tau0, [f"{at:g}" for at in tau0], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize="small", loc="lower right")
