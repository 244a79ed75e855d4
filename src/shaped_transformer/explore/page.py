"""The page: controls on the left, results on the right. Plain functions from states and studies to Dash components."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from ..errors import counted
from . import texts
from .controls import BLANK, OCTAVES, Control, controls
from .pictures import TITLES, empty
from .state import DESIGN, INPUT, SLOTS, State
from .work import Study

COPIES = {"python": "Python", "json": "JSON", "command": "Command"}
"""The forms in which a design can be copied."""
LONGEST = 20_000
"""Characters that the text's field takes at all; far fewer are accepted."""
GRAPH: Any = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
"""What can be done with a picture."""
READING = (
    "Chain and real networks have the same distribution at every width; the SDE is their limit of large depth and "
    "width. If the curves of chain and SDE agree, the limit describes this network.",
    "Correlation near 1 means that the tokens have become parallel, and the network cannot tell them apart. A norm "
    "that falls or rises by orders of magnitude vanishes or explodes.",
    "The table under a verdict gives shares of networks and medians over networks, beside the verdict's thresholds. "
    "A network is healthy if all eigenvalues of V stay in a window up to the last layer, from 10⁻⁴ to 10⁴ times the "
    "input's mean token norm, if it keeps at least half of the input's effective rank, and if its mean |ρ| is at most "
    "0.9. The last picture counts networks that have left this window by each layer.",
    "Two designs have the same axes. After a double click on a picture it shows all of itself again.",
)
"""How to read the pictures."""
VERDICTS = {"stable": "good", "losing rank": "fair", "collapsing": "bad", "exploding": "bad"}
"""The look of each verdict."""


def _called(name: str) -> dict[str, Any]:
    """Return the attribute that names an element for readers of the screen."""
    return {"aria-label": name}


def _called_as(other: str) -> dict[str, Any]:
    """Return the attribute that gives an element the text of another one as its name."""
    return {"aria-labelledby": other}


def _polite() -> dict[str, Any]:
    """Return the attribute that has readers of the screen say what changes in an element, when they are free."""
    return {"aria-live": "polite"}


def _copies(source: str) -> dict[str, Any]:
    """Return the attribute that makes a button copy the text of an element, or the address: `"link"`."""
    return {"data-copy": source}


def frame() -> Any:
    """Return what is there before the address is read."""
    return html.Div([dcc.Location(id="address", refresh=False), html.Div(id="page")])


def page(state: State, client: str) -> list[Any]:
    """Return the page of a state.

    **Arguments:**

    - `state`: what the fields hold.
    - `client`: the name under which the page asks for results.
    """
    stores = [
        dcc.Store(id=name, data=data)
        for name, data in (
            ("client", client),
            ("both", state.both),
            ("query", None),
            ("checked", None),
            ("held", None),
            ("tick", 0),
            ("linked", None),
            ("asked", None),
        )
    ]
    return [
        *stores,
        html.A("Skip to the results", href="#results", className="skip"),
        html.Header(
            [
                html.H1("Shaped Transformer explorer"),
                html.P(
                    "What a deep network does to its tokens at initialisation. Move a control: the first picture comes "
                    "at once, and becomes more precise while you look."
                ),
            ]
        ),
        html.Div([_panel(state), _results(client)], className="page"),
    ]


def field_id(name: str, slot: str | None) -> str:
    """Return the id of a field's element: `gamma` of the first design is `a-gamma`."""
    return name if slot is None else f"{slot}-{name}"


def _panel(state: State) -> Any:
    """Return the controls."""
    order = [name for name in controls() if name in INPUT]
    parts = [_fieldset("Input", None, [_field(controls()[n], None, state.input[n]) for n in order])]
    for slot in SLOTS:
        names = [name for name in controls() if name in DESIGN]
        fields = [_field(controls()[name], slot, state.design(slot)[name]) for name in names]
        parts.append(_fieldset(f"Design {slot.upper()}", slot, fields))
    more = [
        html.Button("Compare with a second design", id="second", type="button", n_clicks=0),
        html.Button("Copy link", id="copy-link", type="button", **_copies("link")),
    ]
    meanings = html.Details(
        [
            html.Summary("What the controls mean"),
            html.Dl(
                [x for c in controls().values() for x in (html.Dt(c.label), html.Dd(c.help[0].upper() + c.help[1:]))]
            ),
        ]
    )
    return html.Aside([*parts, html.Div(more, className="buttons"), meanings], **_called("Controls"))


def _fieldset(legend: str, slot: str | None, fields: Sequence[Any]) -> Any:
    """Return a group of fields."""
    name = "input" if slot is None else slot
    return html.Fieldset([html.Legend(legend), *fields], id=f"{name}-fields", className=f"design-{name}")


def _field(control: Control, slot: str | None, text: str) -> Any:
    """Return a field: its label, its control, and the place of its error."""
    name = field_id(control.name, slot)
    label: Any = html.Label(control.label, htmlFor=name, title=control.help)
    if control.choices:
        label = html.Label(control.label, htmlFor=f"{name}-choice", title=control.help)
        options = [html.Option(control.option(value), value=value) for value in control.choices]
        inner: list[Any] = [html.Select(options, id=f"{name}-choice"), dcc.Input(id=name, type="hidden", value=text)]
    elif control.range is None:
        inner = [dcc.Textarea(id=name, value=text, rows=3, maxLength=LONGEST)]
    else:
        inner = [_slider(control, name, text), _number(control, name, text)]
    return html.Div(
        [label, html.Div(inner, className="control"), html.P(id=f"{name}-error", className="error", **_polite())],
        id=f"{name}-field",
        className="field",
    )


def _number(control: Control, name: str, text: str) -> Any:
    """Return the field in which a number is typed."""
    return dcc.Input(
        id=name,
        type="text",
        value=text,
        placeholder=BLANK.get(control.name, ""),
        maxLength=40,
        className="number",
        autoComplete="off",
        inputMode="numeric" if control.whole else "verbatim",
    )


def _slider(control: Control, name: str, text: str) -> Any:
    """Return a slider; on a logarithmic one the values are exponents of 10."""
    from math import log10

    low, high = control.range or (0.0, 1.0)
    try:
        value = float(text)
    except ValueError:
        value = low
    value = min(max(value, low), high)
    if control.logarithmic:
        low, high, value = log10(low), log10(high), log10(value)
    if control.whole:
        step = log10(2) * OCTAVES.get(control.name, 1 / 8) if control.logarithmic else 1.0
    else:
        step = (high - low) / 400
    kind = f"{'log' if control.logarithmic else 'linear'} {'whole' if control.whole else 'real'}"
    slider = dcc.Input(id=f"{name}-range", type="range", min=low, max=high, step=step, value=value, name=kind)
    return html.Label([html.Span(f"{control.label}, slider", className="hidden"), slider], className="range")


def _results(client: str) -> Any:
    """Return the results of both designs."""
    sections = [_section(slot, client) for slot in SLOTS]
    reading = html.Details([html.Summary("How to read the pictures"), *map(html.P, READING)], className="reading")
    spoken = [html.Span(id=f"{slot}-spoken", className="spoken", role="status") for slot in SLOTS]
    verdicts = html.A(spoken, href="#results", className="verdicts")
    parts = [_key(), html.Div(sections, id="designs", className="designs"), reading, verdicts]
    return html.Main(parts, id="results", tabIndex=-1)


def _key() -> Any:
    """Return the key of all pictures."""
    entries = {
        "chain": "exact chain: median and 5–95 % band",
        "sde": "SDE (limit): median and 5–95 %",
        "network": "real networks, where drawn",
    }
    items = [html.Li([html.Span(className=f"mark {view}"), label]) for view, label in entries.items()]
    return html.Ul(items, className="key", **_called("Key of the pictures"))


def _section(slot: str, client: str) -> Any:
    """Return the results of a design."""
    graphs = [
        html.Figure(
            [
                html.Figcaption(title, id=f"{slot}-{name}-title"),
                dcc.Graph(
                    id=f"{slot}-{name}-picture",
                    figure=empty(),
                    config=GRAPH,
                    responsive=True,
                    style={"height": "240px"},
                ),
            ],
            **_called_as(f"{slot}-{name}-title"),
        )
        for name, title in TITLES.items()
    ]
    files = [
        html.A(label, href=f"download/{client}/{slot}/{file}", download=f"design-{slot}-{file}", className="button")
        for label, file in (("Dataset", "dataset.zip"), ("Picture", "picture.png"))
    ]
    copies = [
        html.Div(
            [
                html.Button(f"Copy {label}", type="button", **_copies(f"{slot}-{form}")),
                html.Pre(id=f"{slot}-{form}", tabIndex=0, **_called(f"Design {slot.upper()} as {label}")),
            ]
        )
        for form, label in COPIES.items()
    ]
    return html.Section(
        [
            html.H2(f"Design {slot.upper()}", id=f"{slot}-heading"),
            html.Div(id=f"{slot}-summary"),
            html.Div(graphs, className="pictures"),
            html.Div(
                [html.Button("Draw real networks", id=f"{slot}-networks", type="button", n_clicks=0), *files],
                className="buttons",
            ),
            html.Details([html.Summary("Numbers"), html.Div(id=f"{slot}-numbers")]),
            html.Details([html.Summary("Copy this design"), *copies], className="copies"),
        ],
        id=f"{slot}-section",
        className="design",
        **_called_as(f"{slot}-heading"),
    )


def summary(study: Study, slot: str) -> list[Any]:
    """Return the verdict, the advice, and what could not be drawn."""
    word, doubt = texts.word(study), texts.doubt(study)
    depth = counted(study.subject.architecture.depth, "layer")
    columns = (f"After {depth}", "value", "95 % interval", "threshold")
    facts = _table("", columns, texts.facts(study), "facts", f"Verdict on design {slot.upper()}")
    return [
        html.P(
            [
                html.Strong(word, className=f"word {VERDICTS.get(word, '')}"),
                html.Span(doubt, className="doubt"),
                html.Span(texts.progress(study), className="note"),
            ],
            className="verdict",
        ),
        *([facts] if study.verdict is not None else []),
        html.P([html.Strong("Advice. "), texts.advised(study)]),
        *[html.P(note, className="note") for note in texts.notes(study)],
    ]


def waiting(problem: str | None) -> list[Any]:
    """Return what stands for the summary while there is none."""
    return [html.P(problem or "Drawing …", className="note")]


def numbers(study: Study) -> list[Any]:
    """Return the tables: the observables at the last layer, and the effects of the parameters."""
    tables = [_table("At the last layer", ("", "view", "median", "5 %", "95 %"), texts.table(study), "views")]
    if rows := texts.effects(study):
        columns = ("", "healthy networks, %", "mean |ρ|", "effective rank")
        tables.append(_table("What 10 % more changes (± standard error)", columns, rows, "effects"))
    return tables


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], look: str, name: str = "") -> Any:
    """Return a table that scrolls by itself; it has a name for readers of the screen if it has no caption."""
    head = html.Thead(html.Tr([html.Th(column, scope="col") for column in columns]))
    body = html.Tbody([html.Tr([html.Th(row[0], scope="row"), *map(html.Td, row[1:])]) for row in rows])
    table = html.Table([html.Caption(caption), head, body] if caption else [head, body], className=look)
    return html.Div(table, className="scroll", tabIndex=0, role="region", **_called(caption or name))


def values_of(texts_: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of fields as text; an emptied one is `None`."""
    return {name: "" if value is None else str(value) for name, value in texts_.items()}
