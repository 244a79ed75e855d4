"""`compare` and `predict`: one network, its views side by side."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import inputs
from ..analysis.comparison import Comparison, compare
from ..analysis.stability import Stability, stability
from ..design.architecture import Architecture
from ..io.provenance import command_line
from ..version import __version__
from .options import (
    ArchitectureFile,
    CMinus,
    Correlation,
    CovarianceFile,
    CPlus,
    Depth,
    Gamma,
    Heads,
    Json,
    MaskOption,
    NetworkSamples,
    Out,
    PositionWeight,
    Preset,
    Samples,
    Seed,
    Steps,
    Tau0,
    Text,
    Tokens,
    Trust,
    Vectors,
    Width,
    architecture_of,
    covariance_of,
)
from .output import fill, finish, new_table, results, say, show


def compare_command(
    preset: Preset = None,
    architecture: ArchitectureFile = None,
    trust: Trust = False,
    width: Width = None,
    depth: Depth = None,
    gamma: Gamma = None,
    tau0: Tau0 = None,
    c_plus: CPlus = None,
    c_minus: CMinus = None,
    heads: Heads = None,
    mask: MaskOption = None,
    text: Text = None,
    correlation: Correlation = None,
    vectors: Vectors = None,
    covariance: CovarianceFile = None,
    tokens: Tokens = None,
    position_weight: PositionWeight = None,
    samples: Samples = 4096,
    network_samples: NetworkSamples = 512,
    seed: Seed = 0,
    steps: Steps = None,
    out: Out = Path("runs/compare"),
    as_json: Json = False,
) -> None:
    """Draw a network three ways (real networks, exact chain, SDE) from one input, and compare their laws."""
    _compare(locals())


def predict_command(
    preset: Preset = None,
    architecture: ArchitectureFile = None,
    trust: Trust = False,
    width: Width = None,
    depth: Depth = None,
    gamma: Gamma = None,
    tau0: Tau0 = None,
    c_plus: CPlus = None,
    c_minus: CMinus = None,
    heads: Heads = None,
    mask: MaskOption = None,
    text: Text = None,
    correlation: Correlation = None,
    vectors: Vectors = None,
    covariance: CovarianceFile = None,
    tokens: Tokens = None,
    position_weight: PositionWeight = None,
    samples: Samples = 4096,
    seed: Seed = 0,
    steps: Steps = None,
    out: Out = Path("runs/predict"),
    as_json: Json = False,
) -> None:
    """The same without real networks: say within seconds whether a design is stable."""
    _compare(locals() | {"network_samples": None})


def _compare(options: dict[str, Any]) -> None:
    """The work of both commands: definition and input, draws, report, files."""
    kind = "predict" if options["network_samples"] is None else "compare"
    definition = architecture_of(options)
    v0 = covariance_of(options, definition.width)
    chosen = {name: options[name] for name in ("samples", "network_samples", "seed", "steps")}
    with results(options["out"], kind) as folder:
        result = compare(definition, v0, **chosen)
        report = {"kind": kind} | _report(result, definition, v0, options["seed"])
        _print_tables(result, report)
        if kind == "predict":
            found = stability(definition, v0, samples=options["samples"], seed=options["seed"])
            report["stability"] = found.to_dict()
            _print_stability(found, definition.depth)
        from ..plotting import comparison as figure

        data = result.to_datatree()
        fill(folder, data, figure.draw(data), report)
    finish(options["out"], report, as_json=options["as_json"])


def _report(result: Comparison, definition: Architecture, v0: inputs.Covariance, seed: int) -> dict[str, Any]:
    """Everything that a reader or a program wants to know of the run, as JSON values."""
    return {
        "command": command_line(),
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "architecture": definition.to_dict(),
        "initial_covariance": v0.tolist(),
        "seed": seed,
        "samples": {view: e.samples for view, e in result.ensembles.items()},
        "stopped": {view: int(np.sum(e.stopped <= definition.depth)) for view, e in result.ensembles.items()},
        "seconds": result.seconds,
        "speed_up_per_draw": result.speed_up(),
        "no_limit": result.no_limit,
        "table": result.table(),
        "verdict": asdict(result.verdict()),
    }


def _print_tables(result: Comparison, report: dict[str, Any]) -> None:
    definition, pairs = report["architecture"], list(report["table"][0]["pairs"])
    title = f"Draws at layer {definition['depth']}, width {definition['width']}"
    bands = new_table("statistic", "view", title=title)
    title = "Kolmogorov–Smirnov distance between views (p-value)"
    distances = new_table("statistic", title=title)
    for column in ("median", "5 %", "95 %"):
        bands.add_column(column, justify="right")
    for pair in pairs:
        distances.add_column(pair.replace("-", " – "), justify="right")
    for row in report["table"]:
        for index, (view, band) in enumerate(row["views"].items()):
            name = "" if index else row["statistic"]
            bands.add_row(name, view, *[f"{band[key]:.3g}" for key in ("median", "low", "high")])
        gaps = [f"{gap['distance']:.3f} ({gap['p_value']:.2g})" for gap in row["pairs"].values()]
        distances.add_row(row["statistic"], *gaps)
    show(bands)
    if pairs:
        show(distances)
    for view, seconds in result.seconds.items():
        frozen = report["stopped"][view]
        note = f", {frozen} paths stopped early" if frozen else ""
        say(f"{view}: {report['samples'][view]} draws in {seconds:.1f} s{note}")
    if report["speed_up_per_draw"]:
        say(f"The chain is {report['speed_up_per_draw']:.0f} times faster than the network per draw.")
    if result.no_limit:
        say(f"No SDE: {result.no_limit}")
    verdict = result.verdict()
    doubt = "" if verdict.certain else " (too close to call: draw more samples)"
    say(f"Verdict: {verdict.word}{doubt}: {verdict.sentence}.")


def _print_stability(found: Stability, depth: int) -> None:
    low, high = found.window
    title = (
        f"Stability up to layer {depth} by the chain, eigenvalues in the window [{low:g}, {high:g}],\n"
        "and what 10 % of each parameter would change (± its error)"
    )
    table = new_table(title=title)
    table.add_column("", no_wrap=True)
    table.add_column("now", no_wrap=True)
    signs = {effect: "+" if effect.factor > 1 else "−" for effect in found.effects}
    for effect, sign in signs.items():
        table.add_column(f"{effect.parameter} {sign}10 %", justify="right")
    left = found.left
    rows = (
        ("left the window", (left.value, left.low, left.high), "left"),
        ("median mean |rho|", found.correlation, "correlation"),
        ("median rank", found.rank, "rank"),
    )
    for name, (value, least, most), field in rows:
        changes = (getattr(effect, field) for effect in found.effects)
        table.add_row(
            name, f"{value:.2g} [{least:.2g}, {most:.2g}]", *[f"{d:+.2g} ± {error:.1g}" for d, error in changes]
        )
    show(table)
    if found.growth is not None:
        say(f"Expected drift of the mean token norm at the input: {found.growth:+.3g} per unit of depth/width.")
