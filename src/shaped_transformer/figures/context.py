"""The same network on longer and longer contexts: what the number of tokens does, three views over each other."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.architecture import shaped_transformer
from ..design.definition import PositiveFloat, PositiveInt
from ..design.masks import Mask
from ..inputs import equicorrelated
from ..plotting.plots import legend, plain_ticks, view_band
from ..plotting.style import LABELS
from .observed import LEVELS, Number, median, observe
from .pieces import Pieces, Task
from .settings import Correlation, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

OBSERVED = {
    "mean |rho|": "mean |ρ| over pairs",
    "effective rank": "effective rank / m",
    "V11": "norm of token 1, V₁₁",
}


def compute(
    pieces: Pieces,
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
    """Draw the shaped Transformer by all three views for several numbers of tokens.

    **Arguments:** `tokens`: numbers m, at most `width`; from `long_context` tokens on, `long_samples` are drawn by
    every view, as a draw takes m³ time; the rest as in the figure `correlation`.

    **Returns:** for each view and statistic its quantiles at the last layer over m, and its median with interval.
    """
    import xarray as xr

    arch = shaped_transformer(width, depth, gamma=gamma, tau0=tau0, c_minus=c_minus, mask=mask)
    counts = {"network": network_samples, "chain": samples, "sde": samples}
    tasks: dict[str, Task] = {
        f"{view} m={m}": partial(
            observe,
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
    done = pieces(tasks)
    out: dict[str, Any] = {}
    for view in counts:
        for name in OBSERVED:
            scale = [m if name == "effective rank" else 1 for m in tokens]
            last = [done[f"{view} m={m}"][name][:, -1] / s for m, s in zip(tokens, scale, strict=True)]
            medians = [median("", x) for x in last]
            out[f"{view} {name}"] = (("tokens", "quantile"), [np.quantile(x, LEVELS) for x in last])
            out[f"{view} median {name}"] = (("tokens", "bound"), [[m.value, m.low, m.high] for m in medians])
    coords = {"tokens": list(tokens), "quantile": list(LEVELS), "bound": ["value", "low", "high"]}
    return xr.Dataset(out, coords=coords, attrs={"width": width, "depth": depth})


def headline(data: "xarray.Dataset") -> list[Number]:
    """Return the medians at the shortest and the longest context."""
    numbers = []
    for name, label in list(OBSERVED.items())[:2]:
        for at in (0, -1):
            for view in LABELS if at else ("chain",):
                chosen = data[f"{view} median {name}"].isel(tokens=at)
                title = f"median {label}, m = {int(chosen['tokens'])}, {LABELS[view]}"
                numbers.append(Number(title, *(float(x) for x in chosen.values)))
    return numbers


def draw(data: "xarray.Dataset") -> "Figure":
    """Draw medians and bands against the number of tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    tokens = data["tokens"].to_numpy()
    for panel, (name, label) in zip(figure.subplots(1, 3), OBSERVED.items(), strict=True):
        for view in LABELS:
            view_band(panel, view, tokens, *data[f"{view} {name}"].to_numpy().T)
        panel.set(xscale="log", xlabel="tokens m", ylabel=f"{label}, at the last layer")
        panel.set_xticks(tokens, [str(m) for m in tokens])
        panel.set_xticks([], minor=True)
        if name == "V11":
            panel.set_yscale("log")
            plain_ticks(panel.yaxis)
        else:
            panel.set_ylim(0, 1.02)
    legend(figure.axes[0], loc="upper right")
    title = f"width {data.attrs['width']}, depth {data.attrs['depth']}: median and 5–95 % band"
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure
