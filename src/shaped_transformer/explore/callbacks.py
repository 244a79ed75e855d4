"""What the page asks of the server: the meaning of its fields, and the pictures that are new."""

import uuid
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from . import texts, words
from .controls import controls
from .desk import Desk, Shown
from .page import field_id, numbers, page, summary, values_of, waiting
from .pictures import TITLES, aligned, axes
from .state import DESIGN, INPUT, SLOTS, Reading, read, visible
from .state import State as Fields

FIRST_WAIT = 0.3
"""Seconds that a change waits for its first picture."""
NEXT_WAIT = 1.0
"""Seconds that a page waits for the next picture."""
FIELDS = [(name, None) for name in INPUT] + [(name, slot) for slot in SLOTS for name in DESIGN]
"""All fields: their names and designs."""
IDS = [field_id(name, slot) for name, slot in FIELDS]
"""The ids of all fields."""
FORMS = {"python": words.as_python, "json": words.as_json, "command": words.as_command}
"""What makes each form of a design that can be copied."""


def register(app: Dash, desk: Desk) -> None:
    """Register all callbacks.

    **Arguments:**

    - `app`: the application.
    - `desk`: where the work is done.
    """
    values = [Input(name, "value") for name in IDS]

    @app.callback(Output("page", "children"), Input("address", "search"))
    def open_page(search: str | None) -> Any:
        return page(Fields.of_query(search or ""), uuid.uuid4().hex)

    @app.callback(
        *[Output(f"{name}-error", "children") for name in IDS],
        *[Output(f"{name}-field", "hidden") for name in IDS],
        *[Output(f"{slot}-{form}", "children") for slot in SLOTS for form in FORMS],
        *[Output(f"b-{part}", "hidden") for part in ("fields", "section")],
        *[Output(f"{slot}-section", "className") for slot in SLOTS],
        Output("second", "children"),
        Output("designs", "className"),
        Output("query", "data"),
        Output("checked", "data"),
        [*values, Input("both", "data")],
        State("checked", "data"),
    )
    def check(*given: Any) -> Sequence[Any]:
        typed, (both, before) = given[: len(IDS)], given[len(IDS) :]
        state = fields(typed, both=bool(both))
        now = checked(state, read(state))
        digests = [digest(value) for value in now]
        return [*changed(now, digests, before), digests]

    @app.callback(
        *[Output(f"{slot}-{name}-picture", "figure") for slot in SLOTS for name in TITLES],
        *[Output(f"{slot}-{part}", "children") for part in ("summary", "numbers") for slot in SLOTS],
        *[Output(f"{slot}-spoken", "children") for slot in SLOTS],
        Output("held", "data"),
        [*values, Input("both", "data"), Input("tick", "data"), *[Input(f"{s}-networks", "n_clicks") for s in SLOTS]],
        [State("client", "data"), State("held", "data")],
    )
    def draw(*given: Any) -> Sequence[Any]:
        typed, (both, _, *_, name, held) = given[: len(IDS)], given[len(IDS) :]
        reading = read(fields(typed, both=bool(both)))
        client = desk.client(client_name(name))
        client.want(reading.subjects)
        trigger = str(ctx.triggered_id)
        if trigger.endswith("-networks"):
            client.want_networks(trigger.removesuffix("-networks"))
        versions = held_versions(held)
        found = client.newer(versions, NEXT_WAIT if trigger == "tick" else FIRST_WAIT)
        asked = int(held.get("asked", 0)) + 1 if isinstance(held, dict) else 1
        kept = {slot: one for slot in reading.subjects if slot not in found and (one := client.shown(slot))}
        kept = {slot: one for slot, one in kept.items() if one.version == versions.get(slot)}
        return drawn(reading, found, kept, held, working=client.working, asked=asked)

    @app.callback(
        Output("both", "data"),
        *[Output(field_id(name, "b"), "value") for name in DESIGN],
        Input("second", "n_clicks"),
        [State("both", "data"), *[State(field_id(name, "a"), "value") for name in DESIGN]],
        prevent_initial_call=True,
    )
    def second(clicks: int, both: bool, *first: Any) -> Sequence[Any]:
        return (False, *[no_update for _ in DESIGN]) if both or not clicks else (True, *first)

    for name, control in zip(IDS, (controls()[n] for n, _ in FIELDS), strict=True):
        if control.range is not None:
            app.clientside_callback(
                ClientsideFunction("explore", "sync"),
                Output(name, "value", allow_duplicate=name.startswith("b-")),
                Output(f"{name}-range", "value"),
                Input(name, "value"),
                Input(f"{name}-range", "value"),
                State(f"{name}-range", "name"),
                prevent_initial_call=True,
            )
        if control.choices:
            choose = ClientsideFunction("explore", "choose")
            app.clientside_callback(choose, Output(f"{name}-choice", "data-value"), Input(name, "value"))
    app.clientside_callback(ClientsideFunction("explore", "link"), Output("linked", "data"), Input("query", "data"))
    app.clientside_callback(ClientsideFunction("explore", "next"), Output("asked", "data"), Input("held", "data"))


def fields(given: Sequence[Any], *, both: bool) -> Fields:
    """Return the state of the page.

    **Arguments:**

    - `given`: the values of all fields, in the order of `FIELDS`.
    - `both`: whether the second design is shown.
    """
    typed = dict(zip(FIELDS, given, strict=True))
    shared = values_of({name: typed[name, None] for name in INPUT})
    first, second = (values_of({name: typed[name, slot] for name in DESIGN}) for slot in SLOTS)
    return Fields(shared, (first, second), both)


def client_name(name: Any) -> str:
    """Return the name of a client, which the server gave to the page.

    **Raises:** `ValueError` if it cannot be one of these.
    """
    return uuid.UUID(hex=str(name)).hex


def held_versions(held: Any) -> dict[str, int]:
    """Return the versions of the results that a page shows."""
    versions = held.get("versions", {}) if isinstance(held, dict) else {}
    return {slot: int(versions[slot]) for slot in SLOTS if slot in versions}


def checked(state: Fields, reading: Reading) -> list[Any]:
    """Return errors, hidden fields, the forms of designs to be copied, and the address, in the order of the outputs.

    A form of a design that cannot be read is `None`.
    """
    errors, hidden = [], []
    source = state.input["source"]
    for name, slot in FIELDS:
        errors.append(reading.problems.get(name if slot is None else f"{slot}.{name}", ""))
        unused = "correlation" if source == "text" else "text"
        hidden.append(name == unused if slot is None else name not in visible(state.design(slot)))
    copies = [
        make(reading.subjects[slot]) if slot in reading.subjects else None for slot in SLOTS for make in FORMS.values()
    ]
    looks = ["design" if slot in reading.subjects else "design stale" for slot in SLOTS]
    button = "Remove the second design" if state.both else "Compare with a second design"
    return [
        *errors,
        *hidden,
        *copies,
        not state.both,
        not state.both,
        *looks,
        button,
        f"designs {'two' if state.both else 'one'}",
        state.query,
    ]


def digest(value: Any) -> str:
    """Return a few characters that no other value has: pages say with them what they show, however long that is."""
    return blake2b(repr(value).encode(), digest_size=8).hexdigest()


def changed(now: Sequence[Any], digests: Sequence[str], before: Any) -> list[Any]:
    """Return what the page has to change; every element that is set anew costs it time.

    **Arguments:**

    - `now`: what `checked` returns.
    - `digests`: the digest of each.
    - `before`: the digests of what the page shows, as it says; anything else means that nothing is known.
    """
    old = before if isinstance(before, list) and len(before) == len(now) else [None] * len(now)
    return [
        no_update if value is None or mine == theirs else value
        for value, mine, theirs in zip(now, digests, old, strict=True)
    ]


def drawn(
    reading: Reading, found: Mapping[str, Shown], kept: Mapping[str, Shown], held: Any, *, working: bool, asked: int
) -> list[Any]:
    """Return pictures, summaries and tables that are new, in the order of the outputs.

    **Arguments:**

    - `reading`: the meaning of the fields.
    - `found`: what is new of each design.
    - `kept`: what the page shows already, and is wanted still.
    - `held`: what the page says that it shows.
    - `working`: whether more will come.
    - `asked`: number of this answer; another number makes the page ask again.
    """
    old = held.get("axes") if isinstance(held, dict) else None
    figures, known = redrawn(reading, found, kept, old if isinstance(old, dict) else {})
    versions = held_versions(held)
    summaries: list[Any] = []
    for slot in SLOTS:
        if slot in found:
            summaries.append(summary(found[slot].study, slot))
        elif slot not in reading.subjects:
            summaries.append(waiting(_wrong(reading, slot)))
        else:
            summaries.append(no_update if slot in versions else waiting(None))
    tables = [numbers(found[slot].study) if slot in found else no_update for slot in SLOTS]
    spoken = [_spoken(reading, found, slot) for slot in SLOTS]
    shown = {s: v for s, v in versions.items() if s in reading.subjects} | {s: o.version for s, o in found.items()}
    now = {"versions": shown, "axes": known, "working": working, "asked": asked}
    return [*figures, *summaries, *tables, *spoken, now]


def redrawn(
    reading: Reading, found: Mapping[str, Shown], kept: Mapping[str, Shown], old: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the pictures that are new or get other axes, and the axes of all; two designs have the same.

    **Arguments:**

    - `reading`, `found`, `kept`: as in `drawn`.
    - `old`: the axes of the pictures on the page.
    """
    made = {s: one.pictures for s, one in {**kept, **found}.items() if one.pictures is not None}
    if len(made) == len(SLOTS):
        made = dict(zip(SLOTS, aligned(*(made[slot] for slot in SLOTS)), strict=True))
    elif len(reading.subjects) == len(SLOTS):  # the other one is on its way: no axes change twice
        made = {slot: pictures for slot, pictures in made.items() if slot in found}
    known = dict(old) | {slot: {name: axes(pictures[name]) for name in TITLES} for slot, pictures in made.items()}
    new = {slot for slot in made if slot in found or known[slot] != old.get(slot)}
    figures = [made[slot][name] if slot in new else no_update for slot in SLOTS for name in TITLES]
    return figures, known


def _wrong(reading: Reading, slot: str) -> str:
    """Return which fields have to be corrected before a design can be seen."""
    wrong = {name.removeprefix(f"{slot}.") for name in reading.problems}
    names = ", ".join(control.label for name, control in controls().items() if name in wrong)
    return f"To see this design, correct {names}." if names else "Drawing …"


def _spoken(reading: Reading, found: Mapping[str, Shown], slot: str) -> Any:
    """Return the verdict as readers of the screen hear it, and as a phone shows it at its lower edge."""
    if slot in found:
        return f"{slot.upper()}: {texts.word(found[slot].study)}"
    return no_update if slot in reading.subjects else ""
