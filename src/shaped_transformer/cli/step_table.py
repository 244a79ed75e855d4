"""The tables of a rehearsal: numbers of each step, changes of each layer, updates of matrices over depth."""

from typing import TYPE_CHECKING

import numpy as np

from ..errors import counted
from .layer_table import choose, number, shorten, sparkline
from .output import Screen, new_table

if TYPE_CHECKING:
    from ..numerics.arrays import Floats
    from ..rehearse import Rehearsal

COLUMNS = 5
"""Largest number of steps in the table of the layers."""


def print_steps(screen: Screen, result: "Rehearsal", named: "list[str]") -> None:
    """Print all tables; numbers are means over draws.

    **Arguments:**

    - `screen`: where to.
    - `result`: the rehearsal.
    - `named`: layers that the table must contain, however long.
    """
    _print_numbers(screen, result)
    if result.data.sizes["step"] > 1:
        _print_updates(screen, result)
        _print_layers(screen, result, named)


def _print_numbers(screen: Screen, result: "Rehearsal") -> None:
    """Print a row for each step."""
    data = result.data.mean("draw")
    steps = data.sizes["step"]
    columns: dict[str, Floats] = {
        "loss": data["loss"].values,
        "output change": data["output_change"].values,
        "largest output": data["output_largest"].values,
    }
    if "attention" in data.coords:
        columns["attention logits"] = data["attention_range"].max("attention").values
    if "update" in data.coords:
        for head, name in (("gradient", "gradient_total"), ("clipped to", "clipped"), ("rate", "rate")):
            values = np.append(data[name].values, np.full(steps - data.sizes["update"], np.nan))
            if name == "gradient_total" or (data[name].values != 1).any():
                columns[head] = values[:steps]
    table = new_table(title="Each step: values before it, and what it changes", numbers=("step", *columns))
    for column in table.columns:
        column.no_wrap = False
    for i in range(steps):
        table.add_row(str(i), *(number(float(one[i])) if np.isfinite(one[i]) else "" for one in columns.values()))
    screen.table(table)


def _print_updates(screen: Screen, result: "Rehearsal") -> None:
    """Print the course of the effective update over depth, for each kind of matrix."""
    table = new_table(
        "", "over depth", title="Effective update ‖xΔW‖/‖xW‖ of a step, mean", numbers=("first", "last", "most")
    )
    table.columns[1].no_wrap = True
    for role, effects in result.effect_by_role().items():
        values = [float(x) for x in effects.mean(("draw", "update")).values]
        bars = sparkline(values, logarithmic=True) if len(values) > 1 else ""
        table.add_row(role, bars, number(values[0]), number(values[-1]), number(max(values)))
    if table.row_count:
        screen.table(table)


def _print_layers(screen: Screen, result: "Rehearsal", named: "list[str]") -> None:
    """Print the change of each layer's tokens after each step."""
    changes = result.data["stream_change"].mean("draw").values
    steps = [1 + i for i in choose(len(changes) - 1, set(), COLUMNS)]
    prefix, names = shorten(result.layers)
    rows = choose(len(names), {result.layers.index(one) for one in named if one in result.layers})
    title = "Relative change of the tokens since step 0" + (f": layers of {prefix}" if prefix else "")
    table = new_table("layer", title=title, numbers=[f"step {i}" for i in steps])
    table.columns[0].no_wrap = True
    for i in rows:
        table.add_row(names[i], *(number(float(changes[step, i])) for step in steps))
    screen.table(table)
    if len(rows) < len(names):
        screen.line(f"… and {counted(len(names) - len(rows), 'more layer')}: --json and --out have all of them.")
