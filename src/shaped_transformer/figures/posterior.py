"""Bayesian regression of real data with networks of finite width, against the Gaussian process of infinite width.

Noise and prior scale of both maximise the evidence. Does finite width predict better, are its intervals right, and does
the evidence tell?
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..design.activations import Activation
from ..design.architecture import Architecture
from ..design.definition import PositiveInt
from ..design.layers.dense import Dense
from ..estimates import BOUNDS, Estimate, exact, from_array, normal, share
from ..numerics.arrays import Floats
from ..plotting.plots import add_legend_above, label_plainly
from ..plotting.style import SERIES
from .pieces import Arrays, PieceRunner, Task
from .settings import Axis, PositiveInts, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DataName = Literal["diabetes", "wine"]
DATA = {"diabetes": "disease progression of diabetes", "wine": "alcohol content of wine"}
"""Regressions of data that scikit-learn ships: ten clinical features, and twelve other chemical analyses."""
LEVELS = {"50 %": (0.25, 0.75), "90 %": (0.05, 0.95)}
"""Intervals whose coverage is measured."""
INFINITE = 0
"""The width that stands for infinity, the Gaussian process."""


def compute(
    runner: PieceRunner,
    data: Axis[Sequence[DataName]],
    widths: PositiveInts,
    depths: PositiveInts,
    train: Annotated[PositiveInt, Field(ge=5)],
    test: Samples,
    samples: Samples,
    seed: int,
) -> "xarray.Dataset":
    """Fit ReLU networks of several widths and depths, and the Gaussian process of each depth, to the same data.

    **Arguments:**

    - `data`: names of the data.
    - `widths`, `depths`: of the networks.
    - `train`, `test`: number of inputs, drawn at random; as many for the test as there are.
    - `samples`: draws of the prior.
    - `seed`: of the split and the draws.

    **Returns:** over data, width (0: infinite) and depth: log `evidence` with its error, log `density` of the test data
    per point, its `gain` over the Gaussian process of the same depth, `coverage` of intervals, `seconds`, `effective`
    sample size (0 of the process, which needs no draws), `tempered`, `noise` and `scale`.

    **Raises:** `MissingExtra` if scikit-learn is not installed.
    """
    import xarray as xr

    from ..bayes import Regressor  # noqa: F401 - raises `MissingExtra` before any work

    every = [INFINITE, *widths]
    tasks: dict[str, Task] = {
        f"{name} {width} {depth}": partial(_fit, name, width, depth, (train, test), samples, seed)
        for name in data
        for width in every
        for depth in depths
    }
    done = runner.run(tasks)

    def over_all(function: Callable[[Arrays, Arrays], Any]) -> list[Any]:
        return [
            [[function(done[f"{name} {width} {d}"], done[f"{name} {INFINITE} {d}"]) for d in depths] for width in every]
            for name in data
        ]

    dims = ("data", "width", "depth")
    return xr.Dataset(
        {
            "evidence": ((*dims, "bound"), over_all(lambda one, _: one["evidence"])),
            "density": ((*dims, "bound"), over_all(lambda one, _: _mean(one["densities"]))),
            "gain": ((*dims, "bound"), over_all(lambda one, process: _mean(one["densities"] - process["densities"]))),
            "coverage": ((*dims, "interval", "bound"), over_all(lambda one, _: one["coverage"])),
            "seconds": (dims, over_all(lambda one, _: float(one["seconds"]))),
            "effective": (dims, over_all(lambda one, process: 0.0 if one is process else float(one["effective"]))),
            "tempered": (dims, over_all(lambda one, process: one is not process and bool(one["tempered"]))),
            "noise": (dims, over_all(lambda one, _: float(one["noise"]))),
            "scale": (dims, over_all(lambda one, _: float(one["scale"]))),
        },
        {
            "data": list(data),
            "width": every,
            "depth": list(depths),
            "interval": list(LEVELS),
            "bound": list(BOUNDS),
        },
        {"train": train},
    )


def _mean(values: Floats) -> Floats:
    """Return the mean over test points as an estimate."""
    return normal(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))).to_array()


def _split(name: str, counts: tuple[int, int], seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return training inputs and targets, and those of the test, in units of the training data's deviations."""
    from sklearn.datasets import load_diabetes, load_wine

    if name == "diabetes":
        features, targets = load_diabetes(return_X_y=True)
    else:
        table = load_wine(return_X_y=True)[0]
        features, targets = table[:, 1:], table[:, 0]
    order = np.random.default_rng(seed).permutation(len(targets))
    first, second = order[: counts[0]], order[counts[0] :][: counts[1]]
    features = (features - features[first].mean(0)) / features[first].std(0)
    features = np.hstack([features, np.ones((len(features), 1))])  # networks have no biases
    targets = (targets - targets[first].mean()) / targets[first].std()
    return features[first], targets[first], features[second], targets[second]


def _fit(name: str, width: int, depth: int, counts: tuple[int, int], samples: int, seed: int) -> Arrays:
    """Fit a network, or the Gaussian process of a depth, and measure it on the test data."""
    inputs, targets, tests, truth = _split(name, counts, seed)
    start = time.perf_counter()
    fitted = _process(inputs, targets, tests, truth, depth) if width == INFINITE else None
    if fitted is None:
        fitted = _networks((inputs, targets, tests, truth), width, depth, samples, seed)
    covered = [share((low <= truth) & (truth <= high)).to_array() for low, high in fitted.pop("intervals")]
    seconds = np.array(time.perf_counter() - start)
    return {**fitted, "coverage": np.array(covered), "seconds": seconds}


def _architecture(width: int, depth: int) -> Architecture:
    """Return the ReLU network."""
    return Architecture(width, depth, (Dense(Activation("relu")),))


def _networks(split: tuple[Floats, Floats, Floats, Floats], width: int, depth: int, samples: int, seed: int) -> Arrays:
    """Fit networks of finite width."""
    from ..bayes import Regressor

    inputs, targets, tests, truth = split
    model = Regressor(_architecture(width, depth), noise=None, prior_scale=None, samples=samples, seed=seed)
    model.fit(inputs, targets)
    levels = [level for ends in LEVELS.values() for level in ends]
    ends = model.predict_quantiles(tests, levels, observed=True)
    return {
        "evidence": normal(model.log_evidence_, model.log_evidence_error_).to_array(),
        "densities": model.log_predictive_density(tests, truth),
        "intervals": ends.reshape(len(LEVELS), 2, -1),
        "effective": np.array(model.effective_sample_size_),
        "tempered": np.array(model.tempered_),
        "noise": np.array(model.noise_),
        "scale": np.array(model.prior_scale_),
    }


def _process(inputs: Floats, targets: Floats, tests: Floats, truth: Floats, depth: int) -> Arrays:
    """Fit the Gaussian process of infinite width, by scikit-learn."""
    from scipy.stats import norm
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

    from ..bayes import InfiniteWidthKernel

    kernel = ConstantKernel(1.0, (1e-4, 1e4)) * InfiniteWidthKernel(_architecture(512, depth))
    model = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-6, 1e2)), normalize_y=False).fit(inputs, targets)
    mean, deviation = model.predict(tests, return_std=True)
    levels = np.array([level for ends in LEVELS.values() for level in ends])
    ends = mean + norm.ppf(levels)[:, None] * deviation
    return {
        "evidence": exact(float(model.log_marginal_likelihood_value_)).to_array(),
        "densities": norm.logpdf(truth, mean, deviation),
        "intervals": ends.reshape(len(LEVELS), 2, -1),
        "noise": np.array(np.exp(model.kernel_.theta[-1])),
        "scale": np.array(np.exp(model.kernel_.theta[0])),
    }


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return evidence and predictive density of each network over those of the Gaussian process, and its coverage."""
    numbers = {}
    finite = [width for width in data["width"].to_numpy().tolist() if width != INFINITE]
    for name, width, depth in product(data["data"].to_numpy().tolist(), finite, data["depth"].to_numpy().tolist()):
        one, where = data.sel(data=name, depth=depth), f"{name}, width {width}, depth {depth}"
        process = float(one["evidence"].sel(width=INFINITE, bound="value"))
        found = one.sel(width=width)
        numbers[f"log evidence over the Gaussian process, {where}"] = from_array(found["evidence"] - process)
        numbers[f"log density of a test point over the Gaussian process, {where}"] = from_array(found["gain"])
        numbers[f"coverage of 90 % intervals, {where}"] = from_array(found["coverage"].sel(interval="90 %"))
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot evidence, predictive density and coverage against depth/width, a row for each data."""
    from matplotlib.figure import Figure

    names = data["data"].to_numpy().tolist()
    figure = Figure(figsize=(13, 0.6 + 3.7 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        _plot_row(row, data.sel(data=name))
        row[0].set_title(f"{DATA[name]}, {data.attrs['train']} inputs", loc="left")
    add_legend_above(figure, grid[0, 0])
    return figure


def _plot_row(row: "Sequence[Axes]", one: "xarray.Dataset") -> None:
    """Plot one of the data."""
    evidence, gain, covered = row
    depths, widths = one["depth"].to_numpy(), one["width"].to_numpy().tolist()
    process = one["evidence"].sel(width=INFINITE, bound="value").to_numpy()
    for colour, width in zip(SERIES, [w for w in widths if w != INFINITE], strict=False):
        at = depths / width
        options: dict[str, Any] = {"color": colour, "markersize": 4, "capsize": 2, "label": f"width {width}"}
        gained = one["evidence"].sel(width=width) - process[:, None]
        for panel, values in ((evidence, gained), (gain, one["gain"].sel(width=width))):
            value, low, high = values.to_numpy().T
            panel.errorbar(at, value, [value - low, high - value], fmt="o-", **options)
        for interval, marker in zip(LEVELS, ("o", "s"), strict=True):
            value, low, high = one["coverage"].sel(width=width, interval=interval).to_numpy().T
            covered.errorbar(at, value, [value - low, high - value], fmt=marker, **options | {"label": None})
    for panel in (evidence, gain):
        panel.axhline(0, color="#999999", linestyle=":", label="Gaussian process")
    for interval, (low, high) in LEVELS.items():
        covered.axhline(high - low, color="#999999", linestyle=":")
        covered.annotate(interval, (0.01, high - low), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    for panel in row:
        panel.set(xscale="log", xlabel="depth / width")
        label_plainly(panel.xaxis)
    evidence.set_ylabel("log evidence, over the\nGaussian process of that depth")
    gain.set_ylabel("log density of a test point,\nover the Gaussian process")
    covered.set(ylabel="share of test points\nin the interval", ylim=(0.3, 1.02))
