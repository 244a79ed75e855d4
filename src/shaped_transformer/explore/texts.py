"""What the page says about a design in words and in a table."""

import math
from typing import Any

import numpy as np

from ..analysis.criterion import Criterion, rank_of
from ..errors import counted
from ..estimates import LEVELS, Estimate
from ..observables import OBSERVABLES
from .work import Study

SHOWN = ("mean_token_norm", "rho12", "mean_absolute_correlation", "effective_rank", "smallest_eigenvalue")
"""Observables of the table."""
VIEWS = {"network": "real networks", "chain": "the exact chain", "sde": "the SDE"}
"""What the views are called in a sentence."""
ROWS = {"network": "networks", "chain": "chain", "sde": "SDE"}
"""What the views are called in a table."""
WORDS = {"rho12": "ρ₁₂", "mean_absolute_correlation": "mean |ρ|"}
"""What observables are called here, if not as in the library's texts."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Digits of exponents."""


def number(value: float, *, fixed: bool = True) -> str:
    """Return a number as the page writes it: three digits, and powers of ten where it is very small or large.

    **Arguments:**

    - `value`: the number.
    - `fixed`: whether zeros at the end are kept, default true, so that columns are even.
    """
    size = abs(value)
    if size == 0 or 1e-3 <= size < 999.5:
        text = f"{value:#.3g}" if fixed and size else f"{value:.3g}"
        return text.rstrip(".").replace("-", "−")
    if 1 <= size < 1e4:
        return f"{value:,.0f}".replace("-", "−")
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    power = "10" + str(int(exponent)).translate(RAISED)
    return power if mantissa == "1.0" else f"{mantissa.removesuffix('.0').replace('-', '−')}·{power}"


def progress(study: Study) -> str:
    """Return how many paths were drawn, and whether more follow."""
    parts = [f"{counted(e.samples, 'draw')} of {VIEWS[view]}" for view, e in study.ensembles.items()]
    return ", ".join(parts) + (". Done." if study.done else ". Refining …")


def word(study: Study) -> str:
    """Return the verdict in a word; empty before the first paths."""
    found = study.verdict
    return "" if found is None else found.word


def doubt(study: Study) -> str:
    """Return that the verdict may change with more paths, if it may."""
    found = study.verdict
    return "" if found is None or found.certain else "close to a threshold"


def facts(study: Study) -> list[list[str]]:
    """Return rows of the numbers that decide the verdict: name, value, 95 % interval, and what is wanted."""
    found, wanted = study.verdict, Criterion()
    if found is None:
        return []
    v0 = study.subject.v0
    needed, full = 100 * wanted.probability, rank_of(v0)
    return [
        ["healthy networks", *_shares(found.healthy), f"≥ {needed:g} %"],
        ["exploded networks", *_shares(found.exploded), f"≤ {100 - needed:g} %"],
        [
            "effective rank",
            *_interval(found.effective_rank),
            f"≥ {number(wanted.rank_share * full)} (input {number(full)})",
        ],
        [
            "mean |ρ|",
            *_interval(found.mean_absolute_correlation),
            f"≤ {number(wanted.largest_correlation(v0), fixed=False)}",
        ],
        ["token norm / input’s", *_interval(found.growth), f"≥ {number(wanted.window[0])}"],
    ]


def _shares(found: Estimate[float]) -> list[str]:
    """Return a share and its interval in per cent."""
    value, low, high = (f"{100 * x:.1f}" for x in (found.value, found.low, found.high))
    return [f"{value} %", f"{low}–{high} %"]


def _interval(found: Estimate[float]) -> list[str]:
    """Return a number and its interval."""
    return [number(found.value), f"{number(found.low)}–{number(found.high)}"]


def advised(study: Study) -> str:
    """Return the advice in a sentence, or that it is still being searched for."""
    if study.lacks("No advice"):
        return next(note for note in study.notes if note.startswith("No advice"))
    if study.advice is None:
        return "The strongest stable branches are searched for when the pictures are finished."
    found = study.advice
    training = found.training_gamma
    gamma = (
        "No γ from 0.01 to 1 is surely stable."
        if found.gamma is None
        else f"γ = {found.gamma:.3g} is stable: at least {100 * Criterion().probability:g} % of networks are healthy "
        f"after {counted(study.subject.architecture.depth, 'layer')} (confidence {100 * Criterion().confidence:g} %)."
    )
    return gamma + (f" For training, use the default 0.5/√depth = {training:.3g}." if training is not None else "")


def notes(study: Study) -> list[str]:
    """Return what is not drawn and why, but for the advice."""
    return [note for note in study.notes if not note.startswith("No advice")]


def effects(study: Study) -> list[list[str]]:
    """Return rows about what 10 % more of each parameter changes; none before they are measured."""
    if study.stability is None:
        return []
    return [
        [f"{SYMBOLS.get(e.parameter, e.parameter)} {'+' if e.factor > 1 else '−'}10 %"]
        + [_change(change) for change in (e.healthy.scaled(100), e.mean_absolute_correlation, e.effective_rank)]
        for e in study.stability.effects
    ]


SYMBOLS = {"gamma": "γ", "tau0": "τ0", "c_plus": "c₊", "c_minus": "c₋"}
"""What parameters are called in a table."""


def _change(change: Estimate[Any]) -> str:
    """Return a change with as many decimals as its error has."""
    places = max(0, min(6, -math.floor(math.log10(change.error)))) if change.error > 0 else 3
    return f"{change.value:+.{places}f} ± {change.error:.{places}f}".replace("-", "−")


def table(study: Study) -> list[list[str]]:
    """Return rows of the observables at the last layer: name, view, median, and the ends of the 5–95 % band."""
    rows = []
    for name in SHOWN:
        for view, e in study.ensembles.items():
            if e.tokens >= OBSERVABLES[name].tokens:
                low, median, high = np.quantile(e.observe(name)[:, -1], LEVELS)
                rows.append([WORDS.get(name, OBSERVABLES[name].words), ROWS[view], *map(number, (median, low, high))])
    return rows
