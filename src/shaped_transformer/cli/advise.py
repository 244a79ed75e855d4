"""`advise`: the strongest stable branches of a shaped Transformer."""

from pathlib import Path
from typing import Annotated

import typer

from ..analysis.advice import Advice, advise
from ..io.provenance import command_line
from ..version import __version__
from .options import Json, MaskOption, Out, Seed, read_mask
from .output import new_table, print_table, report_results, results_folder, say, write_results

KIND = "advise"
"""Kind of the results."""


def advise_command(
    depth: Annotated[int, typer.Option(help="Number of blocks d.")],
    width: Annotated[int, typer.Option(help="Width n of the network.")],
    tokens: Annotated[int, typer.Option(help="Number of tokens m.")],
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 1,
    mask: MaskOption = None,
    tau0: Annotated[float, typer.Option(help="Temperature constant of the advised network.")] = 1.0,
    probability: Annotated[float, typer.Option(help="Share of networks that must be stable.")] = 0.95,
    rank_share: Annotated[float, typer.Option(help="Share of the input's effective rank that they must keep.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="Confidence with which both must be known.")] = 0.95,
    samples: Annotated[int, typer.Option(help="Draws of the chain for each design that is tried.")] = 1024,
    seed: Seed = 0,
    out: Out = Path("runs/advise"),
    as_json: Json = False,
) -> None:
    """Find the largest gamma with which a shaped Transformer of this size is stable, and its trade-off with tau0."""
    with results_folder(out, KIND) as folder:
        advice = advise(
            depth,
            width,
            tokens,
            heads=heads,
            mask=read_mask(mask or "full"),
            tau0=tau0,
            probability=probability,
            rank_share=rank_share,
            confidence=confidence,
            samples=samples,
            seed=seed,
        )
        report = {"kind": KIND, "command": command_line(), "version": __version__} | advice.to_dict()
        _print_advice(advice)
        from ..plotting import frontier

        data = frontier.compute(advice)
        write_results(folder, data, frontier.plot(data), report)
    report_results(out, report, as_json=as_json)


def _print_advice(advice: Advice) -> None:
    """Print the frontier as a table, and the advice as a sentence."""
    table = new_table("tau0", "largest gamma", "healthy networks there", title="The frontier")
    for point in advice.frontier:
        gamma = "none" if point.gamma is None else f"{point.gamma:.3g}"
        healthy = point.healthy
        table.add_row(f"{point.tau0:g}", gamma, f"{healthy.value:.3f} [{healthy.low:.3f}, {healthy.high:.3f}]")
    print_table(table)
    say(f"Advice: {advice.sentence}.")
