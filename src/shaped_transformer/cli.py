"""The command line: each command is a thin face of one public function."""

import inspect
import json
import platform
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer

from . import inputs, sweeps
from .advice import Advice, advise
from .architecture import PRESETS, Architecture
from .comparison import Comparison, compare
from .errors import InputError, ShapedTransformerError, StorageError
from .files import filling
from .provenance import command_line
from .stability import Stability, stability
from .version import __version__

app = typer.Typer(
    name="shaped-transformer",
    help="Look at the token covariance of deep Transformers at initialisation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Preset = Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}. Default: shaped_transformer.")]
ArchitectureFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON file of a definition, in place of a preset. It may name Python functions, so trust its source."
    ),
]
Width = Annotated[int | None, typer.Option(help="Width n of the network. Default: 128.")]
Depth = Annotated[int | None, typer.Option(help="Number of blocks d. Default: 64.")]
Gamma = Annotated[float | None, typer.Option(help="Strength of the residual branches, in (0, 1]. Default: 0.5.")]
Tau0 = Annotated[float | None, typer.Option(help="Temperature constant of the attention. Default: 1.")]
CPlus = Annotated[float | None, typer.Option(help="Shaped ReLU: positive slope 1 + c/sqrt(n). Default: 0.")]
CMinus = Annotated[float | None, typer.Option(help="Shaped ReLU: negative slope 1 + c/sqrt(n). Default: -1.")]
Heads = Annotated[int | None, typer.Option(help="Attention heads. Default: 1.")]
MaskOption = Annotated[str | None, typer.Option(help="full, causal, or a .npy file of 0 and 1. Default: full.")]
Text = Annotated[Path | None, typer.Option(help="Input: first tokens of a text file. Default: a packaged passage.")]
Correlation = Annotated[float | None, typer.Option(help="Input: unit tokens that are all this much correlated.")]
Vectors = Annotated[Path | None, typer.Option(help="Input: .npy file of token vectors, (m, k).")]
CovarianceFile = Annotated[Path | None, typer.Option("--covariance", help="Input: .npy file of a covariance, (m, m).")]
Tokens = Annotated[int | None, typer.Option(help="Number of tokens m, of a text or with --correlation. Default: 8.")]
PositionWeight = Annotated[float | None, typer.Option(help="Text: weight of positions in [0, 1]. Default: 0.5.")]
Samples = Annotated[int, typer.Option(help="Draws of the chain and of the SDE.")]
NetworkSamples = Annotated[int, typer.Option(help="Real networks to draw.")]
Seed = Annotated[int, typer.Option(help="Seed of all draws and of the text's embeddings.")]
Steps = Annotated[int | None, typer.Option(help="Time steps of the SDE. Default: at least 100.")]
Out = Annotated[Path, typer.Option(help="Folder for the picture, the dataset and run.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("compare")
def compare_command(
    preset: Preset = None,
    architecture: ArchitectureFile = None,
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


@app.command("predict")
def predict_command(
    preset: Preset = None,
    architecture: ArchitectureFile = None,
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
    definition = _architecture(options)
    v0 = _input(options, definition.width)
    chosen = {name: options[name] for name in ("samples", "network_samples", "seed", "steps")}
    with filling(options["out"]) as folder:
        result = compare(definition, v0, **chosen)
        report = _report(result, definition, v0, options["seed"])
        _print_tables(result, report)
        if options["network_samples"] is None:
            found = stability(definition, v0, samples=options["samples"], seed=options["seed"])
            report["stability"] = found.to_dict()
            _print_stability(found, definition.depth)
        from .figures import comparison as figure

        data = result.to_datatree()
        data.to_zarr(folder / "dataset.zarr", zarr_format=2)
        figure.draw(data).savefig(folder / "figure.png", dpi=150)
        (folder / "run.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _say(f"Written to {options['out']}: figure.png, dataset.zarr, run.json")
    if options["as_json"]:
        typer.echo(json.dumps(report))


@app.command("advise")
def advise_command(
    depth: Annotated[int, typer.Option(help="Number of blocks d.")],
    width: Annotated[int, typer.Option(help="Width n of the network.")],
    tokens: Annotated[int, typer.Option(help="Number of tokens m.")],
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 1,
    mask: MaskOption = None,
    tau0: Annotated[float, typer.Option(help="Temperature constant of the advised network.")] = 1.0,
    probability: Annotated[float, typer.Option(help="Share of networks that must be stable.")] = 0.95,
    rank_share: Annotated[float, typer.Option(help="Share of the input's effective rank that they must keep.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="With which both must be known.")] = 0.95,
    samples: Annotated[int, typer.Option(help="Draws of the chain for each design that is tried.")] = 1024,
    seed: Seed = 0,
    out: Out = Path("runs/advise"),
    as_json: Json = False,
) -> None:
    """Find the largest gamma with which a shaped Transformer of this size is stable, and its trade-off with tau0."""
    with filling(out) as folder:
        advice = advise(
            depth,
            width,
            tokens,
            heads=heads,
            mask=_mask(mask or "full"),
            tau0=tau0,
            probability=probability,
            rank_share=rank_share,
            confidence=confidence,
            samples=samples,
            seed=seed,
        )
        report = {"command": command_line(), "version": __version__} | advice.to_dict()
        _print_advice(advice)
        from .figures import frontier

        data = frontier.compute(advice)
        data.to_zarr(folder / "dataset.zarr", zarr_format=2)
        frontier.draw(data).savefig(folder / "figure.png", dpi=150)
        (folder / "run.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _say(f"Written to {out}: figure.png, dataset.zarr, run.json")
    if as_json:
        typer.echo(json.dumps(report))


@app.command("sweep")
def sweep_command(
    specification: Annotated[Path, typer.Argument(help="YAML file: base, grid or list, keep.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; a sweep that was interrupted goes on there.")],
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, tcp://host:port.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes. Default: this one, on all cores.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a grid or list of designs into one zarr store; what has landed is never drawn again."""
    if scheduler is not None and workers is not None:
        raise InputError("give --scheduler or --workers, not both")
    outcome = sweeps.run(sweeps.read(specification), out, scheduler=scheduler, workers=workers)
    _say(f"{outcome.drawn} points drawn, {outcome.kept} were there, {len(outcome.failed)} failed: {out}/store.zarr")
    for index, error in outcome.failed:
        _say(f"point {list(index)}: {error}")
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))


def _architecture(options: dict[str, Any]) -> Architecture:
    """The definition from a file, or from a preset and the flags that it takes."""
    flags = ("width", "depth", "gamma", "tau0", "c_plus", "c_minus", "heads", "mask")
    given = {name: options[name] for name in flags if options[name] is not None}
    if options["architecture"] is not None:
        extra = [_flag(name) for name in given] + (["--preset"] if options["preset"] else [])
        if extra:
            raise InputError(f"--architecture is a whole definition: leave out {', '.join(extra)}")
        return _architecture_in(options["architecture"])
    name = options["preset"] or "shaped_transformer"
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    known = [flag for flag in flags if flag in inspect.signature(PRESETS[name]).parameters]
    if unknown := [_flag(flag) for flag in given if flag not in known]:
        raise InputError(f"preset {name} takes no {', '.join(unknown)}: it takes {', '.join(map(_flag, known))}")
    if "mask" in given:
        given["mask"] = _mask(given["mask"])
    return PRESETS[name](**({"width": 128, "depth": 64} | given))


def _mask(mask: str) -> Any:
    """A mask by name or from a file."""
    if mask in ("full", "causal"):
        return mask
    if not Path(mask).exists():
        raise InputError(f"--mask must be full, causal or a .npy file; there is no file {mask}")
    return inputs.read_array(Path(mask))


def _architecture_in(file: Path) -> Architecture:
    try:
        return Architecture.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not JSON: it is not UTF-8 text") from None
    except RecursionError:
        raise InputError(f"{file} is nested too deeply to be a definition") from None


def _input(options: dict[str, Any], width: int) -> inputs.Covariance:
    """The initial covariance from at most one of the four sources."""
    given = [name for name in ("text", "correlation", "vectors", "covariance") if options[name] is not None]
    if len(given) > 1:
        raise InputError(f"give one input, not {' and '.join(map(_flag, given))}")
    source = given[0] if given else "text"
    takes = {"text": ("tokens", "position_weight"), "correlation": ("tokens",)}.get(source, ())
    for name in ("tokens", "position_weight"):
        if options[name] is not None and name not in takes:
            raise InputError(f"{_flag(name)} does not go with {_flag(source)}: leave it out")
    tokens = 8 if options["tokens"] is None else options["tokens"]
    if source == "correlation":
        return inputs.equicorrelated(tokens, options["correlation"])
    if source == "text":
        weight = 0.5 if options["position_weight"] is None else options["position_weight"]
        v0 = inputs.from_text(
            options["text"],
            max_tokens=tokens,
            position_weight=weight,
            embedding_width=width,
            seed=options["seed"],
        )
        if len(v0) < tokens:
            _say(f"The text has {len(v0)} tokens, fewer than {tokens}.")
        return v0
    read = inputs.from_vectors if source == "vectors" else inputs.from_covariance
    return read(options[source])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


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
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    definition, pairs = report["architecture"], list(report["table"][0]["pairs"])
    console = Console(stderr=True, highlight=False)
    title = f"Draws at layer {definition['depth']}, width {definition['width']}"
    bands = Table("statistic", "view", title=title, box=SIMPLE, title_justify="left")
    title = "Kolmogorov–Smirnov distance between views (p-value)"
    distances = Table("statistic", title=title, box=SIMPLE, title_justify="left")
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
    console.print(bands)
    if pairs:
        console.print(distances)
    for view, seconds in result.seconds.items():
        frozen = report["stopped"][view]
        note = f", {frozen} paths stopped early" if frozen else ""
        _say(f"{view}: {report['samples'][view]} draws in {seconds:.1f} s{note}")
    if report["speed_up_per_draw"]:
        _say(f"The chain is {report['speed_up_per_draw']:.0f} times faster than the network per draw.")
    if result.no_limit:
        _say(f"No SDE: {result.no_limit}")
    verdict = result.verdict()
    doubt = "" if verdict.certain else " (too close to call: draw more samples)"
    _say(f"Verdict: {verdict.word}{doubt}: {verdict.sentence}.")


def _print_stability(found: Stability, depth: int) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    low, high = found.window
    title = (
        f"Stability up to layer {depth} by the chain, eigenvalues in the window [{low:g}, {high:g}],\n"
        "and what 10 % of each parameter would change (± its error)"
    )
    table = Table(title=title, box=SIMPLE, title_justify="left")
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
    Console(stderr=True, highlight=False).print(table)
    if found.growth is not None:
        _say(f"Expected drift of the mean token norm at the input: {found.growth:+.3g} per unit of depth/width.")


def _print_advice(advice: Advice) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "tau0", "largest gamma", "healthy networks there", title="The frontier", box=SIMPLE, title_justify="left"
    )
    for point in advice.frontier:
        gamma = "none" if point.gamma is None else f"{point.gamma:.3g}"
        healthy = point.healthy
        table.add_row(f"{point.tau0:g}", gamma, f"{healthy.value:.3f} [{healthy.low:.3f}, {healthy.high:.3f}]")
    Console(stderr=True, highlight=False).print(table)
    _say(f"Advice: {advice.sentence}.")


def _say(message: str) -> None:
    typer.echo(message, err=True)


INTERRUPTED = 130
TERMINATED = 143


def main() -> None:
    """Run the command line: bad input is one line on standard error and exit status 2, an interrupt is 130."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that temporary files are removed
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        describe = getattr(error, "format_message", error.__str__)  # a usage error names its option only there
        _fail(describe(), 2)
    except ShapedTransformerError as error:
        _fail(str(error), 2)
    except MemoryError:
        _fail("not enough memory: choose a smaller width, fewer tokens or fewer samples", 2)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # Typer turns an interrupt inside a command into this status
        _fail("interrupted, nothing written", INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    if message:  # empty where the help was printed because there was no command
        _say("shaped-transformer: " + " ".join(message.split()))
    sys.exit(status)
