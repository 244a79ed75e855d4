"""The controls of the page, made from the JSON schemas of the definitions and from the presets' signatures."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .. import inputs
from ..design.activations import ShapedReLU
from ..design.architecture import PRESETS, Architecture
from ..design.definition import Number, PositiveInt, describe_problem
from ..design.layers import MLP, Residual, ShapedAttention
from ..design.named import NAMED
from ..errors import InputError

SOURCES: dict[str, tuple[type, str]] = {
    "width": (Architecture, "width"),
    "depth": (Architecture, "depth"),
    "gamma": (Residual, "scale"),
    "tau0": (ShapedAttention, "tau0"),
    "c_plus": (ShapedReLU, "c_plus"),
    "c_minus": (ShapedReLU, "c_minus"),
    "heads": (ShapedAttention, "heads"),
    "mask": (ShapedAttention, "mask"),
    "norm": (Residual, "norm"),
    "hidden_width": (MLP, "hidden_width"),
}
"""The field of a definition that each parameter of a preset becomes: its schema says which values there are."""
NUMBERS: dict[str, Any] = {"tokens": PositiveInt, "correlation": Number}
"""The types of numbers that are no parameters of a preset."""
CHOICES = {"preset": tuple(PRESETS), "activation": ("", *NAMED), "source": ("correlation", "text")}
"""Parameters whose values are names of the library."""
LABELS = {
    "preset": "Preset",
    "width": "Width n",
    "depth": "Depth d",
    "gamma": "Branch strength γ",
    "tau0": "Temperature constant τ0",
    "c_plus": "Slope c₊",
    "c_minus": "Slope c₋",
    "heads": "Heads",
    "mask": "Mask",
    "hidden_width": "Hidden width",
    "activation": "Activation",
    "norm": "Norm",
    "source": "Tokens from",
    "tokens": "Number of tokens m",
    "correlation": "Correlation of every pair",
    "text": "Text",
}
"""What each control is called."""
SHOWN: dict[str, tuple[float, float]] = {
    "width": (16, 2048),
    "depth": (1, 512),
    "gamma": (0.01, 1.0),
    "tau0": (0.05, 20.0),
    "c_plus": (-2.0, 2.0),
    "c_minus": (-2.0, 2.0),
    "heads": (1, 64),
    "hidden_width": (16, 8192),
    "tokens": (1, 64),
    "correlation": (0.0, 1.0),
}
"""The part of a range that a slider shows; beside it any allowed number can be typed."""
LOGARITHMIC = frozenset({"width", "depth", "gamma", "tau0", "heads", "hidden_width"})
"""Sliders on which equal steps are equal factors."""
OCTAVES = {"heads": 1.0}
"""Steps of logarithmic sliders of whole numbers, in factors of two, if not an eighth: all powers of two are reached."""
BLANK = {"hidden_width": "width n", "gamma": "0.5/√depth", "activation": "the preset's own"}
"""What an empty field stands for."""
NAMES = {
    "": "the preset's own",
    "source=text": "a text",
    "source=correlation": "equal correlations",
    "shaped_transformer": "shaped Transformer",
    "shaped_attention_only": "shaped attention only",
    "shaped_mlp": "shaped MLP",
    "deep_linear": "deep linear network",
    "pre_norm_transformer": "pre-norm Transformer",
    "post_norm_transformer": "post-norm Transformer",
    "skipless_transformer": "skipless Transformer",
}
"""Values that are shown under another name, alone or after the control's name."""


@dataclass(frozen=True)
class Control:
    """A control of the page.

    **Attributes:**

    - `name`: of the parameter.
    - `label`: what it is called on the page.
    - `help`: what it means, from the docstring of the presets.
    - `schema`: JSON schema of its values.
    - `start`: its first value, as text; empty for a default of the preset.
    """

    name: str
    label: str
    help: str
    schema: Mapping[str, Any] = field(hash=False)
    start: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The values to choose from; none for numbers and texts."""
        return tuple(self.schema.get("enum", ()))

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.schema.get("type") == "integer"

    @property
    def logarithmic(self) -> bool:
        """Whether equal steps of its slider are equal factors."""
        return self.name in LOGARITHMIC

    @property
    def range(self) -> tuple[float, float] | None:
        """Ends of its slider: what is shown of what the schema allows; `None` if it has no slider."""
        if self.schema.get("type") not in ("integer", "number"):
            return None
        low, high = SHOWN[self.name]
        return max(low, self.schema.get("minimum", low)), min(high, self.schema.get("maximum", high))

    def option(self, value: str) -> str:
        """Return what a value is called on the page."""
        return NAMES.get(f"{self.name}={value}", NAMES.get(value, value.replace("_", " ")))


def preset_names(preset: str) -> tuple[str, ...]:
    """Return the parameters of a preset that have controls.

    **Arguments:**

    - `preset`: its name.
    """
    taken = inspect.signature(PRESETS[preset]).parameters
    return tuple(name for name in (*SOURCES, "activation") if name in taken)


@cache
def controls() -> dict[str, Control]:
    """Return all controls by name, in the order of the page: those of a design, then those of the input."""
    names = (
        *("preset", "width", "depth", "gamma", "tau0", "heads", "mask", "hidden_width", "activation"),
        *("c_plus", "c_minus", "norm", "source", "tokens", "correlation", "text"),
    )
    help_ = _help(PRESETS["shaped_transformer"]) | _help(inputs.equicorrelated) | HELP
    return {name: Control(name, LABELS[name], help_[name], _schema(name), START[name]) for name in names}


HELP = {
    "preset": "the kind of network.",
    "activation": "activation of the MLP or the dense layers; shaped ones become linear as the width grows, and only "
    "with them is there a limit.",
    "norm": "normalisation of both residual layers, RMSNorm; none in the paper.",
    "source": "where the tokens come from: vectors of which every pair has the same correlation, or a text with random "
    "embeddings.",
    "text": "its first words and punctuation marks are the tokens; equal words have similar embeddings.",
}
"""What controls mean whose parameters have no sentence of their own in a docstring, or a longer one."""


def _help(function: Callable[..., Any]) -> dict[str, str]:
    """Return the sentence about each argument in a docstring."""
    text = inspect.getdoc(function) or ""
    items = re.findall(r"^- (`\w+`(?:, `\w+`)*): (.*(?:\n  .*)*)", text, re.MULTILINE)
    return {
        name: " ".join(sentence.replace("`", "").split())
        for names, sentence in items
        for name in re.findall(r"\w+", names)
    }


def _start() -> dict[str, str]:
    """Return the first value of each control: the defaults of the presets, and of the command line for sizes."""
    defaults = {n: p.default for n, p in inspect.signature(PRESETS["shaped_transformer"]).parameters.items()}
    slopes = {name: getattr(ShapedReLU, name) for name in ("c_plus", "c_minus")}
    chosen = {"preset": "shaped_transformer", "width": 128, "depth": 64, "gamma": 0.25, "source": "correlation"}
    chosen |= {"tokens": 8, "correlation": 0.2, "text": inputs.passage()[:60].rsplit(" ", 1)[0]}
    values = defaults | slopes | chosen
    return {
        name: ""
        if values[name] is None
        else f"{values[name]:g}"
        if isinstance(values[name], float)
        else str(values[name])
        for name in LABELS
    }


START = _start()
"""The first value of each control, as text."""


@cache
def _type(name: str) -> TypeAdapter[Any]:
    """Return the type of a parameter's values, as its definition declares it."""
    if name in NUMBERS:
        hint: Any = NUMBERS[name]
    else:
        cls, attribute = SOURCES[name]
        info = cast(Any, cls).__pydantic_fields__[attribute]
        hint = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def _schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a parameter's values; of alternatives, that of the values that a page can offer."""
    if name == "text":
        return {"type": "string"}
    if name in CHOICES:
        return {"enum": list(CHOICES[name])}
    schema = _type(name).json_schema()
    simple = [part for part in schema.get("anyOf", [schema]) if part.get("type") not in ("null", "array")]
    return dict(simple[0])


def value_of(name: str, text: str) -> Any:
    """Return the value that a text stands for, `None` for an empty one that stands for a default.

    **Arguments:**

    - `name`: of the control.
    - `text`: what was typed or chosen.

    **Raises:** `InputError` if it is no value of this parameter.
    """
    control = controls()[name]
    if control.choices:
        if text not in control.choices:
            raise InputError(
                f"{control.label} must be one of {', '.join(filter(None, control.choices))} (got {text[:40]!r})"
            )
        return text or None
    if control.range is None:
        return text
    if not text.strip() and name in BLANK:
        return None
    try:
        return _type(name).validate_python(_number(text))
    except ValidationError as error:
        raise InputError(describe_problem(error.errors()[0], control.label)) from None


def _number(text: str) -> Any:
    """Return the number in a text, or the text, shortened, if there is none."""
    short = text.strip()[:40]
    for kind in (int, float):
        try:
            return kind(short)
        except ValueError:
            continue
    return short
