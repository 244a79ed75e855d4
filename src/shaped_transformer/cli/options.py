"""The options that commands share, and what they stand for: a definition and its input."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import inputs
from ..design.architecture import PRESETS, Architecture
from ..errors import InputError
from .output import say

Preset = Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}. Default: shaped_transformer.")]
ArchitectureFile = Annotated[
    Path | None,
    typer.Option(help="JSON file of a definition, in place of a preset."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import the functions that --architecture names, also from modules beside the file. This runs their code.",
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


def architecture_of(options: dict[str, Any]) -> Architecture:
    """The definition from a file, or from a preset and the flags that it takes."""
    flags = ("width", "depth", "gamma", "tau0", "c_plus", "c_minus", "heads", "mask")
    given = {name: options[name] for name in flags if options[name] is not None}
    if options["architecture"] is not None:
        extra = [_flag(name) for name in given] + (["--preset"] if options["preset"] else [])
        if extra:
            raise InputError(f"--architecture is a whole definition: leave out {', '.join(extra)}")
        if options["trust"]:
            search_beside(options["architecture"])
        return Architecture.read(options["architecture"], trust=options["trust"])
    if options["trust"]:
        raise InputError("--trust is for the functions that a file names: give it with --architecture, or leave it out")
    name = options["preset"] or "shaped_transformer"
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    known = [flag for flag in flags if flag in inspect.signature(PRESETS[name]).parameters]
    if unknown := [_flag(flag) for flag in given if flag not in known]:
        raise InputError(f"preset {name} takes no {', '.join(unknown)}: it takes {', '.join(map(_flag, known))}")
    if "mask" in given:
        given["mask"] = mask_of(given["mask"])
    return PRESETS[name](**({"width": 128, "depth": 64} | given))


def search_beside(file: Path) -> None:
    """Let modules in the folder of a trusted file be imported, last of all; processes started later find them too."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)


def mask_of(mask: str) -> Any:
    """A mask by name or from a file."""
    if mask in ("full", "causal"):
        return mask
    if not Path(mask).exists():
        raise InputError(f"--mask must be full, causal or a .npy file; there is no file {mask}")
    return inputs.read_array(Path(mask))


def covariance_of(options: dict[str, Any], width: int) -> inputs.Covariance:
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
            say(f"The text has {len(v0)} tokens, fewer than {tokens}.")
        return v0
    read = inputs.from_vectors if source == "vectors" else inputs.from_covariance
    return read(options[source])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
