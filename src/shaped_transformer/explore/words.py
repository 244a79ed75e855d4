"""A design as Python, as JSON and as a command, to be copied."""

import json
import shlex
from typing import Any

from ..design.named import SHAPED_RELU
from .controls import START, value_of
from .limits import paths_for
from .state import Subject

TEXT_FILE = "my.txt"
"""The file with the pasted text, in a command."""


def as_python(subject: Subject) -> str:
    """Return Python code that draws the design."""
    preset = f"st.{subject.preset}({_arguments(_python_arguments(subject))})"
    function = "from_string" if subject.source == "text" else "equicorrelated"
    return (
        f"import shaped_transformer as st\n\narch = {preset}\n"
        f"v0 = st.inputs.{function}({_arguments(dict(subject.given))})\n"
        f"chain = st.chain.sample(arch, v0, samples={_samples(subject)}, seed=0)\n"
        "print(st.statistics.verdict(chain).sentence)\n"
    )


def _samples(subject: Subject) -> int:
    """Return the number of paths, that of the page: with the same seed, code and command give the same verdict."""
    return paths_for(subject.architecture, len(subject.v0))


KEPT = ("width", "depth", "gamma")
"""Arguments that are given even if they are those of a new page."""


def _changed(subject: Subject) -> dict[str, Any]:
    """Return the arguments of the preset without those that are its defaults."""
    return {
        name: value for name, value in subject.arguments.items() if name in KEPT or value != value_of(name, START[name])
    }


def _python_arguments(subject: Subject) -> dict[str, Any]:
    """Return the arguments of the preset, the activation as code."""
    given = _changed(subject)
    name = given.get("activation")
    if name == SHAPED_RELU:
        del given["activation"]  # it is the default
    elif name is not None:
        smooth = name.startswith("shaped-")
        code = f'st.ShapedSmooth("{name.removeprefix("shaped-")}", a=1.0)' if smooth else f'st.Activation("{name}")'
        given["activation"] = _Code(code)
    return given


class _Code(str):
    """A text that is code, and shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _arguments(given: dict[str, Any]) -> str:
    """Return arguments as Python writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def as_json(subject: Subject) -> str:
    """Return the definition of the network as JSON, as `Architecture.read` reads it."""
    return json.dumps(subject.architecture.to_dict(), indent=1) + "\n"


def as_command(subject: Subject) -> str:
    """Return the command that says whether the design is stable."""
    options: dict[str, Any] = {"preset": subject.preset} | _changed(subject)
    if subject.source == "text":
        options |= {"text": TEXT_FILE, "tokens": subject.given["max_tokens"]}
    else:
        options |= dict(subject.given)
    options |= {"samples": _samples(subject)}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    note = f"# {TEXT_FILE}: the text\n" if subject.source == "text" else ""
    return note + shlex.join(["shaped-transformer", "predict", *words]) + "\n"
