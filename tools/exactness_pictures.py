# ruff: noqa: T201
"""Draw the pictures of docs/exactness.md and print the tests of the distributions that they show.

python tools/exactness_pictures.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

import shaped_transformer as st
from shaped_transformer.numerics.arrays import Floats
from shaped_transformer.plotting.plots import add_legend_above, label_plainly, plot_densities
from shaped_transformer.plotting.style import COLOURS, LABELS, SERIES, save
from shaped_transformer.weightless.matrices.matrix import query_gaussian, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "figures"
RESULTS = ROOT / "docs" / "results"
WEIGHTLESS = SERIES[2]
WRONG = SERIES[1]

V0 = st.inputs.equicorrelated(tokens=4, correlation=0.2)
NETWORKS = 20_000

CONTOURS = 20_000
"""Number of real layers of which the contours are made."""

LAYER_WIDTH, LAYERS = 8, 3_000
"""Width of the linear layer that is drawn with and without its weights, and how many of each."""

ROWS, COLUMNS, LEFT, RIGHT = 16, 20, 3, 2
"""Size of the matrix in the heat maps, and how many vectors it meets from each side."""

REACH = 3.0
"""Size at which the colours of an entry are darkest."""

UNSEEN = "#D9D9D9"
"""Colour of entries that are never drawn."""


def architecture(gamma: float = 0.8) -> st.Architecture:
    """Return networks so narrow and so bent that their limit is visibly another distribution."""
    return st.shaped_transformer(width=6, depth=2, gamma=gamma, c_minus=-3.0)


def main() -> None:
    """Draw all pictures."""
    pictures = {
        "span": span(),
        "knowledge": knowledge(),
        "chain": chain(),
        "layer": layer(),
        "cost": cost(),
    }
    for name, figure in pictures.items():
        save(figure, FOLDER / f"exactness-{name}")
        (FOLDER / f"exactness-{name}.svg").unlink()


def span() -> "Figure":
    """Three tokens times a Gaussian matrix, before and after a rotation of the axes."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((LEFT, ROWS)), rng.standard_normal((ROWS, ROWS))
    q = _frame(x)
    triangle, turned, product = x @ q.T, q @ w, x @ w
    turned[LEFT:] = np.nan
    triangle[:, LEFT:] = 0
    figure = _figure(10, 7)
    grid = figure.subplots(2, 3)
    names = ("X: three tokens", "W: Gaussian", "X W"), ("X Qᵀ = [L 0]", "Q W: Gaussian, too", "X W, the same")
    for panels, matrices, titles in zip(grid, ((x, w, product), (triangle, turned, product)), names, strict=True):
        for panel, matrix, title, sign, reach in zip(
            panels, matrices, titles, ("", "×", "="), (REACH, REACH, 2 * REACH), strict=True
        ):
            _show(panel, matrix, title, sign, reach)
    grid[1, 1].text((ROWS - 1) / 2, (ROWS + LEFT - 1) / 2, "never looked at", ha="center", va="center")
    return figure


def knowledge() -> "Figure":
    """A matrix that has met vectors from both sides: what is known of it, and the rest."""
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((LEFT, ROWS)), rng.standard_normal((RIGHT, COLUMNS))
    w = rng.standard_normal((ROWS, COLUMNS))
    left, right = _frame(x), _frame(g)
    rotated = left @ w @ right.T
    known = rotated.copy()
    known[LEFT:, RIGHT:] = 0
    rest = rotated - known
    figure = _figure(10, 6)
    grid = figure.subplots(2, 3)
    top = (w, left.T @ known @ right, left.T @ rest @ right)
    hidden = np.where(known == 0, np.nan, known), np.where(rest == 0, np.nan, rest)
    titles = ("W", "known part", "the rest"), ("W, axes turned", "known rows and columns", "the rest: fresh N(0, 1)")
    for panels, matrices, names in zip(grid, (top, (rotated, *hidden)), titles, strict=True):
        for panel, matrix, name, sign in zip(panels, matrices, names, ("", "=", "+"), strict=True):
            _show(panel, matrix, name, sign)
    drawn = LEFT * COLUMNS + RIGHT * ROWS - LEFT * RIGHT
    print(f"knowledge: {drawn} of {ROWS * COLUMNS} numbers are known after {LEFT} and {RIGHT} vectors")
    _check_state(x, g)
    return figure


def _check_state(x: Floats, g: Floats) -> None:
    """Print that the library keeps as much of a matrix as the picture shows."""
    state = unknown(ROWS, COLUMNS, torch.float64)
    generator = torch.Generator().manual_seed(0)
    for side, vectors in (("left", x), ("right", g)):
        length = COLUMNS if side == "left" else ROWS

        def draw(count: int, length: int = length) -> Tensor:
            return torch.randn(count, length, generator=generator, dtype=torch.float64)

        _, state = query_gaussian(state, "left" if side == "left" else "right", torch.from_numpy(vectors), draw)
    print(f"knowledge: directions met from the left {len(state.left.directions)}, right {len(state.right.directions)}")


def chain() -> "Figure":
    """The distributions of ρ₁₂ and V₁₁ in small networks: real ones, chain and SDE."""
    arch = architecture()
    draws = {
        "network": st.network.sample(arch, V0, samples=NETWORKS, seed=0, record=1),
        "chain": st.chain.sample(arch, V0, samples=NETWORKS, seed=1, record=1),
        "sde": st.sde.sample(arch, V0, samples=NETWORKS, seed=2, record=1),
    }
    wrong = st.chain.sample(architecture(0.88), V0, samples=NETWORKS, seed=1, record=1)
    figure = _figure(10, 4)
    panels = np.ravel(np.asarray(figure.subplots(1, 2)))
    for panel, name, scale, bounds in zip(panels, ("rho12", "V11"), ("linear", "log"), ((-1, 1), None), strict=True):
        values = {view: ensemble.observe(name)[:, -1] for view, ensemble in draws.items()}
        plot_densities(panel, values, scale, bounds)
        panel.set_xlabel(st.statistics.OBSERVABLES[name].label)
        others = {LABELS[view]: values[view] for view in ("chain", "sde")}
        others["the chain with γ 10 % off"] = wrong.observe(name)[:, -1]
        for label, other in others.items():
            _print_distance(f"chain: {name}, real networks and {label}", values["network"], other)
    add_legend_above(figure, panels[0])
    return figure


class Linear(nn.Module):
    """One matrix with N(0, 1/n) entries."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return x·W."""
        return x @ self.weight


def layer() -> "Figure":
    """Forward and gradient norms of a linear layer: real, weightless, and with another matrix in the backward pass."""
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(1, LAYER_WIDTH)) * LAYER_WIDTH**0.5
    unseen = st.weightless.build(lambda: Linear(LAYER_WIDTH), seed=0)
    print(f"layer: the weightless matrix is {st.weightless.laws(unseen)['weight'].treatment}")
    found: dict[str, list[tuple[float, float]]] = {"real": [], "weightless": [], "wrong": []}
    for seed in range(LAYERS):
        st.weightless.redraw(unseen, seed=seed)
        found["weightless"].append(_norms(unseen, unseen, x))
        found["real"].append(_norms(real := Linear(LAYER_WIDTH), real, x))
        found["wrong"].append(_norms(Linear(LAYER_WIDTH), Linear(LAYER_WIDTH), x))
    norms = {kind: np.array(pairs) for kind, pairs in found.items()}
    for kind in ("weightless", "wrong"):
        for name, one, other in zip(
            ("forward norm", "gradient norm", "gradient norm over forward norm"),
            _statistics(norms["real"]),
            _statistics(norms[kind]),
            strict=True,
        ):
            _print_distance(f"layer: {name}, real and {kind}", one, other)
    return _plot_layer(norms)


def _statistics(pairs: Floats) -> tuple[Floats, Floats, Floats]:
    """Return forward norm, gradient norm and their ratio."""
    return pairs[:, 0], pairs[:, 1], pairs[:, 1] / pairs[:, 0]


def _norms(forward: nn.Module, backward: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return ‖y‖/√n of y = xW and ‖yW'ᵀ‖/√n, the gradient of ½‖xW‖² with W' the matrix of the backward pass."""
    y = forward(x).detach()
    again = x.clone().requires_grad_()
    gradient = torch.autograd.grad(backward(again), again, y)[0]
    scale = LAYER_WIDTH**0.5
    return float(y.norm()) / scale, float(gradient.norm()) / scale


def _plot_layer(norms: Mapping[str, Floats]) -> "Figure":
    """Plot the joint distributions, in all panels with the contours that hold 50 and 95 % of real layers."""
    from scipy.stats import gaussian_kde

    w = np.random.default_rng(0).standard_normal((CONTOURS, LAYER_WIDTH, LAYER_WIDTH)) / LAYER_WIDTH**0.5
    y = w[:, 0]  # x is √n times the first axis: a Gaussian matrix does not see which
    g = np.einsum("sij,sj->si", w, y)
    logs = np.log([np.linalg.norm(y, axis=1), np.linalg.norm(g, axis=1)])
    estimate = gaussian_kde(logs)
    at = np.geomspace(0.2, 2.5, 80)
    grid = np.stack(np.meshgrid(at, 2 * at))
    density = estimate(np.log(grid).reshape(2, -1)).reshape(80, 80)
    inside = np.sort(estimate(logs[:, :2000]))
    levels = [inside[int(share * len(inside))] for share in (0.05, 0.5)]
    figure = _figure(11, 4.2)
    panels = np.ravel(np.asarray(figure.subplots(1, 3, sharex=True, sharey=True)))
    kinds = {
        "real": ("a real layer", COLOURS["network"]),
        "weightless": ("a weightless layer", WEIGHTLESS),
        "wrong": ("wrong: another matrix backwards", WRONG),
    }
    for panel, (kind, (title, colour)) in zip(panels, kinds.items(), strict=True):
        panel.plot(*norms[kind].T, ".", color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
        panel.contour(*grid, density, levels, colors="#000000", linewidths=1.2)
        panel.set(xscale="log", yscale="log", title=title, xlabel="forward: ‖xW‖/√n")
        panel.set(xlim=(0.3, 2.2), ylim=(0.15, 4.5))
        label_plainly(panel.xaxis)
        label_plainly(panel.yaxis)
    panels[0].set_ylabel("backward: ‖∂½‖xW‖²/∂x‖/√n")
    return figure


def cost() -> "Figure":
    """Time against width, of runs that are kept in docs/results."""
    speed = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
    passes = json.loads((RESULTS / "weightless.json").read_text(encoding="utf-8"))
    sizes = yaml.safe_load((ROOT / "src/shaped_transformer/weightless/sizes.yaml").read_text(encoding="utf-8"))
    figure = _figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    for block, style in (("full block", "-"), ("attention only", "--")):
        rows = [row for row in speed["rows"] if row["block"] == block and row["tokens"] == 8]
        widths = [row["width"] for row in rows]
        times = [min(row["NumPy"], row["PyTorch"]) for row in rows]
        left.plot(widths, times, "s" + style, color=COLOURS["network"], label=f"real networks, {block}")
        width = speed["scaling"]["width"]
        left.plot(
            width["x"], 1e6 * np.array(width[block]), "o" + style, color=COLOURS["chain"], label=f"chain, {block}"
        )
    left.set(title="V after one block, 8 tokens", ylabel="microseconds per draw")
    for kind, label, colour in (
        ("real weights", "real weights", COLOURS["network"]),
        ("weightless", "weightless", WEIGHTLESS),
    ):
        rows = [row for row in passes if row["kind"] == kind and row["tokens"] == 16]
        shapes = [sizes[row["model"]]["sizes"] for row in rows]
        widths = [shape.get("hidden_size") or shape["n_embd"] for shape in shapes]
        depths = np.array([shape.get("num_hidden_layers") or shape["n_layer"] for shape in shapes])
        seconds = np.array([row["build"] + row["forward"] + row["backward"] for row in rows])
        right.plot(widths, 1e3 * seconds / depths, "o-", color=colour, label=label)
        for row, at, height in zip(rows, widths, 1e3 * seconds / depths, strict=True):
            if kind == "weightless":
                below = row["model"].startswith("gpt2")
                offset, side = ((-5, -14), "left") if below else ((3, 7), "right")
                right.annotate(row["model"], (at, height), offset, textcoords="offset points", ha=side, fontsize=8)
    right.set(title="forward and backward pass, 16 tokens", ylabel="milliseconds per block")
    for panel in (left, right):
        panel.set(xscale="log", yscale="log", xlabel="width")
        panel.set_ylim(panel.get_ylim()[0] / 2, 10 * panel.get_ylim()[1])
        label_plainly(panel.xaxis)
        label_plainly(panel.yaxis)
        panel.legend(frameon=False, loc="upper left", fontsize="small")
    return figure


def _frame(x: Floats) -> Floats:
    """Return an orthogonal matrix whose first rows span x, (m, a) → (a, a), with x·Qᵀ lower triangular."""
    q, r = np.linalg.qr(x.T, mode="complete")
    signs = np.ones(len(q))
    signs[: len(x)] = np.sign(np.diag(r))
    return np.asarray((q * signs).T)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _show(panel: "Axes", matrix: Floats, title: str, sign: str, reach: float = REACH) -> None:
    """Show a matrix as a heat map; what is not there is grey."""
    from matplotlib import colormaps

    colours: Any = colormaps["PuOr"].with_extremes(bad=UNSEEN)
    panel.imshow(matrix, cmap=colours, vmin=-reach, vmax=reach)
    panel.set(title=title, xticks=[], yticks=[])
    panel.text(-0.12, 0.5, sign, transform=panel.transAxes, ha="center", va="center", fontsize=18)


def _print_distance(what: str, first: Floats, second: Floats) -> None:
    found = st.statistics.two_sample(first, second)
    print(f"{what}: distance {found.distance:.4f}, p = {found.p_value:.2g}")


if __name__ == "__main__":
    main()
