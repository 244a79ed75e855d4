"""The effect of the number of tokens: one network on longer and longer contexts, in all three views."""

from functools import partial
from typing import TYPE_CHECKING, Any

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..design.masks import Mask
from ..estimates import Estimate, from_array
from ..inputs import equicorrelated
from ..observables import OBSERVABLES
from ..plotting.plots import add_legend_above, label_plainly, plot_view_band
from ..plotting.style import LABELS
from .observed import INTERVALS, QUANTILES, draw_observables, medians_along, quantiles_along, samples_by_view
from .pieces import PieceRunner, Task
from .settings import Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {
    "mean_absolute_correlation": OBSERVABLES["mean_absolute_correlation"].title,
    "effective_rank": f"{OBSERVABLES['effective_rank'].title} / m",
    "V11": OBSERVABLES["V11"].title,
}
"""Observables with their labels; the rank is divided by the number of tokens m."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depth: PositiveInt,
    tokens: PositiveInts,
    mask: Mask,
    gamma: PositiveFloat,
    tau0: PositiveFloat,
    c_minus: float,
    correlation: Correlation,
    samples: Samples,
    network_samples: Samples,
    long_context: PositiveInt,
    long_samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Sample the shaped Transformer by all three views for several numbers of tokens.

    **Arguments:**

    - `tokens`: numbers of tokens m, at most `width`.
    - `mask`: mask of the attention.
    - `long_context`, `long_samples`: from `long_context` tokens on, the number of samples of every view is
      `long_samples`, because the time of a sample grows with m³.
    - the others as in the figure `correlation`.

    **Returns:** for each view and observable its quantiles at the last layer over m, and its median with interval.
    """
    import xarray as xr

    arch = shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_minus=c_minus, mask=mask)
    counts = samples_by_view(samples, network_samples)
    tasks: dict[str, Task] = {
        f"{view} m={m}": partial(
            draw_observables,
            view,
            arch,
            equicorrelated(m, correlation),
            long_samples if m >= long_context else count,
            seed,
            list(OBSERVED),
        )
        for m in tokens
        for view, count in counts.items()
    }
    done = runner.run(tasks)
    out: dict[str, Any] = {}
    for view in counts:
        for name in OBSERVED:
            scales = [m if name == "effective_rank" else 1 for m in tokens]
            last = [done[f"{view} m={m}"][name][:, -1] / s for m, s in zip(tokens, scales, strict=True)]
            out[f"{view} {name}"] = quantiles_along("tokens", last)
            out[f"{view} median {name}"] = medians_along("tokens", last)
    coords: dict[str, Any] = {"tokens": list(tokens)} | QUANTILES | INTERVALS
    return xr.Dataset(out, coords=coords, attrs={"width": width, "depth": depth})


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the medians at the shortest and the longest context."""
    numbers = {}
    for name, label in list(OBSERVED.items())[:2]:
        for at in (0, -1):
            for view in LABELS if at else ("chain",):
                chosen = data[f"{view} median {name}"].isel(tokens=at)
                title = f"median {label}, m = {int(chosen['tokens'])}, {LABELS[view]}"
                numbers[title] = from_array(chosen)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot medians and bands against the number of tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    tokens = data["tokens"].to_numpy()
    for panel, (name, label) in zip(figure.subplots(1, 3), OBSERVED.items(), strict=True):
        for view in LABELS:
            plot_view_band(panel, view, tokens, *data[f"{view} {name}"].to_numpy().T)
        panel.set(xscale="log", xlabel="tokens m", ylabel=label)
        panel.set_xticks(tokens, [str(m) for m in tokens])
        panel.set_xticks([], minor=True)
        if name == "V11":
            panel.set_yscale("log")
            label_plainly(panel.yaxis)
        else:
            panel.set_ylim(0, 1.02)
    title = f"width {data.attrs['width']}, depth {data.attrs['depth']}: median and 5–95 % band at the last layer"
    add_legend_above(figure, figure.axes[0], title=title)
    return figure
