"""`probe`: what any model does to its tokens, beside what its initialisation would do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MissingExtra
from ..io.provenance import command_line
from ..version import __version__
from .layer_table import as_json as plain
from .layer_table import print_layers
from .models import Approximate, Check, InputWidth, Layers, TextFile, find_functions_here
from .options import Json, Seed
from .output import RESULTS, Screen, results_folder, say, write_results

if TYPE_CHECKING:
    from ..probe.batches import Batch
    from ..probe.examination import Examination
    from ..probe.loading import Subject

EXPECTED = "expected.zarr"
"""Store of the draws at initialisation."""
PAGE = "report.html"
"""The page with pictures to explore."""
FILES = (*RESULTS, EXPECTED, PAGE)
"""Files that the command writes."""
BAD = 1
"""Exit status of `--check` after a bad verdict."""


def probe_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a Hugging Face model (weights in safetensors), a name on its hub, the JSON file of a "
            "configuration, or package.module:function, a function without arguments that builds a PyTorch module. "
            "A configuration without weights is probed at initialisation, without creating any."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON file of a configuration, probed at initialisation in place of the model's own."),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Probe the model's initialisation in place of its weights.")
    ] = False,
    expected: Annotated[
        int | None,
        typer.Option(
            help="Number of networks at initialisation to compare the model with, 0 for none. Default: 100 below a "
            "billion parameters, else 20."
        ),
    ] = None,
    text: TextFile = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens of a sequence; there are up to four sequences. Default: 64.")
    ] = None,
    input_width: InputWidth = None,
    layers: Layers = None,
    approximate: Approximate = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results: datasets, picture, report.html and run.json. Default: nothing is written."
        ),
    ] = None,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Check what a model does to its tokens, layer by layer: where it goes wrong, and whether by design or training."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from ..probe.batches import make_batch
    from ..probe.examination import check_draws, examine
    from ..probe.loading import load

    find_functions_here(model)
    screen = Screen(as_json)
    check_draws(expected)
    with _folder(out) as folder:
        subject = load(model, config=config, init=init, seed=seed)
        module = subject.draw(seed, approximate=approximate)
        batch = make_batch(module, subject.tokenizer, text=text, tokens=tokens, input_width=input_width, seed=seed)
        found = examine(subject, module, batch, draws=expected, layers=layers, seed=seed, approximate=approximate)
        report = _report(subject, batch, found, seed)
        if folder is not None:
            _write(folder, found, report)
    for note in subject.notes:
        say(note)
    _print(screen, found, report)
    if out is not None:
        screen.report(out, report, [name for name in FILES if (out / name).exists()])
    else:
        screen.json(report)
    if check and not found.verdict.good:
        raise typer.Exit(BAD)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path | None]:
    """Yield a temporary folder whose files move into `out` if the body succeeds; `None` where there is no `out`."""
    if out is None:
        yield None
        return
    if find_spec("plotly") is None:  # before the work, and not after it
        raise MissingExtra("probe", f"{PAGE} of a probe")
    with results_folder(out, "probe", FILES) as folder:
        yield folder
        if not (folder / EXPECTED).exists():  # draws of an earlier run do not belong to this one
            shutil.rmtree(out / EXPECTED, ignore_errors=True)


def _report(subject: "Subject", batch: "Batch", found: "Examination", seed: int) -> dict[str, Any]:
    """Return model, input, results and origin as JSON values."""
    import torch

    from ..probe import MEASURES

    result, comparison, verdict = found.result, found.comparison, found.verdict
    keys = ("low", "median", "high", "quantile", "error", "score")
    report = {
        "kind": "probe",
        "command": command_line(),
        "version": __version__,
        "torch": torch.__version__,
        "model": subject.name,
        "class": result.settings["model"],
        "parameters": result.settings["parameters"],
        "weightless": subject.is_weightless,
        "notes": list(subject.notes),
        "input": batch.what,
        "shape": batch.shape,
        "seed": seed,
        "settings": dict(result.settings),
        "layers": result.layers,
        "measured": {name: result.mean(name) for name in MEASURES if name in result.data},
        "expected": None if found.expectation is None else dict(found.expectation.settings),
        "no_expectation": found.obstacle,
        "bands": {
            name: {key: getattr(band, key) for key in keys}
            for name, band in (comparison.bands if comparison is not None else {}).items()
        },
        "unusual": {} if comparison is None else comparison.unusual(),
        "suggestions": [
            {"change": one.change, "mended": one.mended, "draws": one.draws, "sentence": one.sentence}
            for one in found.suggestions
        ],
        "verdict": {
            "good": verdict.good,
            "sentence": verdict.sentence,
            "findings": [asdict(finding) for finding in verdict.findings],
        },
    }
    written: dict[str, Any] = plain(report)
    return written


def _print(screen: Screen, found: "Examination", report: dict[str, Any]) -> None:
    """Print what was probed, the verdict, what to try, and the tables."""
    sizes = " × ".join(map(str, report["shape"]))
    screen.line(f"Probe of {report['model']}: {report['class']}, {report['parameters']:,} parameters.")
    if report["weightless"]:
        screen.line(
            f"Measured: a weightless draw of the initialisation (seed {report['seed']}). No weights are made or read."
        )
    screen.line(f"Input: {report['input']}, {sizes}.")
    screen.line(f"Verdict: {found.verdict.sentence}")
    for advice in found.verdict.advice:
        screen.line(f"Try: {advice}")
    for tried in found.suggestions:
        screen.line(f"Tried: {tried.sentence}")
    if found.obstacle is not None:
        say(f"No expectation, so no bands: {found.obstacle}")
    elif (settings := report["expected"]) is not None:
        lost = f", {settings['overflowed']} more overflowed" if settings["overflowed"] else ""
        screen.line(f"Expected: the model {settings['label']}, {settings['draws']} weightless draws{lost}.")
    if report["settings"]["gradient"] != "measured":
        screen.line(f"No gradients: {report['settings']['gradient']}.")
    if found.result.without_gradient:
        screen.line(f"Some layers have no gradient: {found.result.without_gradient}.")
    screen.line("")
    print_layers(screen, found.result, found.comparison, [finding.layer for finding in found.verdict.findings])


def _write(folder: Path, found: "Examination", report: dict[str, Any]) -> None:
    """Write datasets, pictures, page and report."""
    from ..plotting import probe
    from ..probe.report import write_report

    found.result.save(folder / "dataset.zarr")
    if found.expectation is not None:
        found.expectation.save(folder / EXPECTED)
    write_report(folder / PAGE, found.result, found.comparison, found.verdict, found.suggestions)
    write_results(folder, None, probe.plot(found.result, found.comparison), report)
