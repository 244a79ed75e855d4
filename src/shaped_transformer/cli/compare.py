"""`compare` and `predict`: the views of one network side by side."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import inputs
from ..analysis.comparison import Comparison, compare
from ..analysis.stability import Stability, stability
from ..design.architecture import Architecture
from ..io.provenance import command_line
from ..version import __version__
from .options import Design, Input, Json, Out, Samples, Seed, Steps, expand_groups
from .output import new_table, print_table, report_results, results_folder, say, write_results

NetworkSamples = Annotated[int, typer.Option(help="Real networks to draw.")]


@expand_groups
def compare_command(
    design: Design,
    given: Input,
    samples: Samples = 4096,
    network_samples: NetworkSamples = 512,
    seed: Seed = 0,
    steps: Steps = None,
    out: Out = Path("runs/compare"),
    as_json: Json = False,
) -> None:
    """Draw a network three ways (real networks, exact chain, SDE) from one input, and compare their distributions."""
    definition = design.build()
    v0 = given.build(definition.width, seed)
    with results_folder(out, "compare") as folder:
        result = compare(definition, v0, samples=samples, network_samples=network_samples, seed=seed, steps=steps)
        report = {"kind": "compare"} | _report(result, definition, v0, seed)
        _print_tables(result, report)
        _write(folder, result, report)
    report_results(out, report, as_json=as_json)


@expand_groups
def predict_command(
    design: Design,
    given: Input,
    samples: Samples = 4096,
    seed: Seed = 0,
    steps: Steps = None,
    out: Out = Path("runs/predict"),
    as_json: Json = False,
) -> None:
    """Compare chain and SDE, without real networks: say within seconds whether a design is stable."""
    definition = design.build()
    v0 = given.build(definition.width, seed)
    with results_folder(out, "predict") as folder:
        result = compare(definition, v0, samples=samples, network_samples=None, seed=seed, steps=steps)
        report = {"kind": "predict"} | _report(result, definition, v0, seed)
        _print_tables(result, report)
        found = stability(definition, v0, samples=samples, seed=seed)
        report["stability"] = found.to_dict()
        _print_stability(found, definition.depth)
        _write(folder, result, report)
    report_results(out, report, as_json=as_json)


def _write(folder: Path, result: Comparison, report: dict[str, Any]) -> None:
    """Write dataset, picture and report."""
    from ..plotting import comparison

    data = result.to_datatree()
    write_results(folder, data, comparison.plot(data), report)


def _report(result: Comparison, definition: Architecture, v0: inputs.Covariance, seed: int) -> dict[str, Any]:
    """Return input, results and origin of a run as JSON values."""
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
    """Print the table of bands, that of distances, the times and the verdict."""
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
    print_table(bands)
    if pairs:
        print_table(distances)
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
    """Print the stability of a design and the effects of its parameters as a table."""
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
    rows = (
        ("left the window", found.left, "left"),
        ("median mean |rho|", found.correlation, "correlation"),
        ("median rank", found.rank, "rank"),
    )
    for name, now, field in rows:
        changes = (getattr(effect, field) for effect in found.effects)
        table.add_row(
            name,
            f"{now.value:.2g} [{now.low:.2g}, {now.high:.2g}]",
            *[f"{change.value:+.2g} ± {change.error:.1g}" for change in changes],
        )
    print_table(table)
    if found.growth is not None:
        say(f"Expected drift of the mean token norm at the input: {found.growth:+.3g} per unit of depth/width.")
