"""The options that commands share; those of a design and of its input are groups."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from .. import inputs
from ..design.architecture import PRESETS, Architecture
from ..errors import InputError
from ..io.yaml import parse_yaml
from .output import say

Samples = Annotated[int, typer.Option(help="Draws of the chain and of the SDE.")]
Seed = Annotated[int, typer.Option(help="Seed of all draws and of the text's embeddings.")]
Steps = Annotated[int | None, typer.Option(help="Time steps of the SDE. Default: at least 100.")]
Out = Annotated[Path, typer.Option(help="Folder for the picture, the dataset and run.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
MaskOption = Annotated[str | None, typer.Option(help="full, causal, or a .npy file of 0 and 1. Default: full.")]

FROM_PRESET = ("width", "depth", "gamma", "tau0", "c_plus", "c_minus", "heads", "mask")
"""Options of a design that go with a preset."""


def expand_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command have parameters that are groups of options (frozen dataclasses).

    Typer, which does not support groups, sees an option for each field. The command receives each group as one object.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            group = groups[parameter.name]
            types = get_type_hints(group, include_extras=True)
            options += [_option(field.name, types[field.name], field.default) for field in fields(group)]
        else:
            options.append(_option(parameter.name, hints[parameter.name], parameter.default))

    @functools.wraps(command)
    def expanded(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    typed: Any = expanded
    typed.__signature__ = inspect.Signature(options)
    typed.__annotations__ = {option.name: option.annotation for option in options}
    return expanded


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return an option as a keyword-only parameter."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@dataclass(frozen=True)
class Design:
    """The options that define a network: a file, or a preset with its parameters."""

    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}. Default: shaped_transformer.")] = (
        None
    )
    architecture: Annotated[Path | None, typer.Option(help="JSON file of a definition, in place of a preset.")] = None
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import the functions that --architecture names, also from modules beside the file. This runs their "
            "code.",
        ),
    ] = False
    width: Annotated[int | None, typer.Option(help="Width n of the network. Default: 128.")] = None
    depth: Annotated[int | None, typer.Option(help="Number of blocks d. Default: 64.")] = None
    gamma: Annotated[float | None, typer.Option(help="Strength of the residual branches, in (0, 1]. Default: 0.5.")] = (
        None
    )
    tau0: Annotated[float | None, typer.Option(help="Temperature constant of the attention. Default: 1.")] = None
    c_plus: Annotated[float | None, typer.Option(help="Shaped ReLU: positive slope 1 + c/sqrt(n). Default: 0.")] = None
    c_minus: Annotated[float | None, typer.Option(help="Shaped ReLU: negative slope 1 + c/sqrt(n). Default: -1.")] = (
        None
    )
    heads: Annotated[int | None, typer.Option(help="Attention heads. Default: 1.")] = None
    mask: MaskOption = None

    def build(self) -> Architecture:
        """Return the definition.

        **Raises:** `InputError` for options that exclude each other; errors of the file or the preset.
        """
        given = {name: getattr(self, name) for name in FROM_PRESET if getattr(self, name) is not None}
        if self.architecture is not None:
            return self._read(self.architecture, given)
        if self.trust:
            raise InputError(
                "--trust is for the functions that a file names: give it with --architecture, or leave it out"
            )
        name = self.preset or "shaped_transformer"
        if name not in PRESETS:
            raise InputError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
        known = [option for option in FROM_PRESET if option in inspect.signature(PRESETS[name]).parameters]
        if unknown := [flag(option) for option in given if option not in known]:
            raise InputError(f"preset {name} takes no {', '.join(unknown)}: it takes {', '.join(map(flag, known))}")
        if "mask" in given:
            given["mask"] = read_mask(given["mask"])
        return PRESETS[name](**({"width": 128, "depth": 64} | given))

    def _read(self, file: Path, given: dict[str, Any]) -> Architecture:
        """Return the definition in a file, beside which no option of a preset may be given."""
        extra = [flag(name) for name in given] + (["--preset"] if self.preset else [])
        if extra:
            raise InputError(f"--architecture is a whole definition: leave out {', '.join(extra)}")
        if self.trust:
            search_modules_beside(file)
        return Architecture.read(file, trust=self.trust)


@dataclass(frozen=True)
class Input:
    """The options that define the initial covariance: at most one of four sources."""

    text: Annotated[
        Path | None, typer.Option(help="Input: first tokens of a text file. Default: a packaged passage.")
    ] = None
    correlation: Annotated[float | None, typer.Option(help="Input: unit tokens that are all this much correlated.")] = (
        None
    )
    vectors: Annotated[Path | None, typer.Option(help="Input: .npy file of token vectors, (m, k).")] = None
    covariance: Annotated[
        Path | None, typer.Option("--covariance", help="Input: .npy file of a covariance, (m, m).")
    ] = None
    tokens: Annotated[
        int | None, typer.Option(help="Number of tokens m, of a text or with --correlation. Default: 8.")
    ] = None
    position_weight: Annotated[
        float | None, typer.Option(help="Text: weight of positions in [0, 1]. Default: 0.5.")
    ] = None

    def build(self, width: int, seed: int) -> inputs.Covariance:
        """Return the initial covariance, (m, m).

        **Arguments:**

        - `width`: number of coordinates of a text's embeddings.
        - `seed`: seed of a text's embeddings.

        **Raises:** `InputError` for options that exclude each other; errors of the source.
        """
        given = [name for name in ("text", "correlation", "vectors", "covariance") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"give one input, not {' and '.join(map(flag, given))}")
        source = given[0] if given else "text"
        takes = {"text": ("tokens", "position_weight"), "correlation": ("tokens",)}.get(source, ())
        for name in ("tokens", "position_weight"):
            if getattr(self, name) is not None and name not in takes:
                raise InputError(f"{flag(name)} does not go with {flag(source)}: leave it out")
        tokens = 8 if self.tokens is None else self.tokens
        if self.correlation is not None:
            return inputs.equicorrelated(tokens, self.correlation)
        if self.vectors is not None:
            return inputs.from_vectors(self.vectors)
        if self.covariance is not None:
            return inputs.from_covariance(self.covariance)
        weight = 0.5 if self.position_weight is None else self.position_weight
        v0 = inputs.from_text(self.text, max_tokens=tokens, position_weight=weight, embedding_width=width, seed=seed)
        if len(v0) < tokens:
            say(f"The text has {len(v0)} tokens, fewer than {tokens}.")
        return v0


def search_modules_beside(file: Path) -> None:
    """Append the folder of a trusted file to the module search path, also that of processes that are started later."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)


def read_mask(mask: str) -> Any:
    """Return a mask's name, or the mask in a file."""
    if mask in ("full", "causal"):
        return mask
    if not Path(mask).exists():
        raise InputError(f"--mask must be full, causal or a .npy file; there is no file {mask}")
    return inputs.read_array(Path(mask))


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Return the values of the option `--set`, given as KEY=VALUE with a value in YAML, by key."""
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set needs KEY=VALUE (got {setting!r})")
        values[key.strip()] = parse_yaml(value, f"--set {setting}: the value")
    return values


def flag(name: str) -> str:
    """Return the name of an option as a user types it, such as `--tau0`."""
    return "--" + name.replace("_", "-")
