"""What the page says about a design in words and in a table."""

from typing import Any

import numpy as np

from ..errors import counted
from ..estimates import LEVELS, Estimate
from ..observables import OBSERVABLES
from ..plotting.style import LABELS
from .work import Study

SHOWN = ("mean_token_norm", "rho12", "mean_absolute_correlation", "effective_rank", "smallest_eigenvalue")
"""Observables of the table."""


def progress(study: Study) -> str:
    """Return how many paths were drawn, and whether more follow."""
    parts = [f"{counted(e.samples, 'draw')} of {LABELS[view]}" for view, e in study.ensembles.items()]
    return ", ".join(parts) + (". Done." if study.done else ". Refining …")


def judgement(study: Study) -> tuple[str, str]:
    """Return the verdict in a word and in a sentence."""
    found = study.verdict
    if found is None:
        return "", ""
    word, _, rest = found.sentence.partition(": ")
    doubt = "" if found.certain else " Close to a threshold."
    return word, f"{rest[0].upper()}{rest[1:]}.{doubt}"


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
        else f"γ = {found.gamma:.3g} is stable: {found.sentence.partition('; ')[2]}."
    )
    return gamma + (f" For training take 0.5/√depth = {training:.3g}." if training is not None else "")


def notes(study: Study) -> list[str]:
    """Return what is not drawn and why, but for the advice."""
    return [note for note in study.notes if not note.startswith("No advice")]


def effects(study: Study) -> list[list[str]]:
    """Return rows about what 10 % more of each parameter changes; none before they are measured."""
    if study.stability is None:
        return []
    return [
        [f"{e.parameter} {'+' if e.factor > 1 else '−'}10 %"]
        + [_change(change) for change in (e.healthy.scaled(100), e.mean_absolute_correlation, e.effective_rank)]
        for e in study.stability.effects
    ]


def _change(change: Estimate[Any]) -> str:
    return f"{change.value:+.2g} ± {change.error:.1g}"


def table(study: Study) -> list[list[str]]:
    """Return rows of the observables at the last layer: name, view, median, and the ends of the 5–95 % band."""
    rows = []
    for name in SHOWN:
        for view, e in study.ensembles.items():
            if e.tokens >= OBSERVABLES[name].tokens:
                low, median, high = np.quantile(e.observe(name)[:, -1], LEVELS)
                rows.append([OBSERVABLES[name].words, LABELS[view], *(f"{x:.3g}" for x in (median, low, high))])
    return rows
