"""`compare` and `predict`: the views of one network side by side."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import inputs
from ..analysis.comparison import Comparison, check_sizes, compare
from ..analysis.criterion import Criterion
from ..analysis.stability import BATCHES, Stability, stability
from ..analysis.verdict import FIRST, first_look
from ..checks import check_count
from ..design.architecture import Architecture
from ..errors import counted
from ..io.provenance import command_line
from ..observables import OBSERVABLES
from ..version import __version__
from .options import Design, Input, Json, Out, Samples, Seed, StableIf, Steps, expand_groups
from .output import REPORT, Screen, new_table, results_folder, say, write_results

NetworkSamples = Annotated[int, typer.Option(help="Number of real networks to draw.")]
NoStability = Annotated[
    bool, typer.Option("--no-stability", help="Leave out the section on stability, which doubles the time.")
]
ENOUGH = 1000
"""Fewest draws of the chain whose time is compared: batches are drawn whole, so that few take as long as many."""
CHANGED = 1024
"""Most draws of each changed network: they share their random numbers, so that few show the effect of a change."""
LONG = 2e9
"""Numbers that the paths of the chain take where a first look precedes them: more than some ten seconds."""


@expand_groups
def compare_command(
    design: Design,
    given: Input,
    stable_if: StableIf,
    samples: Samples = 4096,
    network_samples: NetworkSamples = 512,
    seed: Seed = 0,
    steps: Steps = None,
    out: Out = Path("runs/compare"),
    as_json: Json = False,
) -> None:
    """Draw a network three ways (real networks, exact chain, SDE) from one input, and compare their distributions."""
    definition, criterion, screen = design.build(), stable_if.build(), Screen(as_json)
    v0 = given.build(definition.width, seed)
    with results_folder(out, "compare") as folder:
        result = compare(definition, v0, samples=samples, network_samples=network_samples, seed=seed, steps=steps)
        report = {"kind": "compare"} | _report(result, definition, v0, seed, criterion)
        _print_results(screen, result, report)
        _write(folder, result, report)
    screen.report(out, report)


@expand_groups
def predict_command(
    design: Design,
    given: Input,
    stable_if: StableIf,
    samples: Samples = 4096,
    seed: Seed = 0,
    steps: Steps = None,
    no_stability: NoStability = False,
    out: Out = Path("runs/predict"),
    as_json: Json = False,
) -> None:
    """Predict whether a design is stable, from the chain and the SDE, without real networks.

    The verdict comes first and is written at once. A section on stability follows, for which the network is drawn again
    with 10 % more of each parameter; it takes about as long again.
    """
    definition, criterion, screen = design.build(), stable_if.build(), Screen(as_json)
    v0 = given.build(definition.width, seed)
    check_count(samples, "samples", least=BATCHES)
    with results_folder(out, "predict") as folder:
        check_sizes(definition, v0, samples)
        if samples * definition.depth * len(v0) * (definition.width + len(v0)) > LONG:
            found = first_look(definition, v0, seed, criterion)
            say(f"First look, {FIRST} draws: {found.word}, {found.healthy.scaled(100)} % of networks are healthy …")
        result = compare(definition, v0, samples=samples, network_samples=None, seed=seed, steps=steps)
        report = {"kind": "predict"} | _report(result, definition, v0, seed, criterion)
        _print_results(screen, result, report)
        _write(folder, result, report)
    if no_stability:
        screen.report(out, report)
        return
    say(f"Verdict, picture and dataset are in {out}. The section on stability follows (--no-stability leaves it out).")
    try:
        stable = stability(definition, v0, samples=min(samples, CHANGED), seed=seed, criterion=criterion)
    except KeyboardInterrupt:
        say("The section on stability is missing; verdict, picture and dataset are complete.")
        raise
    report["stability"] = stable.to_dict()
    with results_folder(out, "predict") as folder:
        write_results(folder, None, None, report)
    _print_stability(screen, stable, definition.depth)
    screen.report(out, report, (REPORT,))


def _write(folder: Path, result: Comparison, report: dict[str, Any]) -> None:
    """Write dataset, picture and report."""
    from ..plotting import comparison

    data = result.to_datatree()
    write_results(folder, data, comparison.plot(data), report)


def _report(
    result: Comparison, definition: Architecture, v0: inputs.Covariance, seed: int, criterion: Criterion
) -> dict[str, Any]:
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
        "stopped": {view: float(np.mean(e.stopped <= definition.depth)) for view, e in result.ensembles.items()},
        "seconds": result.seconds,
        "speed_up_per_draw": result.speed_up(),
        "no_limit": result.no_limit,
        "table": result.table(),
        "criterion": asdict(criterion),
        "verdict": asdict(result.verdict(criterion)),
    }


def _print_results(screen: Screen, result: Comparison, report: dict[str, Any]) -> None:
    """Print the verdict, the tables of bands and distances, and the times."""
    definition, pairs = report["architecture"], list(report["table"][0]["pairs"])
    verdict = report["verdict"]
    doubt = "" if verdict["certain"] else " Close to a threshold: draw more samples to be sure."
    screen.line(f"Verdict: {verdict['sentence']}.{doubt}")
    title = f"Median and 5–95 % band over draws at layer {definition['depth']}, width {definition['width']}"
    bands = new_table("observable", "view", title=title, numbers=("median", "5 %", "95 %"))
    title = "Kolmogorov–Smirnov distance between views (p-value)"
    distances = new_table("observable", title=title, numbers=[pair.replace("-", " – ") for pair in pairs])
    for row in report["table"]:
        for index, (view, band) in enumerate(row["views"].items()):
            name = "" if index else OBSERVABLES[row["observable"]].words
            bands.add_row(name, view, *[f"{band[key]:.3g}" for key in ("median", "low", "high")])
        gaps = [f"{gap['distance']:.3f} ({gap['p_value']:.2g})" for gap in row["pairs"].values()]
        distances.add_row(OBSERVABLES[row["observable"]].words, *gaps)
    screen.table(bands)
    if pairs:
        screen.table(distances)
    if "network-chain" in pairs:
        screen.line("Network and chain have the same distribution: there a small p-value is chance.")
    for view, seconds in result.seconds.items():
        samples = report["samples"][view]
        frozen = round(report["stopped"][view] * samples)
        note = f", {counted(frozen, 'path')} stopped early" if frozen else ""
        screen.line(f"{view}: {counted(samples, 'draw')} in {seconds:.1f} s{note}")
    if report["speed_up_per_draw"] and report["samples"]["chain"] >= ENOUGH:
        screen.line(f"A real network takes {report['speed_up_per_draw']:.3g} times as long as a draw of the chain.")
    if result.no_limit:
        screen.line(f"No SDE: {result.no_limit}")


def _print_stability(screen: Screen, found: Stability, depth: int) -> None:
    """Print the stability of a design and the effects of its parameters as a table."""
    columns = {
        "healthy": "healthy networks",
        "mean_absolute_correlation": "mean |rho|",
        "effective_rank": "effective rank",
    }
    title = f"At layer {depth}, and what 10 % more of a parameter adds (± standard error)"
    table = new_table("", title=title, numbers=tuple(columns.values()))
    table.columns[0].no_wrap = True
    now = [getattr(found, name) for name in columns]
    table.add_row("now", *[f"{x.value:.3g} [{x.low:.3g}, {x.high:.3g}]" for x in now])
    for effect in found.effects:
        sign = "+" if effect.factor > 1 else "−"
        changes = [getattr(effect, name) for name in columns]
        table.add_row(f"{effect.parameter} {sign}10 %", *[f"{c.value:+.2g} ± {c.error:.1g}" for c in changes])
    screen.table(table)
    if found.growth is not None:
        screen.line(f"Expected drift of the mean token norm at the input: {found.growth:+.3g} per unit of depth/width.")
