"""Deep linear networks: heavy-tailed outputs that depend on each other, and the depth that data prefer [DL].

Given a random matrix Q the outputs are Gaussian. Its distribution depends on depth and width mainly through their
ratio. It makes the tails heavy, ties the outputs to each other, and tells the posterior how large outputs may be.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..bayes import DeepLinear
from ..design.definition import PositiveFloat, PositiveInt
from ..estimates import BOUNDS, Estimate, exact, from_array, mean, normal
from ..numerics.arrays import Floats
from ..plotting.plots import add_legend
from ..plotting.style import COLOURS, LABELS, SERIES
from .pieces import Arrays, PieceRunner, Task
from .settings import PositiveFloats, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = np.linspace(-8, 8, 321)
"""Where the density is computed, in standard deviations."""
BINS = np.linspace(-8, 8, 65)
"""Edges of the histogram of real networks."""
BATCH_WEIGHTS = 2**24
"""Weights of real networks in memory at a time."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    depths: PositiveInts,
    samples: Samples,
    network_samples: Samples,
    observations: PositiveInt,
    noise: PositiveFloat,
    sizes: PositiveFloats,
    seed: int,
) -> "xarray.Dataset":
    """Compute densities and the dependence of two outputs, exactly and of real networks, and the evidence of data.

    **Arguments:**

    - `width`, `depths`: of the networks.
    - `samples`: draws of Q for the dependence of two outputs.
    - `network_samples`: number of real networks of each depth.
    - `observations`: number of observations of a linear function with as many inputs.
    - `noise`: variance of their noise, over that of the outputs that a shallow network expects.
    - `sizes`: size of the observed outputs, in units of what the prior expects.
    - `seed`: of all draws.

    **Returns:** over depth: the density of an output, `exact`, `limit` and `histogram`; the share beyond 4 standard
    deviations, `exact tail`, and `tail` of real networks; E|f₁f₂|/(E|f₁| E|f₂|) of two outputs, `dependence`; log
    evidence over that of the Gaussian process, `evidence`, by size of the outputs.
    """
    import xarray as xr

    tasks: dict[str, Task] = {f"network {d}": partial(_network, width, d, network_samples, seed) for d in depths}
    tasks |= {f"chain {d}": partial(_drawn_dependence, width, d, samples, seed) for d in depths}
    tasks["evidence"] = partial(_evidence, width, tuple(depths), observations, noise, tuple(sizes), seed)
    done = runner.run(tasks)
    finite, limit = (
        [DeepLinear(width, d, limit=is_limit).density(GRID, 1.0) for d in depths] for is_limit in (False, True)
    )
    views = ("network", "chain", "sde")
    dependence = [[done[f"network {d}"]["dependence"], *done[f"chain {d}"]["dependence"]] for d in depths]
    return xr.Dataset(
        {
            "exact": (("depth", "f"), finite),
            "limit": (("depth", "f"), limit),
            "histogram": (("depth", "bin"), [done[f"network {d}"]["histogram"] for d in depths]),
            "tail": (("depth", "bound"), [done[f"network {d}"]["tail"] for d in depths]),
            "exact tail": ("depth", [2 * float(DeepLinear(width, d).distribution(-FAR, 1.0)) for d in depths]),
            "dependence": (("depth", "view", "bound"), dependence),
            "evidence": (("size", "depth"), done["evidence"]["finite"]),
            "limit evidence": (("size", "depth"), done["evidence"]["limit"]),
        },
        {
            "depth": list(depths),
            "f": GRID,
            "bin": (BINS[1:] + BINS[:-1]) / 2,
            "view": list(views),
            "size": list(sizes),
            "bound": list(BOUNDS),
        },
        {"width": width},
    )


FAR = 4.0
"""Outputs beyond so many standard deviations count as the tail: of a Gaussian, one in 16,000."""


def _network(width: int, depth: int, samples: int, seed: int) -> Arrays:
    """Return the histogram of an output of real networks, the share in its tail, and the dependence of two outputs."""
    rng, done, parts = np.random.default_rng([seed, depth]), 0, []
    size = max(1, BATCH_WEIGHTS // width**2)
    while done < samples:
        count = min(size, samples - done)
        x = rng.standard_normal((count, width, 2)) / np.sqrt(width)  # the last layer, transposed
        for _ in range(depth - 1):
            x = rng.standard_normal((count, width, width)) @ x / np.sqrt(width)
        parts.append(np.einsum("sia,si->sa", x, rng.standard_normal((count, width))))
        done += count
    outputs = np.concatenate(parts)
    counts, _ = np.histogram(outputs[:, 0], BINS)
    return {
        "histogram": counts / (samples * np.diff(BINS)),
        "tail": mean(np.abs(outputs[:, 0]) > FAR).to_array(),
        "dependence": _dependence(np.abs(outputs[:, 0]), np.abs(outputs[:, 1]), np.abs(np.prod(outputs, axis=1))),
    }


def _drawn_dependence(width: int, depth: int, samples: int, seed: int) -> Arrays:
    """Return the dependence of two outputs that are Gaussian given Q, of the chain and of the limit."""
    found = []
    for limit in (False, True):
        q = DeepLinear(width, depth, outputs=2, limit=limit).mixing(samples, seed)
        sizes = np.sqrt(q[:, 0, 0]), np.sqrt(q[:, 1, 1])
        rho = np.clip(q[:, 0, 1] / (sizes[0] * sizes[1]), -1, 1)
        product = sizes[0] * sizes[1] * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))  # E|f₁f₂| given Q, times π/2
        found.append(_dependence(*sizes, product))
    return {"dependence": np.array(found)}


def _dependence(first: Floats, second: Floats, product: Floats) -> Floats:
    """Return E|f₁f₂|/(E|f₁| E|f₂|) as an estimate, from draws of the three, with the error of the ratio."""
    a, b, c = np.mean(first), np.mean(second), np.mean(product)
    ratio = c / (a * b)
    influence = ratio * (product / c - first / a - second / b)
    return normal(float(ratio), float(np.std(influence) / np.sqrt(len(product)))).to_array()


def expected_dependence(width: int, depth: int) -> float:
    """Return E|f₁f₂|/(E|f₁| E|f₂|) of two outputs: [(N/2) Γ(N/2)²/Γ((N + 1)/2)²]^L (theory §9)."""
    from scipy.special import gammaln

    half = width / 2
    return float(np.exp(depth * (np.log(half) + 2 * gammaln(half) - 2 * gammaln(half + 0.5))))


def _evidence(
    width: int, depths: tuple[int, ...], observations: int, noise: float, sizes: tuple[float, ...], seed: int
) -> Arrays:
    """Return the log evidence of noisy observations of a linear function, over that of the Gaussian process."""
    rng = np.random.default_rng([seed, 0])
    inputs = rng.standard_normal((observations, observations))
    signal = inputs @ rng.standard_normal(observations)
    signal *= np.sqrt(observations) / np.linalg.norm(signal)
    errors = np.sqrt(noise) * rng.standard_normal(observations)
    gram = inputs @ inputs.T / observations + noise * np.eye(observations)
    found: dict[str, list[list[float]]] = {"finite": [], "limit": []}
    for size in sizes:
        y = size * signal + errors
        normaliser = np.linalg.slogdet(gram)[1] + observations * np.log(2 * np.pi)
        gaussian = -(y @ np.linalg.solve(gram, y) + normaliser) / 2
        for name, rows in found.items():
            networks = [DeepLinear(width, depth, limit=name == "limit") for depth in depths]
            rows.append([net.fit(inputs, y, noise).log_evidence - float(gaussian) for net in networks])
    return {name: np.array(rows) for name, rows in found.items()}


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the tail and the dependence of two outputs of the deepest real networks, and the gain in evidence."""
    deepest, width = data.isel(depth=-1), int(data.attrs["width"])
    depth = int(deepest["depth"])
    name = f"depth {depth}, width {width}"
    dependence = deepest["dependence"]
    numbers = {
        f"share beyond {FAR:g} standard deviations, real networks, {name}": from_array(deepest["tail"]),
        f"the same by quadrature, {name}": exact(float(deepest["exact tail"])),
        f"E|f1 f2|/(E|f1| E|f2|), real networks, {name}": from_array(dependence.sel(view="network")),
        f"the same in closed form, {name}": exact(expected_dependence(width, depth)),
    }
    for size in data["size"].to_numpy():
        title = f"log evidence over the Gaussian process, outputs {size:g} times as large, {name}"
        numbers[title] = exact(float(deepest["evidence"].sel(size=size)))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot densities of an output, the dependence of two outputs, and the evidence, against depth/width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _plot_densities(left, data)
    _plot_dependence(middle, data)
    _plot_evidence(right, data)
    return figure


def _plot_densities(panel: "Axes", data: "xarray.Dataset") -> None:
    """Plot the density of an output for the shallowest and the deepest networks, and one between."""
    depths, width = data["depth"].to_numpy(), data.attrs["width"]
    shown = [depths[i] for i in sorted({0, len(depths) // 2, len(depths) - 1})]
    for colour, depth in zip(SERIES, shown, strict=False):
        one = data.sel(depth=depth)
        panel.plot(GRID, one["exact"], color=colour, label=f"L/N = {depth / width:.2g}")
        panel.plot(GRID, one["limit"], color=colour, linestyle="--", linewidth=1)
        seen = one["histogram"].where(one["histogram"] > 0)
        panel.plot(data["bin"], seen, ".", color=colour, markersize=4)
    normal = np.exp(-(GRID**2) / 2) / np.sqrt(2 * np.pi)
    panel.plot(GRID, normal, color="#999999", linestyle=":", label="Gaussian process")
    panel.set(yscale="log", ylim=(1e-5, 60), xlabel="output f, in standard deviations", ylabel="density")
    panel.set_title("one output: heavy tails", loc="left")
    panel.plot([], [], ".", color="black", markersize=4, label="real networks")
    panel.plot([], [], "--", color="black", linewidth=1, label="limit")
    add_legend(panel, loc="upper right", ncols=2, fontsize=7.5)


def _plot_dependence(panel: "Axes", data: "xarray.Dataset") -> None:
    """Plot E|f₁f₂|/(E|f₁| E|f₂|) of two outputs in three views, and its closed forms."""
    ratio, width = data["depth"].to_numpy() / data.attrs["width"], data.attrs["width"]
    fine = np.linspace(0, ratio.max(), 100)
    closed = expected_dependence(width, 1) ** (fine * width)
    panel.plot(fine, closed, color="black", linewidth=1, label="closed form, finite width")
    panel.plot(fine, np.exp(fine / 2), color="black", linestyle="--", linewidth=1, label="limit, exp(L/2N)")
    shift = 0.012 * ratio.max()
    for i, view in enumerate(data["view"].to_numpy().tolist()):
        value, low, high = data["dependence"].sel(view=view).to_numpy().T
        size = [value - low, high - value]
        panel.errorbar(
            ratio + (i - 1) * shift,
            value,
            size,
            fmt="o",
            color=COLOURS[view],
            markersize=4,
            capsize=2,
            label=LABELS[view],
        )
    panel.axhline(1, color="#999999", linestyle=":")
    panel.set(xlabel="depth / width, L/N", ylabel="E|f₁f₂| / (E|f₁| E|f₂|)")
    panel.set_title("two outputs depend on each other", loc="left")
    add_legend(panel, loc="upper left", fontsize=8)


def _plot_evidence(panel: "Axes", data: "xarray.Dataset") -> None:
    """Plot the log evidence over that of the Gaussian process, by the size of the observed outputs."""
    ratio: Floats = data["depth"].to_numpy() / data.attrs["width"]
    for colour, size in zip(SERIES, data["size"].to_numpy(), strict=False):
        panel.plot(ratio, data["evidence"].sel(size=size), "o-", color=colour, markersize=4, label=f"{size:g}")
        panel.plot(ratio, data["limit evidence"].sel(size=size), "--", color=colour, linewidth=1)
    panel.axhline(0, color="#999999", linestyle=":")
    panel.set(xlabel="depth / width, L/N", ylabel="log evidence, over the Gaussian process")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.45 * (high - low))
    panel.set_title("what depth explains", loc="left")
    add_legend(
        panel, loc="upper right", ncols=2, fontsize=8, title="size of the outputs over the prior's\n(dashed: limit)"
    )
