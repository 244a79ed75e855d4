"""Weightless models: the distributions of real ones, at a small part of their time and memory.

Small Llama models are drawn with real weights and without; loss, a correlation of tokens and norms of gradients must
have the same distribution. Then one pass of large configurations, forward and backward, is timed in its own process.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.definition import PositiveFloat, PositiveInt
from ..errors import InputError
from ..estimates import Estimate, distance, exact, median
from ..plotting.plots import add_legend, density_curve, density_grid, density_points, density_window, label_plainly
from ..plotting.style import COLOURS, SERIES
from .pieces import Arrays, PieceRunner, Task
from .settings import AtLeastTwo, Axis, Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATISTICS = {
    "loss": "loss",
    "correlation": "correlation of the last two tokens",
    "stream": "gradient of the stream, layer 1, norm",
    "weights": "gradient of the query weights, layer 1, norm",
}
"""Statistics with their labels."""
MEASURED = ("parameters", "seconds", "gigabytes")
"""What is measured of large models."""
KINDS = {"real": "real weights", "weightless": "weightless"}
COLOUR = {"real": COLOURS["network"], "weightless": SERIES[2]}
BINS = 18
"""Number of bins of the real networks."""
CHUNK = 250
"""Number of networks in a piece."""


def compute(
    runner: PieceRunner,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    initial_std: PositiveFloat,
    tokens: AtLeastTwo,
    networks: Samples,
    sizes: Axis[Sequence[str]],
    real_sizes: Sequence[str],
    size_tokens: PositiveInt,
    repeats: PositiveInt,
    seed: int,
) -> "xarray.Dataset":
    """Draw small Llama models with and without weights, and measure one pass of large ones.

    **Arguments:**

    - `width`, `layers`, `heads`, `initial_std`: of the small models.
    - `tokens`: length of their input.
    - `networks`: number of small models of each kind.
    - `sizes`: names in `weightless/sizes.yaml` that are measured without weights.
    - `real_sizes`: those that are measured with real weights too.
    - `size_tokens`: length of the input of large models.
    - `repeats`: runs of each, of which the median is shown.
    - `seed`: of the small models.

    **Returns:** the statistics over (kind, statistic, network); parameters, seconds and gigabytes of weightless models
    over `size`, and of real ones over `real_size`.

    **Raises:** `MissingExtra` without PyTorch or Hugging Face; `InputError` for an unknown size.
    """
    import xarray as xr

    from .. import hf  # noqa: F401 - raises `MissingExtra` before any work
    from ..weightless import measure

    for size in (*sizes, *real_sizes):
        measure.configuration(size)
    if not set(real_sizes) <= set(sizes):
        raise InputError(f"real_sizes must be among sizes, {', '.join(sizes)} (got {', '.join(real_sizes)})")
    tasks: dict[str, Task] = {}
    model = (width, layers, heads, initial_std)
    starts = range(0, networks, CHUNK)
    for kind, some in (("weightless", sizes), ("real", real_sizes)):
        for size in some:
            tasks[f"{kind} size {size}"] = partial(_measure, size, size_tokens, kind, repeats)
    for kind in KINDS:
        for start in starts:
            numbers = range(seed + start, seed + min(start + CHUNK, networks))
            tasks[f"{kind} {start}"] = partial(_statistics, kind, model, tokens, numbers)
    done = runner.run(tasks)
    drawn = {
        kind: [np.concatenate([done[f"{kind} {start}"][name] for start in starts]) for name in STATISTICS]
        for kind in KINDS
    }
    out: dict[str, Any] = {"value": (("kind", "statistic", "network"), [drawn[kind] for kind in KINDS])}
    for kind, axis, some in (("weightless", "size", sizes), ("real", "real_size", real_sizes)):
        for name in MEASURED:
            out[f"{kind} {name}"] = (axis, [float(done[f"{kind} size {size}"][name]) for size in some])
    coords = {"kind": list(KINDS), "statistic": list(STATISTICS), "size": list(sizes), "real_size": list(real_sizes)}
    return xr.Dataset(out, coords=coords)


def _statistics(kind: str, model: tuple[int, int, int, float], tokens: int, seeds: range) -> Arrays:
    """Return the statistics of small models, one for each seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from .. import weightless

    width, layers, heads, std = model
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        vocab_size=8 * width,
        initializer_range=std,
    )
    ids = torch.arange(tokens)[None]
    unseen = weightless.from_config(config, seed=0) if kind == "weightless" else None
    rows = []
    for seed in seeds:
        if unseen is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network: Any = LlamaForCausalLM(config)
        else:
            network = unseen
            weightless.redraw(network, seed=seed)
        out = network(input_ids=ids, labels=ids, output_hidden_states=True)
        stream = out.hidden_states[0]
        stream.retain_grad()
        out.loss.backward()
        last = out.hidden_states[-1][0].detach().double()
        query = network.model.layers[0].self_attn.q_proj.weight
        name = "model.layers.0.self_attn.q_proj.weight"
        norm = float(query.grad.norm()) if unseen is None else weightless.gradient_norms(network)[name]
        correlation = float(torch.nn.functional.cosine_similarity(last[-1], last[-2], dim=0))
        rows.append((float(out.loss.detach()), correlation, float(stream.grad.norm()), norm))
    return {name: np.array(column) for name, column in zip(STATISTICS, zip(*rows, strict=True), strict=True)}


def _measure(size: str, tokens: int, kind: str, repeats: int) -> Arrays:
    """Return the median time and the largest memory of several runs."""
    from ..weightless.measure import measure

    found = [measure(size, tokens, real=kind == "real") for _ in range(repeats)]
    return {
        "parameters": np.array(float(found[0].parameters)),
        "seconds": np.array(np.median([one.total for one in found])),
        "gigabytes": np.array(max(one.gigabytes for one in found)),
    }


def headline(data: "xarray.Dataset") -> dict[str, Estimate[float]]:
    """Return the distances of the distributions, and time and memory of the largest size and of the real ones."""
    numbers = {}
    for name in STATISTICS:
        real, unseen = (data["value"].sel(kind=kind, statistic=name).to_numpy() for kind in KINDS)
        numbers[f"KS distance of {STATISTICS[name]}, weightless to real"] = distance(unseen, real)
    numbers["median loss, weightless"] = median(data["value"].sel(kind="weightless", statistic="loss").to_numpy())
    for name in ("seconds", "gigabytes"):
        last = data[f"weightless {name}"].isel(size=-1)
        numbers[f"{name} of {last['size'].item()}, weightless"] = exact(float(last))
    for size in data["real_size"].to_numpy():
        ratio = float(data["real seconds"].sel(real_size=size) / data["weightless seconds"].sel(size=size))
        numbers[f"seconds with real weights over weightless, {size}"] = exact(ratio)
    return numbers


def plot(data: "xarray.Dataset") -> "Figure":
    """Plot the distributions on the left, and time and memory against the number of parameters on the right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(12, 7.2), layout="constrained")
    left, right = np.ravel(np.asarray(figure.subfigures(1, 2, width_ratios=(1.15, 1))))
    panels = left.subplots(2, 2)
    for panel, name in zip(panels.flat, STATISTICS, strict=True):
        _plot_statistic(panel, data["value"].sel(statistic=name))
        panel.set_xlabel(STATISTICS[name])
    panels[0, 0].set_ylim(top=1.3 * panels[0, 0].get_ylim()[1])
    add_legend(panels[0, 0], loc="upper left")
    left.suptitle("Small Llama models: the same distributions", x=0.02, ha="left")
    time, memory = right.subplots(2, 1, sharex=True)
    for panel, name in ((time, "seconds"), (memory, "gigabytes")):
        for kind, label in KINDS.items():
            at = data[f"{kind} parameters"]
            panel.plot(at, data[f"{kind} {name}"], "o-", color=COLOUR[kind], label=label)
        panel.set(xscale="log", yscale="log", ylabel=name)
        label_plainly(panel.yaxis)
        panel.xaxis.set_minor_formatter(NullFormatter())
    parameters = data["weightless parameters"].to_numpy()
    for size, at, height in zip(data["size"].to_numpy(), parameters, data["weightless seconds"].values, strict=True):
        time.annotate(str(size), (at, height), (-6, 6), textcoords="offset points", ha="right", fontsize=8)
    time.margins(0.12, 0.2)
    memory.plot(parameters, 4 * parameters / 2**30, ":", color=COLOURS["network"], label="the weights alone, float32")
    memory.set_xlabel("parameters")
    for panel in (time, memory):
        add_legend(panel)
    right.suptitle("One forward and backward pass, with building", x=0.02, ha="left")
    return figure


def _plot_statistic(panel: "Axes", values: "xarray.DataArray") -> None:
    """Plot the density of weightless draws and the shares of real ones with 95 % bars."""
    real, unseen = (values.sel(kind=kind).to_numpy() for kind in KINDS)
    low, high = density_window(np.concatenate((real, unseen)))
    grid = density_grid(low, high)
    curve = density_curve(unseen, grid)
    panel.plot(grid, curve, color=COLOUR["weightless"], label=KINDS["weightless"])
    panel.fill_between(grid, curve, color=COLOUR["weightless"], alpha=0.25, linewidth=0)
    centres, density = density_points(real, np.linspace(low, high, BINS + 1), len(real))
    size = [density[0] - density[1], density[2] - density[0]]
    style: dict[str, Any] = {"color": COLOUR["real"], "label": f"{KINDS['real']} (95 %)"}
    panel.errorbar(centres, density[0], size, fmt="o", markersize=4, capsize=2, linewidth=1, **style)
    panel.set_xlim(low, high)
    panel.set_ylim(bottom=0)
    panel.locator_params(axis="x", nbins=5)
    panel.set_ylabel("density")
