"""The tables of a probe: each number over depth as a row of bars, and all layers with their expected bands."""

import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..estimates import CONFIDENCE
from .output import Screen, new_table

if TYPE_CHECKING:
    from ..probe import ProbeResult
    from ..probe.comparison import Comparison

SHOWN = {
    "token_norm": "token norm",
    "mean_absolute_correlation": "mean |ρ|",
    "effective_rank": "eff. rank",
    "branch_share": "branch",
    "gradient_norm": "gradient",
}
"""Numbers in the tables, with the heads of their columns."""

BARS = "▁▂▃▄▅▆▇█"
"""Heights of a bar."""

FLAT = 0.1
"""Range, of a number or of its logarithm, that the bars show at least: less looks flat."""

BELOW = 0.25
"""Shift by which the middle lies inside a height and not between two, so that noise is flat."""

LONGEST = 40
"""Largest number of bars in a row, and of layers in a table."""

ONE_TABLE = 132
"""Columns of a terminal from which on all bands fit into one table."""


def print_layers(screen: Screen, result: "ProbeResult", comparison: "Comparison | None", named: Sequence[str]) -> None:
    """Print both tables.

    **Arguments:**

    - `screen`: where to.
    - `result`: the measurement.
    - `comparison`: where it lies in what is expected; `None` where nothing is.
    - `named`: layers that the table must contain, however long.
    """
    shown = [name for name in SHOWN if name in result.data]
    _print_bars(screen, result, shown)
    prefix, names = shorten(result.layers)
    rows = choose(len(names), {result.layers.index(one) for one in named if one in result.layers})
    title = f"Layers of {prefix}" if prefix else "Layers"
    if comparison is not None:
        screen.line(f"Bands: {CONFIDENCE:.0%} of networks at initialisation stay inside in every layer. Outside: *.")
        screen.line("")
    narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < ONE_TABLE
    groups = [shown[:3], shown[3:]] if comparison is not None and narrow else [shown]
    for group in filter(None, groups):
        _print_rows(screen, result, comparison, group, [(i, names[i]) for i in rows], title)
        title = "The same layers"
    if len(rows) < len(names):
        screen.line(f"… and {counted(len(names) - len(rows), 'more layer')}: --json and --out have all of them.")


def _print_bars(screen: Screen, result: "ProbeResult", shown: Sequence[str]) -> None:
    """Print the course of each number."""
    from ..probe import MEASURES

    table = new_table("", "over depth", title="From the first layer to the last", numbers=("first", "last"))
    table.columns[1].no_wrap = True
    for name in shown:
        values = [float(x) for x in result.mean(name)[result.known(name)]]
        if values:
            bars = sparkline(values, logarithmic=MEASURES[name].positive)
            table.add_row(SHOWN[name], bars, number(values[0]), number(values[-1]))
    screen.table(table)


def _print_rows(
    screen: Screen,
    result: "ProbeResult",
    comparison: "Comparison | None",
    shown: Sequence[str],
    rows: Sequence[tuple[int, str]],
    title: str,
) -> None:
    """Print a table with a row for each layer."""
    heads = [head for name in shown for head in ((SHOWN[name], "band") if comparison else (SHOWN[name],))]
    table = new_table("layer", title=title, numbers=heads)
    for column in table.columns[1:]:
        column.no_wrap = False  # the heads take two lines where there is little room
    table.columns[0].no_wrap = True
    values = {name: result.mean(name) for name in shown}
    there = {name: result.known(name) for name in shown}
    for i, layer in rows:
        cells: list[str] = []
        for name in shown:
            known = there[name][i]
            band = comparison.bands.get(name) if comparison is not None else None
            mark = "*" if known and band is not None and not band.inside[i] else ""
            cells.append(number(float(values[name][i])) + mark if known else "")
            if comparison is not None:
                cells.append(interval(float(band.low[i]), float(band.high[i])) if known and band is not None else "")
        table.add_row(layer, *cells)
    screen.table(table)


def sparkline(values: Sequence[float], *, logarithmic: bool) -> str:
    """Return a row of bars, the lowest for the smallest value and the highest for the largest.

    **Arguments:**

    - `values`: the numbers; of more than `LONGEST`, some are left out.
    - `logarithmic`: whether heights are those of logarithms, where all numbers are positive.
    """
    some = [values[i] for i in choose(len(values), set())]
    heights = [math.log(x) for x in some] if logarithmic and min(some) > 0 else some
    middle, reach = (min(heights) + max(heights)) / 2, max(max(heights) - min(heights), FLAT)
    places = [(x - middle) / reach + 0.5 for x in heights]
    return "".join(BARS[round(place * (len(BARS) - 1) - BELOW)] for place in places)


def choose(count: int, always: set[int], most: int = LONGEST) -> list[int]:
    """Return at most so many numbers below a count, evenly spaced, with first and last; and those of `always`."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)} | always)


def shorten(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the beginning that all dotted names share, and their ends."""
    parts = [name.split(".") for name in names]
    shared = 0
    while all(len(one) > shared + 1 and one[shared] == parts[0][shared] for one in parts):
        shared += 1
    return ".".join(parts[0][:shared]), [".".join(one[shared:]) for one in parts]


def number(x: float) -> str:
    """Return a number with three digits."""
    return f"{x:.3g}"


def interval(low: float, high: float) -> str:
    """Return a band, such as `9.1-10.6`; one number where its ends look the same."""
    ends = number(low), number(high)
    return ends[0] if ends[0] == ends[1] else "-".join(ends)


def as_json(value: Any) -> Any:
    """Return arrays as lists, and numbers that JSON lacks as null."""
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        items = value.tolist() if hasattr(value, "tolist") else value
        return [as_json(one) for one in items] if isinstance(items, (list, tuple)) else as_json(items)
    return None if isinstance(value, float) and not math.isfinite(value) else value
