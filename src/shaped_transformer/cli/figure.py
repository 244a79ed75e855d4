"""`figure`: the simulations of the papers and of this project, each by one command."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, MissingExtra, ShapedTransformerError
from ..figures import catalogue
from ..io.provenance import command_line
from ..version import __version__
from .options import Json, parse_settings
from .output import RESULTS, Screen, check_owner, new_table, results_folder, say, write_results

if TYPE_CHECKING:
    import xarray

PROVENANCE = ("data", "sha256", "torch")
"""Attributes of a dataset that name its sources, beside the settings."""
Name = Annotated[str | None, typer.Argument(help=f"One of {', '.join(catalogue.FIGURES)}.")]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the results. Default: runs/figures/NAME, or with --all runs/figures."),
]


def figure_command(
    name: Name = None,
    every: Annotated[bool, typer.Option("--all", help="Make all figures that are not finished yet.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the figures and what they show.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Use small settings: seconds instead of minutes.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, KEY=VALUE in YAML; may be repeated.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option("--from", help="Plot this dataset; compute nothing.")] = None,
    out: Folder = None,
    as_json: Json = False,
) -> None:
    """Compute a figure of the papers or of this project, plot it, and print its numbers.

    An interrupted figure resumes from its finished pieces.
    """
    if sum((name is not None, every, listed)) != 1:
        raise InputError("give the name of a figure, --all or --list (exactly one of them)")
    if name is None and (dataset is not None or changes):
        raise InputError("--from and --set go with the name of a figure")
    if dataset is not None and (quick or changes):
        raise InputError("--from only plots a finished dataset: leave out --quick and --set")
    screen = Screen(as_json)
    if listed:
        _print_list(screen)
    elif every:
        _make_all_figures(screen, quick, out or Path("runs/figures"))
    else:
        folder = out or Path("runs/figures") / str(name)
        report = _make_figure(screen, str(name), folder, quick, parse_settings(changes or []), dataset)
        screen.report(folder, report)


def _print_list(screen: Screen) -> None:
    """Print the figures and what they show."""
    descriptions = {name: catalogue.description(name) for name in catalogue.FIGURES}
    screen.json(descriptions)
    table = new_table("figure", "what it shows", title="Figures")
    for name, text in descriptions.items():
        table.add_row(name, text)
    screen.table(table)


def _make_all_figures(screen: Screen, quick: bool, out: Path) -> None:
    """Make the figures that are not finished yet, and print all reports as JSON if asked to."""
    reports = {}
    for name in catalogue.FIGURES:
        check_owner(out / name, _kind(name))
    for name in catalogue.FIGURES:
        folder = out / name
        if (report := _finished_report(name, folder, catalogue.settings(name, quick=quick))) is not None:
            say(f"{name}: finished already, in {folder}")
            reports[name] = report
            continue
        if name in catalogue.LONG and not quick:
            say(f"{name} takes more than an hour and is skipped: make it with shaped-transformer figure {name}")
            continue
        say(f"{name} …")
        try:
            reports[name] = _make_figure(screen, name, folder, quick, {}, None)
        except MissingExtra as error:
            say(f"{name} is skipped: {error}")
    say(f"Written to {out / 'NAME'}: {', '.join(RESULTS)}")
    screen.json(reports)


def _finished_report(name: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the report of a figure that was finished with these settings and this version, or `None`."""
    try:
        report: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        catalogue.load(name, folder / "dataset.zarr")
    except (OSError, ValueError, ShapedTransformerError):
        return None
    same = report.get("settings") == json.loads(json.dumps(settings)) and report.get("version") == __version__
    return report if same else None


def _make_figure(
    screen: Screen, name: str, out: Path, quick: bool, changes: dict[str, Any], dataset: Path | None
) -> dict[str, Any]:
    """Compute or load the dataset of a figure, plot it, write the results, print the numbers, and return the report."""
    start = time.perf_counter()
    module = catalogue.load_module(name)
    chosen = catalogue.settings(name, quick=quick, changes=changes) if dataset is None else {}
    with results_folder(out, _kind(name)) as folder:
        data = _compute(name, chosen, out) if dataset is None else catalogue.load(name, dataset)
        numbers = module.headline(data)
        report = {
            "kind": _kind(name),
            "command": command_line(),
            "version": __version__,
            "figure": name,
            "settings": json.loads(data.attrs["settings"]),
            **{key: data.attrs[key] for key in PROVENANCE if key in data.attrs},
            "seconds": time.perf_counter() - start,
            "numbers": [{"name": title} | asdict(number) for title, number in numbers.items()],
        }
        write_results(folder, data, module.plot(data), report)
    if dataset is None:
        catalogue.piece_runner(name, chosen, out).discard()
    interval = getattr(module, "INTERVAL", "95 % interval")
    title = f"{name}: {catalogue.description(name)}"
    table = new_table("number", title=title, numbers=("value", interval))
    for title, number in numbers.items():
        table.add_row(title, f"{number.value:.3g}", f"[{number.low:.3g}, {number.high:.3g}]")
    screen.table(table)
    return report


def _compute(name: str, chosen: dict[str, Any], out: Path) -> "xarray.Dataset":
    """Compute the dataset of a figure; its finished pieces stay in the folder until the figure is written."""
    runner = catalogue.piece_runner(name, chosen, out)
    try:
        return catalogue.compute(name, chosen, runner)
    except KeyboardInterrupt:
        say(f"{runner.finished} of {runner.total} pieces are kept in {out}: the same command resumes from there")
        raise


def _kind(name: str) -> str:
    """Return the kind of a figure's results."""
    return f"figure {name}"
