"""The state of the page: what its fields hold, as the address of the page, and as networks with their input."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .. import inputs
from ..design.activations import ShapedReLU
from ..design.architecture import PRESETS, Architecture
from ..design.definition import Definition
from ..design.named import SHAPED_RELU, named_activation
from ..errors import InputError, ShapedTransformerError
from ..views.sampling import initial_factor
from .controls import SHOWN, START, controls, preset_names, value_of
from .limits import check_size, check_text

SLOTS = ("a", "b")
"""The two designs."""
DESIGN = (
    *("preset", "gamma", "tau0", "c_plus", "c_minus", "heads", "mask", "hidden_width", "activation", "norm"),
    *("width", "depth"),
)
"""Fields of a design. If several could be wrong, an earlier one is blamed."""
INPUT = ("text", "correlation", "tokens", "source")
"""Fields of the input, which the designs have in common."""
SECOND = "b."
"""Before the names of the second design's fields in an address."""
BOTH = "designs"
"""Name in an address of the number of designs."""
MOST_FAULTS = 3
"""Most fields that are explained at once, of those that are wrong only together with others."""


@dataclass(frozen=True)
class State:
    """What the fields of the page hold, as text.

    **Attributes:**

    - `input`: the fields of `INPUT`.
    - `designs`: the fields of `DESIGN` of each of the two designs.
    - `both`: whether the second design is shown.
    """

    input: Mapping[str, str] = field(hash=False)
    designs: tuple[Mapping[str, str], Mapping[str, str]] = field(hash=False)
    both: bool = False

    @classmethod
    def start(cls) -> "State":
        """Return the state of a new page."""
        design = {name: START[name] for name in DESIGN}
        return cls({name: START[name] for name in INPUT}, (design, dict(design)))

    @classmethod
    def of_query(cls, query: str) -> "State":
        """Return the state in an address; fields that it does not name have their first values.

        **Arguments:**

        - `query`: the part of the address after `?`, which may be included. Unknown names are ignored.
        """
        try:
            given = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=2 * len(START) + 1))
        except ValueError:  # more fields than a page has
            given = {}
        first, second = ({n: given.get(p + n, START[n]) for n in DESIGN} for p in ("", SECOND))
        return cls({name: given.get(name, START[name]) for name in INPUT}, (first, second), given.get(BOTH) == "2")

    @property
    def query(self) -> str:
        """The state as part of an address: the fields that differ from a new page's."""
        fields = [*self.input.items(), *self.designs[0].items()]
        if self.both:
            fields += [(SECOND + name, text) for name, text in self.designs[1].items()]
        changed = {name: text for name, text in fields if text != START[name.removeprefix(SECOND)]}
        return urlencode(changed | ({BOTH: "2"} if self.both else {}))

    @property
    def shown(self) -> tuple[str, ...]:
        """The designs that are shown."""
        return SLOTS if self.both else SLOTS[:1]

    def design(self, slot: str) -> Mapping[str, str]:
        """Return the fields of a design."""
        return self.designs[SLOTS.index(slot)]


@dataclass(frozen=True)
class Subject:
    """A network with its input, as the fields describe them.

    **Attributes:**

    - `architecture`: the network.
    - `v0`: its initial covariance, (m, m).
    - `preset`, `arguments`: the function that makes the network, and what it is given.
    - `source`: `"correlation"` or `"text"`.
    - `given`: arguments of the function in `inputs` that makes the covariance.
    """

    architecture: Architecture
    v0: inputs.Covariance = field(compare=False)
    preset: str
    arguments: Mapping[str, Any] = field(hash=False)
    source: str
    given: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Reading:
    """What a state means.

    **Attributes:**

    - `subjects`: the network of each design that is shown and has no problem.
    - `problems`: what is wrong, by the field: its name, with `"a."` or `"b."` before those of a design.
    """

    subjects: dict[str, Subject]
    problems: dict[str, str]


def visible(design: Mapping[str, str]) -> set[str]:
    """Return the fields of a design that have an effect: those of its preset, without slopes of other activations."""
    names = set(preset_names(design["preset"])) if design["preset"] in PRESETS else set()
    shaped = "c_plus" in names and design["activation"] in ("", SHAPED_RELU)
    return {"preset", *names} - (set() if shaped else {"c_plus", "c_minus"})


def read(state: State) -> Reading:
    """Return the networks that a state describes, and what is wrong with its fields, each in one sentence."""
    subjects: dict[str, Subject] = {}
    problems: dict[str, str] = {}
    for slot in state.shown:
        texts = {**state.input, **state.design(slot)}
        used = [n for n in (*DESIGN, *INPUT) if n in visible(state.design(slot)) or n in _used_input(texts)]
        wrong = {name: problem for name in used if (problem := _problem(name, texts[name]))}
        if not wrong:
            try:
                subjects[slot] = make(texts)
            except ShapedTransformerError:
                wrong = _faults(used, texts)
        elif "preset" not in wrong:
            wrong |= _certain_faults(used, texts, wrong)
        problems |= {name if name in INPUT else f"{slot}.{name}": problem for name, problem in wrong.items()}
    return Reading(subjects, problems)


def make(texts: Mapping[str, str]) -> Subject:
    """Return the network and the input that fields describe.

    **Arguments:**

    - `texts`: the fields of a design and of the input.

    **Raises:** `InputError` or `DefinitionError` if there is no such network or input, or if it is too large to be
    drawn at once.
    """
    preset = value_of("preset", texts["preset"])
    names = [name for name in preset_names(preset) if name in visible(texts)]
    values = {name: value_of(name, texts[name]) for name in names}
    arguments = {name: value for name, value in values.items() if value is not None}
    architecture = PRESETS[preset](**_with_activation(arguments))
    source, given = _input(texts, architecture.width)
    tokens = given["tokens"] if source == "correlation" else given["max_tokens"]
    check_size(architecture, tokens)
    v0 = inputs.from_string(**given) if source == "text" else inputs.equicorrelated(**given)
    initial_factor(v0, architecture.width)
    return Subject(architecture, v0, preset, arguments, source, given)


def _with_activation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a preset, with the activation of a name and with its slopes."""
    made = dict(arguments)
    if "activation" in made:
        slopes = {name: made.pop(name) for name in ("c_plus", "c_minus") if name in made}
        shaped = made["activation"] == SHAPED_RELU
        made["activation"] = ShapedReLU(**slopes) if shaped else named_activation(made["activation"])
    return made


def _input(texts: Mapping[str, str], width: int) -> tuple[str, dict[str, Any]]:
    """Return where the tokens come from, and the arguments of the function in `inputs` that makes their covariance."""
    source, tokens = value_of("source", texts["source"]), value_of("tokens", texts["tokens"])
    if source == "correlation":
        return source, {"tokens": tokens, "correlation": value_of("correlation", texts["correlation"])}
    return source, {"text": check_text(texts["text"]), "max_tokens": tokens, "embedding_width": width}


def _used_input(texts: Mapping[str, str]) -> set[str]:
    """Return the fields of the input that have an effect."""
    return {"source", "tokens", "text" if texts["source"] == "text" else "correlation"}


def _problem(name: str, text: str) -> str | None:
    """Return what is wrong with the text of a field alone, or `None`."""
    try:
        if name == "text":
            check_text(text)
        value_of(name, text)
    except InputError as error:
        return str(error)
    return None


def _faults(names: Sequence[str], texts: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with fields that are allowed alone, but of which no network can be made.

    These are the fewest fields with whose first values it can be made; of equally many, the earlier ones.
    """
    changed = [name for name in names if texts[name] != START[name]]
    whole = _refusal(texts)
    for count in range(1, MOST_FAULTS + 1):
        for some in combinations(changed, count):
            if _refusal({**texts, **{name: START[name] for name in some}}):
                continue
            found = {}
            for name in some:  # the others are corrected, so that this one's fault comes to light
                alone = _refusal({**texts, **{other: START[other] for other in some if other != name}})
                found[name] = whole if _same_fault(alone, whole) else alone
            return found
    return {(changed or list(names))[0]: whole}


def _certain_faults(names: Sequence[str], texts: Mapping[str, str], wrong: Mapping[str, str]) -> dict[str, str]:
    """Return faults as `_faults` does, beside fields that are wrong alone: those that no correction of these mends."""
    found: list[dict[str, str]] = []
    for number in (START, {name: f"{low:g}" for name, (low, _) in SHOWN.items()}):
        corrected = {name: number.get(name, START[name]) for name in wrong}
        usable = [name for name in names if name not in wrong]
        whole = {**texts, **corrected}
        found.append(_faults(usable, whole) if _refusal(whole) else {})
    return {name: problem for name, problem in found[0].items() if found[1].get(name) == problem}


def _refusal(texts: Mapping[str, str]) -> str:
    """Return why no network can be made of fields; empty if one can."""
    try:
        make(texts)
    except ShapedTransformerError as error:
        kind, colon, message = str(error).partition(": ")
        return message if colon and kind in Definition.kinds else str(error)
    return ""


def _same_fault(one: str, other: str) -> bool:
    """Return whether two messages are one sentence with different numbers."""
    return re.sub(r"[-+.,\d]+(e[-+]?\d+)?", "#", one) == re.sub(r"[-+.,\d]+(e[-+]?\d+)?", "#", other)


def label(name: str) -> str:
    """Return what a field is called on the page."""
    return controls()[name].label
