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
from ..analysis.criterion import Criterion
from ..design.activations import AnyActivation, ShapedReLU
from ..design.architecture import PRESETS, Architecture
from ..design.named import NAMED, SHAPED_RELU, named_activation
from ..errors import InputError, counted
from ..io.yaml import parse_yaml
from .output import say

Samples = Annotated[int, typer.Option(help="Number of draws of the chain, and as many of the SDE.")]
Seed = Annotated[
    int, typer.Option(help="Seed of all random numbers, 0 or larger. The same seed gives the same results.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Number of time steps of the SDE, the limit of large depth and width. Default: 100, or more for networks "
        "that need smaller steps."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the results: the picture, the dataset and run.json. It is created if missing; earlier results "
        "of the same command are replaced."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report on standard output, as one JSON object.")]
MaskOption = Annotated[
    str | None,
    typer.Option(
        help="Which tokens a token may attend to: full (all), causal (itself and earlier ones), or a .npy file with "
        "an (m, m) array of 0 and 1, whose row i marks the tokens that token i may attend to. Default: full."
    ),
]

FROM_PRESET = (
    *("width", "depth", "gamma", "tau0", "c_plus", "c_minus", "heads", "key_width", "value_width", "mask"),
    *("hidden_width", "activation", "norm"),
)
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

    preset: Annotated[
        str | None, typer.Option(help=f"Kind of network: {', '.join(PRESETS)}. Default: shaped_transformer.")
    ] = None
    architecture: Annotated[
        Path | None, typer.Option(help="JSON file with the definition of a network, in place of a preset.")
    ] = None
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Allow the file of --architecture to name any function, also from modules beside it. This runs their "
            "code.",
        ),
    ] = False
    width: Annotated[
        int | None, typer.Option(help="Width n of the network, the number of coordinates of a token. Default: 128.")
    ] = None
    depth: Annotated[int | None, typer.Option(help="Depth d, the number of blocks. Default: 64.")] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            help="Strength of the residual branches, in (0, 1]: x becomes sqrt(1 - gamma^2) x + gamma branch(x). "
            "Default: 0.5/sqrt(depth)."
        ),
    ] = None
    tau0: Annotated[
        float | None,
        typer.Option(
            help="Temperature constant of shaped attention, positive; its logits are divided by tau0 sqrt(n n_k). "
            "Default: 1."
        ),
    ] = None
    c_plus: Annotated[
        float | None, typer.Option(help="c of the shaped ReLU's slope 1 + c/sqrt(n) for positive inputs. Default: 0.")
    ] = None
    c_minus: Annotated[
        float | None, typer.Option(help="c of the shaped ReLU's slope 1 + c/sqrt(n) for negative inputs. Default: -1.")
    ] = None
    heads: Annotated[int | None, typer.Option(help="Number of attention heads. Default: 1.")] = None
    key_width: Annotated[
        int | None, typer.Option(help="Width n_k of the keys and queries of one head. Default: width/heads.")
    ] = None
    value_width: Annotated[
        int | None, typer.Option(help="Width n_v of the values of one head. Default: width/heads.")
    ] = None
    mask: MaskOption = None
    hidden_width: Annotated[int | None, typer.Option(help="Number of hidden units of the MLP. Default: the width.")] = (
        None
    )
    activation: Annotated[
        str | None,
        typer.Option(
            help=f"Activation: {', '.join(NAMED)}. Shaped ones become linear as the width grows. A network has an "
            "SDE only with them (except shaped-softsign) or identity. shaped-relu has the slopes of --c-plus and "
            "--c-minus, the other shaped ones have a = 1. Default: relu in pre_norm, post_norm and skipless networks, "
            "else shaped-relu."
        ),
    ] = None
    norm: Annotated[
        str | None,
        typer.Option(help="RMSNorm before each branch (pre), after each sum (post), or none. Default: none."),
    ] = None

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
            raise InputError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        known = [option for option in FROM_PRESET if option in inspect.signature(PRESETS[name]).parameters]
        if unknown := [flag(option) for option in given if option not in known]:
            raise InputError(f"preset {name} takes no {', '.join(unknown)}: it takes {', '.join(map(flag, known))}")
        if "mask" in given:
            given["mask"] = read_mask(given["mask"])
        if "activation" in given:
            given["activation"] = _take_activation(given)
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
        Path | None, typer.Option(help="Input: the first tokens of this text file. Default: a packaged passage.")
    ] = None
    correlation: Annotated[
        float | None,
        typer.Option(help="Input: unit tokens with this correlation between every pair, from -1/(m-1) to 1."),
    ] = None
    vectors: Annotated[
        Path | None, typer.Option(help="Input: .npy file of m token vectors with k coordinates, (m, k).")
    ] = None
    covariance: Annotated[
        Path | None, typer.Option("--covariance", help="Input: .npy file of the tokens' covariance, (m, m).")
    ] = None
    tokens: Annotated[
        int | None, typer.Option(help="Number of tokens m, of the text or with --correlation. Default: 8.")
    ] = None
    position_weight: Annotated[
        float | None,
        typer.Option(help="With a text: share of positions in the tokens' embeddings, from 0 to 1. Default: 0.5."),
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
            say(f"The text has {counted(len(v0), 'token')}, fewer than {tokens}.")
        return v0


def _take_activation(given: dict[str, Any]) -> AnyActivation:
    """Return the named activation of a design's options; the slopes of a shaped ReLU are removed from these."""
    if given["activation"] != SHAPED_RELU:
        return named_activation(given["activation"])
    return ShapedReLU(**{name: given.pop(name) for name in ("c_plus", "c_minus") if name in given})


@dataclass(frozen=True)
class StableIf:
    """The options that say when a network counts as stable."""

    probability: Annotated[
        float, typer.Option(help="A design is stable if at least this share of its networks is healthy, in (0, 1).")
    ] = Criterion.probability
    rank_share: Annotated[
        float,
        typer.Option(help="A network is healthy if it keeps this share of the input's effective rank, in (0, 1)."),
    ] = Criterion.rank_share
    confidence: Annotated[
        float, typer.Option(help="Confidence of each bound on the share of healthy networks, in (0.5, 1).")
    ] = Criterion.confidence

    def build(self) -> Criterion:
        """Return the criterion.

        **Raises:** `InputError` for numbers out of range.
        """
        return Criterion(self.probability, self.rank_share, self.confidence)


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
