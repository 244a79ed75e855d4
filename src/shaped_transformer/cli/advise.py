"""`advise`: the strongest branches with which a network is stable."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..analysis.advice import TAU0, Advice, FrontierPoint, Search, frontier_point
from ..analysis.search import Trial
from ..io.provenance import command_line
from ..version import __version__
from .options import Design, Input, Json, Out, Seed, StableIf, expand_groups
from .output import Screen, new_table, results_folder, say, write_results

KIND = "advise"
"""Kind of the results."""
DECISIONS = {"above": "stable", "below": "not stable", "open": "undecided"}
"""A decision about the share of healthy networks in a user's words."""


@expand_groups
def advise_command(
    design: Design,
    given: Input,
    stable_if: StableIf,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Search also at other temperature constants: the trade-off with tau0.")
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(help="Most draws of the chain for each gamma. Default: as many as take about a minute, or 4096."),
    ] = None,
    seed: Seed = 0,
    out: Out = Path("runs/advise"),
    as_json: Json = False,
) -> None:
    """Find the largest gamma with which a network of this size is stable; --gamma, if given, is ignored."""
    definition, screen = design.build(), Screen(as_json)
    v0 = given.build(definition.width, seed)
    search = Search.of(definition, v0, criterion=stable_if.build(), samples=samples, seed=seed)
    with results_folder(out, KIND) as folder:
        advice = _run(search, screen)
        if frontier:
            advice = replace(advice, frontier=_frontier(search))
        report = {"kind": KIND, "command": command_line(), "version": __version__} | advice.to_dict()
        _print_advice(screen, advice)
        from ..plotting import frontier as picture

        data = picture.compute(advice)
        write_results(folder, data, picture.plot(data), report)
    screen.report(out, report)


def _run(search: Search, screen: Screen) -> Advice:
    """Return the advice; an interrupted search prints what it knows."""
    trials: list[Trial] = []
    try:
        for trial in search.trials():
            trials.append(trial)
    except KeyboardInterrupt:
        if trials:
            advice = search.advice(trials, complete=False)
            _print_trials(screen, advice)
            screen.line(f"Advice, {advice.sentence}.")
        raise
    return search.advice(trials)


def _frontier(search: Search) -> tuple[FrontierPoint, ...]:
    """Return the largest stable γ at each temperature constant."""
    points = []
    for tau0 in TAU0:
        say(f"tau0 = {tau0:g} …")
        points.append(frontier_point(search, tau0))
    return tuple(points)


def _print_trials(screen: Screen, advice: Advice) -> None:
    """Print each γ that was tried."""
    table = new_table(title="Gammas that were tried", numbers=("gamma", "draws", "healthy", "in words"))
    for trial in sorted(advice.trials, key=lambda trial: (trial.gamma, trial.stage)):
        share, draws = trial.share, trial.healthy + trial.unhealthy
        words = ("probably " if trial.stage == "bracket" else "") + DECISIONS[trial.decision]
        table.add_row(f"{trial.gamma:.4g}", f"{draws}", f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]", words)
    screen.table(table)


def _print_advice(screen: Screen, advice: Advice) -> None:
    """Print the trials and the frontier as tables, and the advice in sentences."""
    _print_trials(screen, advice)
    if advice.frontier:
        table = new_table(title="The frontier", numbers=("tau0", "largest gamma", "healthy networks there"))
        for point in advice.frontier:
            gamma = "none" if point.gamma is None else f"{point.gamma:.3g}"
            healthy = point.healthy
            table.add_row(f"{point.tau0:g}", gamma, f"{healthy.value:.3f} [{healthy.low:.3f}, {healthy.high:.3f}]")
        screen.table(table)
    screen.line(f"Advice: {advice.sentence}.")
    screen.line(
        f"For training take gamma = 0.5/sqrt(depth) = {advice.trained_gamma:.3g}, the default: "
        "stronger branches learned worse in our short runs."
    )
    temperatures = advice.temperatures
    if temperatures:
        tau0, tau = temperatures[0]
        screen.line(
            f"tau0 = {tau0:g}: the logits are divided by tau = tau0*sqrt(n*n_k) = {tau:.3g}. A larger tau0 keeps "
            "attention closer to the identity."
        )
