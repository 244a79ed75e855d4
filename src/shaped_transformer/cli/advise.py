"""`advise`: the strongest branches with which a network is stable."""

from pathlib import Path
from typing import Annotated

import typer

from ..analysis.advice import TAU0, Advice, FrontierPoint, Search, frontier_point, with_tau0
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
        bool, typer.Option("--frontier", help="Also search at other values of tau0, to show the trade-off.")
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(help="Most draws of the chain for each gamma. Default: 141 to 4096, fewer for larger networks."),
    ] = None,
    seed: Seed = 0,
    out: Out = Path("runs/advise"),
    as_json: Json = False,
) -> None:
    """Find the largest gamma with which a network of this size is stable. The result does not depend on --gamma."""
    definition, screen = design.build(), Screen(as_json)
    v0 = given.build(definition.width, seed)
    search = Search.of(definition, v0, criterion=stable_if.build(), samples=samples, seed=seed)
    if frontier:
        with_tau0(definition, TAU0[0])  # a network without τ0 fails before the search, and not after it
    with results_folder(out, KIND) as folder:
        try:
            advice = _run(search, frontier)
        except _Interrupted as interrupted:
            _print_advice(screen, interrupted.advice)
            screen.json({"kind": KIND} | interrupted.advice.to_dict())
            raise
        report = {"kind": KIND, "command": command_line(), "version": __version__} | advice.to_dict()
        _print_advice(screen, advice)
        from ..plotting import frontier as picture

        data = picture.compute(advice)
        write_results(folder, data, picture.plot(data), report)
    screen.report(out, report)


class _Interrupted(KeyboardInterrupt):
    """An interrupt, with the advice that is known so far."""

    def __init__(self, advice: Advice) -> None:
        super().__init__()
        self.advice = advice


def _run(search: Search, with_frontier: bool) -> Advice:
    """Return the advice, with the frontier if wanted.

    **Raises:** `_Interrupted`.
    """
    trials: list[Trial] = []
    points: list[FrontierPoint] = []
    complete = False
    try:
        for trial in search.trials():
            trials.append(trial)
        complete = True
        for number, tau0 in enumerate(TAU0 if with_frontier else (), start=1):
            say(f"tau0 = {tau0:g} ({number} of {len(TAU0)}) …")
            points.append(frontier_point(search, tau0))
    except KeyboardInterrupt:
        raise _Interrupted(search.advice(trials, tuple(points), complete=complete)) from None
    return search.advice(trials, tuple(points))


def _print_trials(screen: Screen, advice: Advice) -> None:
    """Print each γ that was tried."""
    title = "Values of gamma tried, and the share of healthy networks (95 % Wilson interval)"
    table = new_table(title=title, numbers=("gamma", "stage", "draws", "healthy", "decision"))
    for trial in sorted(advice.trials, key=lambda trial: (trial.gamma, trial.stage)):
        share, draws = trial.share, trial.healthy + trial.unhealthy
        interval = f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
        table.add_row(f"{trial.gamma:.4g}", trial.stage, f"{draws:,}", interval, DECISIONS[trial.decision])
    screen.table(table)


def _print_advice(screen: Screen, advice: Advice) -> None:
    """Print the trials and the frontier as tables, and the advice in sentences."""
    _print_trials(screen, advice)
    if advice.frontier:
        table = new_table(
            title="Largest stable gamma at other values of tau0",
            numbers=("tau0", "largest gamma", "healthy networks there"),
        )
        for point in advice.frontier:
            gamma = "none" if point.gamma is None else f"{point.gamma:.3g}"
            healthy = point.healthy
            table.add_row(f"{point.tau0:g}", gamma, f"{healthy.value:.3f} [{healthy.low:.3f}, {healthy.high:.3f}]")
        screen.table(table)
    screen.line(f"Advice: {advice.sentence}.")
    if advice.training_gamma is not None:
        screen.line(
            f"For training, use the default gamma = 0.5/sqrt(depth) = {advice.training_gamma:.3g}: "
            "stronger branches learned worse in our short runs."
        )
    elif advice.architecture is not None:
        screen.line(
            "The skips of this network are fixed, so gamma is the scale of its branches. The advised network is in "
            "run.json under advised_architecture, in the form that --architecture takes."
        )
    if advice.temperatures:
        tau0, tau = advice.temperatures[0]
        screen.line(
            f"tau0 = {tau0:g}: the logits are divided by tau = tau0*sqrt(n*n_k) = {tau:.3g}. A larger tau0 keeps "
            "attention closer to the identity."
        )
