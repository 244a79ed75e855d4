"""The verdict in plain words: what goes wrong, at which layers, and whether initialisation or training did it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import counted
from ..numerics.arrays import Floats
from .comparison import Comparison
from .measures import MEASURES
from .result import ProbeResult

COLLAPSED = 0.8
"""Mean |ρ| above which tokens count as collapsed, where it was lower at the input by `RISE` or more."""

RISE = 0.2
"""Rise of the mean |ρ| from the input that a collapse has."""

FACTOR = 1e4
"""Ratio of token norms, or of gradients, between layers above which they explode or vanish."""

LARGE = 100.0
"""The same ratio above which a change is said, and is not bad."""

DEAD = 1e-12
"""Share of a branch in the stream below which its block does nothing."""

MOST = 0.8
"""Share of a change that lies between the layers that are named."""


SANE = "The signal is sane: tokens stay apart, and neither they nor their gradients explode or vanish."
"""What is said of a model in which nothing bad was found."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    **Arguments:**

    - `name`: of a probe, "not finite", "infinite gradients", "dead block", "collapse", "explosion", "fading tokens",
      "vanishing gradients", "exploding gradients", "large change" or "unusual".
    - `layer`: where it is, or where it is complete.
    - `sentence`: in plain words, with numbers.
    - `advice`: what to try; empty where there is nothing to mend.
    - `bad`: whether the verdict is bad because of it. That a model differs from its initialisation is not bad.
    """

    name: str
    layer: str
    sentence: str
    advice: str = ""
    bad: bool = True


@dataclass(frozen=True)
class Verdict:
    """All findings, those that come first in the model first.

    **Arguments:**

    - `findings`: the findings; empty where all is well.
    - `sane`: what is said first where nothing bad was found.
    """

    findings: tuple[Finding, ...]
    sane: str = SANE

    @property
    def good(self) -> bool:
        """Whether nothing bad was found."""
        return not any(finding.bad for finding in self.findings)

    @property
    def sentence(self) -> str:
        """The whole in plain words."""
        opening = [self.sane] if self.good else []
        return " ".join(opening + [finding.sentence for finding in self.findings])

    @property
    def advice(self) -> tuple[str, ...]:
        """What to try, each thing once."""
        return tuple(dict.fromkeys(finding.advice for finding in self.findings if finding.advice))


def judge(result: ProbeResult, comparison: Comparison | None = None) -> Verdict:
    """Return the verdict on a measurement.

    ```python
    model = st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    print(st.probe.judge(st.probe.run(model, torch.randn(1, 8, 64))).sentence)
    ```

    **Arguments:**

    - `result`: the measurement, as `run` returns it.
    - `comparison`: where it lies in what the initialisation would do, as `result.compare` returns it; default none.

    **Returns:** the verdict: `sentence` in plain words, `good`, `findings`, and `advice`, what to try.
    """
    findings = [
        *_broken(result),
        *_dead(result),
        *_collapse(result, comparison),
        *_norms(result, comparison),
        *_gradients(result, comparison),
        *_unusual(comparison),
    ]
    return Verdict(tuple(findings))


def span(y: Floats) -> tuple[int, int]:
    """Return the layers i < j between which the largest fall of a sequence takes place, `MOST` of it at least."""
    highest = np.maximum.accumulate(y)
    low = int(np.argmax(highest - y))
    high = int(np.argmax(y[: low + 1]))
    drop = y[high] - y[low]
    edge = (1 - MOST) / 2
    part = y[high : low + 1]
    start = high + int(np.flatnonzero(part >= y[high] - edge * drop)[-1])
    after = np.flatnonzero(y[start : low + 1] <= y[low] + edge * drop)
    return start, start + int(after[0])


def _broken(result: ProbeResult) -> Iterator[Finding]:
    """Infinite or undefined tokens and gradients."""
    layer = result.settings["not_finite"]
    if layer is not None:
        yield Finding(
            "not finite",
            layer,
            f"Tokens are infinite or undefined from {layer} on.",
            f"Look at the weights of {layer} and at its input: the largest eigenvalue of V before it is "
            f"{result.mean('largest_eigenvalue')[-1]:.3g}.",
        )
    elif "infinite" in result.settings["gradient"]:
        sentence = f"No gradients: {result.settings['gradient']}."
        yield Finding("infinite gradients", "", sentence, "Lower the scale of the loss, or use float32.")


def _dead(result: ProbeResult) -> Iterator[Finding]:
    """Blocks that return their input."""
    shares = result.data["branch_share"].max("sequence").values
    known = result.known("branch_share")
    dead = [result.layers[i] for i in np.flatnonzero(known & (shares < DEAD))]
    if dead:
        others = f" and {counted(len(dead) - 1, 'more block')} return their" if len(dead) > 1 else " returns its"
        yield Finding(
            "dead block",
            dead[0],
            f"{dead[0]}{others} input unchanged: the branches are zero.",
            "Look for output weights or gains that are zero. Some designs start at zero on purpose (Fixup, ReZero, "
            "SkipInit); the block must then have a gradient.",
        )


def stacks(layers: list[str]) -> list[slice]:
    """Return the stacks of layers, whose names differ in their numbers only, such as an encoder and a decoder."""
    kinds = [
        re.sub(r"\d+", "*", re.sub(r"#\d+$|\.input$", "", name) + (".0" if name.endswith(".input") else ""))
        for name in layers
    ]
    starts = [i for i in range(len(layers)) if i == 0 or kinds[i] != kinds[i - 1]]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(layers)], strict=True)]


def _collapse(result: ProbeResult, comparison: Comparison | None) -> Iterator[Finding]:
    """Tokens that turn into the same vector."""
    for part in stacks(result.layers):
        layers = result.layers[part]
        rho, rank = result.mean("mean_absolute_correlation")[part], result.mean("effective_rank")[part]
        worst = int(np.argmax(rho))
        if rho[worst] < COLLAPSED or rho[worst] - rho[0] < RISE:
            continue
        start, end = span(np.log(rank[: worst + 1]))
        yield Finding(
            "collapse",
            layers[end],
            f"Tokens collapse {_between(layers, start, end)}: effective rank {rank[start]:.3g} → {rank[end]:.3g}, "
            f"mean |ρ| {rho[start]:.2g} → {rho[end]:.2g}{_origin(comparison, 'effective_rank', part.start + end)}.",
            "Give each branch a skip connection and weaken the branch beside it, normalise before each branch instead "
            "of after the sum, or shape the attention (st.hf.shape_).",
        )


def _norms(result: ProbeResult, comparison: Comparison | None) -> Iterator[Finding]:
    """Token norms that explode or fade from the first block on; embeddings may have any norm."""
    for part in stacks(result.layers):
        first = part.start + (result.layers[part.start].endswith("input") and part.stop - part.start > 1)
        yield from _changes(
            "token_norm",
            {"explosion": ("The token norm grows", -1), "fading tokens": ("The token norm falls", 1)},
            result,
            comparison,
            list(range(first, part.stop)),
            "Normalise before each branch, or scale the branches or their initial weights with depth.",
        )


def _gradients(result: ProbeResult, comparison: Comparison | None) -> Iterator[Finding]:
    """Gradients that vanish or explode on their way from the last layer to the first."""
    if "gradient_norm" not in result.data:
        return
    known = result.known("gradient_norm")
    for part in stacks(result.layers):
        order = [i for i in range(part.start, part.stop)[::-1] if known[i]]
        if not order:
            continue
        yield from _changes(
            "gradient_norm",
            {
                "vanishing gradients": ("On the way back, the gradient of the tokens falls", 1),
                "exploding gradients": ("On the way back, the gradient of the tokens grows", -1),
            },
            result,
            comparison,
            order,
            "Weaken the branches, or normalise before each branch: the gradient then keeps its size on the skip.",
        )


def _changes(
    measure: str,
    kinds: dict[str, tuple[str, int]],
    result: ProbeResult,
    comparison: Comparison | None,
    order: list[int],
    advice: str,
) -> Iterator[Finding]:
    """Yield findings about a positive number that changes by more than `FACTOR` along layers.

    **Arguments:**

    - `measure`: the number.
    - `kinds`: name of a finding → beginning of its sentence, and 1 for a fall, −1 for a growth.
    - `order`: numbers of the layers, in the order of the signal.
    - `advice`: what to try.
    """
    logarithms = np.log(np.maximum(result.mean(measure)[order], 1e-300))
    layers = [result.layers[i] for i in order]
    for name, (beginning, sign) in kinds.items():
        start, end = span(sign * logarithms)
        change = abs(float(logarithms[start] - logarithms[end]))
        sentence = f"{beginning} by a factor of {np.exp(min(change, 690)):.2g} {_between(layers, start, end)}"
        if change > np.log(FACTOR):
            yield Finding(name, layers[end], f"{sentence}{_origin(comparison, measure, order[end])}.", advice)
        elif change > np.log(LARGE):
            limit = f"it counts as bad from {FACTOR:,.0f} on"
            yield Finding("large change", layers[end], f"{sentence}; {limit}.", bad=False)


def _unusual(comparison: Comparison | None) -> Iterator[Finding]:
    """Layers that do what the initialisation hardly ever would."""
    if comparison is None or not (found := comparison.unusual()):
        return
    scores: dict[str, float] = {}
    for layers in found.values():
        for layer, score in layers.items():
            scores[layer] = max(scores.get(layer, 0.0), score)
    layer = max(scores, key=lambda one: scores[one])
    measure = max((name for name in found if layer in found[name]), key=lambda name: found[name][layer])
    band, i = comparison.bands[measure], comparison.layers.index(layer)
    others = len(scores) - 1
    where = f"{layer} and {others} other layer{'s' if others > 1 else ''} differ" if others else f"Only {layer} differs"
    title = MEASURES[measure].title
    if i and MEASURES[measure].carried:
        change = f"{band.value[i - 1]:.3g} → {band.value[i]:.3g}"
        numbers = f"{title} {change} there, a change that initialisation hardly ever makes"
    else:
        numbers = f"{title} {band.value[i]:.3g} there, initialisation {band.low[i]:.3g}–{band.high[i]:.3g}"
    yield Finding(
        "unusual",
        layer,
        f"{where} from initialisation ({comparison.label}, {comparison.draws} draws)"
        f"{f', {layer} most' if others else ''}: {numbers}.",
        bad=False,
    )


def _between(layers: list[str], start: int, end: int) -> str:
    """Return "between … and …", or "at …"."""
    return f"at {layers[end]}" if start == end else f"between {layers[start]} and {layers[end]}"


def _origin(comparison: Comparison | None, measure: str, layer: int) -> str:
    """Return what the initialisation does there, and so whether it or training did this."""
    if comparison is None or measure not in comparison.bands:
        return ""
    band = comparison.bands[measure]
    inside = bool(band.inside[layer])
    return f"; the initialisation's band there is {band.low[layer]:.3g}–{band.high[layer]:.3g}, so " + (
        "the design does this by itself" if inside else "training or other weights did this"
    )
