"""`rehearse`: the first optimiser steps of a configuration at its true size, without weights."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, MissingExtra
from ..io.provenance import command_line
from ..version import __version__
from .cost import say_cost
from .layer_table import as_json as plain
from .models import Approximate, Check, InputWidth, Layers, TextFile, find_functions_here
from .options import Json, Seed
from .output import RESULTS, Screen, results_folder, say, write_results
from .sizes import DRAWS, check_sizes, parse_factors
from .step_table import print_steps

if TYPE_CHECKING:
    from ..probe.batches import Batch
    from ..probe.loading import Subject
    from ..probe.verdict import Verdict
    from ..rehearse import Rehearsal

PAGE = "report.html"
"""The page with pictures to explore."""
FILES = (*RESULTS, PAGE)
"""Files that the command writes."""
TOKENS = 16
"""Tokens of a sequence by default."""
BAD = 1
"""Exit status of `--check` after a bad verdict."""
INTERRUPTED = 130
"""Exit status after an interrupt, as of all commands."""


def rehearse_command(
    config: Annotated[
        str,
        typer.Argument(
            help="A folder with a config.json, the JSON file of a configuration, a name on Hugging Face's hub, or "
            "package.module:function, a function without arguments that builds a PyTorch module. It is trained from "
            "its initialisation; no weights are created or read."
        ),
    ],
    optimizer: Annotated[
        str,
        typer.Option(
            help="adamw, muon (for the matrices in the blocks, with AdamW for the rest) or sgd, all with "
            "PyTorch's other defaults."
        ),
    ] = "adamw",
    lr: Annotated[
        float,
        typer.Option(
            help="Learning rate, after warm-up. The default is the published one of models like Llama 3 8B. Muon's is "
            "scaled to that of AdamW."
        ),
    ] = 3e-4,
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 3,
    tokens: Annotated[
        int | None,
        typer.Option(help="Length of the training sequence in tokens; time and memory grow with it. Default: 16."),
    ] = None,
    warmup: Annotated[
        int, typer.Option(help="Steps of linear warm-up, 0 for none: the rate of step s is lr·min(1, s/warmup).")
    ] = 0,
    clip: Annotated[
        float | None, typer.Option(help="Largest global norm of the gradient. Default: no clipping.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of matrices.")] = 0.1,
    groups: Annotated[
        str | None,
        typer.Option(
            help="shaped: learning rates by parameter group, as st.nn.parameter_groups sets them, for models of shaped "
            "blocks. Default: one rate for all."
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Number of networks; with several, pictures show the range. Default: 1; with --widths or --depths, 3 "
            "of each size.",
            show_default=False,
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            help="Run a coordinate check at these factors of the width, such as 0.25,0.5,1,2: how far the steps move "
            "at each size, and whether that is flat or fans out. The size of a head stays fixed."
        ),
    ] = None,
    depths: Annotated[str | None, typer.Option(help="The same for the number of layers.")] = None,
    parametrisation: Annotated[
        str | None,
        typer.Option(
            help="With --widths or --depths: standard (the model's own initialisation, one rate), mup (μP, relative to "
            "the given width) or shaped (st.nn.parameter_groups). Default: standard, and shaped with --groups shaped.",
            show_default=False,
        ),
    ] = None,
    text: TextFile = None,
    new_tokens: Annotated[
        bool,
        typer.Option(
            "--new-tokens", help="Train each step on the next tokens of the text. Default: the same in every step."
        ),
    ] = False,
    input_width: InputWidth = None,
    layers: Layers = None,
    round_to: Annotated[
        str | None,
        typer.Option(
            "--round",
            help="bfloat16: round the output and the gradient of each module, which approximates training in that "
            "format. Default: single precision.",
        ),
    ] = None,
    approximate: Approximate = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results: dataset, picture, report.html and run.json. Default: nothing is written."
        ),
    ] = None,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Rehearse a model's first optimiser steps without its weights: what each step changes, and what would diverge."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from ..probe.batches import make_batch
    from ..probe.loading import load
    from ..rehearse import run
    from ..rehearse.verdict import judge

    find_functions_here(config)
    screen = Screen(as_json)
    settings = {
        "lr": lr,
        "steps": steps,
        "groups": _groups(groups),
        "warmup": warmup,
        "clip": clip,
        "weight_decay": weight_decay,
        "draws": 1 if draws is None else draws,
        "seed": seed,
        "layers": layers,
        "rounding": round_to,
        "approximate": approximate,
    }
    if round_to not in (None, "bfloat16"):
        raise InputError(f"--round must be bfloat16, or be left out for single precision (got {round_to!r})")
    sizes = parse_factors(widths, "--widths"), parse_factors(depths, "--depths")
    if parametrisation is not None and not any(sizes):
        raise InputError("--parametrisation belongs to a coordinate check: give --widths or --depths too")
    if groups is not None and parametrisation in ("standard", "mup"):
        raise InputError(f"--groups {groups} and --parametrisation {parametrisation} set different rates: give one")

    def prepare() -> "tuple[Subject, Batch]":
        subject = load(config, init=True, seed=seed)
        module = subject.draw(seed, approximate=approximate)
        batch = make_batch(
            module,
            subject.tokenizer,
            text=text,
            tokens=tokens,
            input_width=input_width,
            sequences=max(steps, 1) if new_tokens else 1,
            usual=TOKENS,
            seed=seed,
        )
        for note in _notes(subject, batch, text, steps if new_tokens else 1):
            say(note)
        if optimizer == "adamw" and steps > 0 and not any(sizes):
            _say_cost(module, batch, steps, 1 if draws is None else draws)
        return subject, batch

    if any(sizes):
        groups_of = settings.pop("groups")
        settings["draws"] = DRAWS if draws is None else draws
        rule = parametrisation or ("standard" if groups_of is None else "shaped")
        good = check_sizes(screen, *prepare(), optimizer, sizes, rule, settings, out)
        if good is None:
            raise typer.Exit(INTERRUPTED)
        if check and not good:
            raise typer.Exit(BAD)
        return
    with _folder(out) as folder:
        subject, batch = prepare()
        result = run(subject.source, batch.split(), optimizer, cls=subject.cls, partial=True, **settings)
        verdict = judge(result)
        report = _report(subject, batch, result, verdict)
        if folder is not None:
            _write(folder, result, verdict, report)
    _print(screen, result, verdict, report)
    if out is not None:
        screen.report(out, report, [name for name in FILES if (out / name).exists()])
    else:
        screen.json(report)
    if "interrupted" in (result.settings["ended"] or ""):
        raise typer.Exit(INTERRUPTED)
    if check and not verdict.good:
        raise typer.Exit(BAD)


def _groups(name: str | None) -> Any:
    """Return the function that makes groups of parameters.

    **Raises:** `InputError` for another name.
    """
    if name is None:
        return None
    if name != "shaped":
        raise InputError(f"--groups must be shaped, or be left out for one rate (got {name!r})")
    from ..nn import parameter_groups

    return parameter_groups


def _notes(subject: "Subject", batch: "Batch", text: Path | None, wanted: int) -> Iterator[str]:
    """Yield what the user should know before the work."""
    yield from subject.notes
    if text is not None and "without a tokenizer" in batch.what:
        yield f"{subject.name} has no tokenizer: the words of {text} are numbered, and each has a token of its own."
    if (there := batch.shape[0]) < wanted:
        yield f"The text has tokens for {there} of {wanted} steps; after that it starts again from the beginning."


def _say_cost(module: Any, batch: "Batch", steps: int, draws: int) -> None:
    """Say about how long it takes and how much memory, if it is long."""
    from ..rehearse.cost import estimate, tokens_of

    cost = estimate(module, tokens_of(batch.split()[0], module), steps)
    say_cost(cost.seconds * draws, cost.gigabytes, "Ctrl-C ends it and shows what is known by then.")


@contextmanager
def _folder(out: Path | None) -> Iterator[Path | None]:
    """Yield a temporary folder whose files move into `out` if the body succeeds; `None` where there is no `out`."""
    if out is None:
        yield None
        return
    if find_spec("plotly") is None:  # before the work, and not after it
        raise MissingExtra("probe", f"{PAGE} of a rehearsal")
    with results_folder(out, "rehearsal", FILES) as folder:
        yield folder


def _report(subject: "Subject", batch: "Batch", result: "Rehearsal", verdict: "Verdict") -> dict[str, Any]:
    """Return model, input, results and origin as JSON values."""
    import torch

    means = result.data.mean("draw")
    report = {
        "kind": "rehearsal",
        "command": command_line(),
        "version": __version__,
        "torch": torch.__version__,
        "model": subject.name,
        "class": result.settings["model"],
        "parameters": result.settings["parameters"],
        "notes": list(subject.notes),
        "input": batch.what,
        "shape": [1, *batch.shape[1:]],
        "settings": dict(result.settings),
        "coordinates": {name: one.values for name, one in means.coords.items()},
        "measured": {name: {"dims": list(one.dims), "values": one.values} for name, one in means.data_vars.items()},
        "effect_by_role": {
            role: dict(zip(map(str, one["block"].values), one.mean(("draw", "update")).values.tolist(), strict=True))
            for role, one in result.effect_by_role().items()
        },
        "verdict": {
            "good": verdict.good,
            "sentence": verdict.sentence,
            "findings": [asdict(finding) for finding in verdict.findings],
        },
    }
    written: dict[str, Any] = plain(report)
    return written


def _print(screen: Screen, result: "Rehearsal", verdict: "Verdict", report: dict[str, Any]) -> None:
    """Print what was rehearsed, the verdict, what to try, and the tables."""
    settings = result.settings
    sizes = " × ".join(map(str, report["shape"]))
    screen.line(f"Rehearsal of {report['model']}: {report['class']}, {report['parameters']:,} parameters.")
    screen.line(f"Training: {describe(settings)}.")
    screen.line(f"Input: {report['input']}, {sizes}, {settings['tokens']}. No weights are made or read.")
    screen.line(f"Verdict: {verdict.sentence}")
    for advice in verdict.advice:
        screen.line(f"Try: {advice}")
    screen.line("")
    print_steps(screen, result, [finding.layer for finding in verdict.findings])


def describe(settings: Any) -> str:
    """Return how a model is trained, in words."""
    names = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
    parts = [f"{names.get(settings['optimiser'], settings['optimiser'])}, rate {settings['lr']:g}"]
    parts += ["rates by groups"] if settings["groups"] else []
    parts += [f"warm-up over {settings['warmup']:,} steps"] if settings["warmup"] else ["no warm-up"]
    parts += [f"gradient clipped to {settings['clip']:g}" if settings["clip"] else "no clipping"]
    parts += [f"weight decay {settings['weight_decay']:g}"]
    parts += [f"rounded to {settings['rounding']}, an approximation"] if settings["rounding"] else []
    parts += [f"mean of {settings['draws']} networks"] if settings["draws"] > 1 else []
    return ", ".join(parts)


def _write(folder: Path, result: "Rehearsal", verdict: "Verdict", report: dict[str, Any]) -> None:
    """Write dataset, picture, page and report."""
    from ..plotting.rehearsal import plot
    from ..rehearse.report import write_report
    from ..rehearse.verdict import MARKS

    result.save(folder / "dataset.zarr")
    write_report(folder / PAGE, result, verdict)
    write_results(folder, None, plot(result, MARKS), report)
