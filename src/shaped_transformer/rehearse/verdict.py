"""The verdict on a rehearsal in plain words: what runs away, in which layer and at which step, and what to try."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import counted
from ..numerics.arrays import Floats
from ..probe.verdict import Finding, Verdict
from .rehearsal import Rehearsal
from .roles import KEY, OTHER, QUERY, ROUTER, VALUE

if TYPE_CHECKING:
    import xarray

RISE = 0.1
"""Part of the first loss by which a later one lies above it in a finding. At initialisation the loss is that of a
guess, which a sane step hardly makes worse on the tokens that it was trained on."""

LOGITS = 30.0
"""Size of logits, or of their differences in a row of attention, beyond which they run away: of two entries of a
softmax one is e³⁰ = 10¹³ times the other then, more than single precision resolves, so that only one token counts.
Gemma 2 caps the logits of its outputs at 30 too."""

GROWTH = 3.0
"""Growth of the largest logit from the start that belongs to a finding: outputs that are no logits may be large from
the start."""

MEASURABLE = 100.0
"""Difference of attention logits beyond which weights are 0 in single precision, so that it is known as a bound."""

FASTER = 2.0
"""Ratio of the effective updates of queries and keys to those of values from which on it is said."""

STEP = 1.0
"""Change of a layer's tokens in one step, over their size, above which the step is too large: afterwards they have more
in common with the step than with what they were, and nothing that later layers learn about them stays true."""

UNEVEN = 10.0
"""Ratio of effective updates of one kind of matrix between blocks above which no one rate fits them all: what is right
for one is ten times too much or too little for another. Between kinds it is said, and is not bad: output matrices that
start at 1/√(2d) of the others, as GPT-2's with d blocks, move by √(2d) times the share."""

CLIPPED = 10.0
"""By how much clipping divides the gradient in every step where it is said."""

WARM = 0.1
"""Part of the full rate below which warm-up keeps all rehearsed steps where it is said: they tell little about what the
full rate does."""

LONGEST = 100_000
"""Number of steps up to which a warm-up is advised: about as many as whole trainings have."""

MARKS = {"stream_change": STEP, "attention_range": LOGITS, "output_largest": LOGITS}
"""Lines in pictures, beyond which numbers are too large."""

SLOWER = "Lower the rate, or warm up"
"""Advice for steps that are too large, which may go on."""

MOST = 3
"""So many names are given where a finding concerns several."""


def judge(result: Rehearsal) -> Verdict:
    """Return the verdict on a rehearsal; numbers are means over its draws.

    ```python
    from shaped_transformer.rehearse.verdict import judge
    factory = lambda: st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    print(judge(st.rehearse.run(factory, torch.randn(1, 8, 64), lr=1e-4)).sentence)
    ```

    **Arguments:**

    - `result`: the rehearsal.
    """
    findings = [
        *_broken(result),
        *_loss(result),
        *_steps(result),
        *_attention(result),
        *_outputs(result),
        *_uneven(result),
        *_still(result),
        *_clipping(result),
        *_warmup(result),
        *_interrupted(result),
    ]
    findings = _advise_once(findings)
    made = result.data.sizes["step"] - 1
    sane = f"The first {counted(made, 'step')} are sane" if made > 1 else "The first step is sane"
    return Verdict(
        tuple(findings),
        f"{sane}: nothing runs away, no layer changes by more than its size in a step, and each kind of matrix moves "
        "by a similar share in all blocks."
        if made
        else "No step was taken.",
    )


def mean(result: Rehearsal, name: str) -> Floats:
    """Return a number, mean over draws."""
    return np.asarray(result.data[name].mean("draw").values, dtype=float)


def step_changes(result: Rehearsal) -> Floats:
    """Return by how much each layer's tokens change in a step at least, over their size before it, (updates, layers).

    The first is ‖X₁ − X₀‖/‖X₀‖. Later ones are bounds from below, (‖X_s − X₀‖ − ‖X_{s−1} − X₀‖)/‖X_{s−1}‖.
    """
    far, norms = mean(result, "stream_change"), mean(result, "token_norm")
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.sqrt(norms[:-1] / norms[0])
        return np.nan_to_num(np.diff(far, axis=0) / sizes, nan=0.0, posinf=0.0)


def rounded(x: float) -> str:
    """Return a number with two digits, and without exponent below a million."""
    return f"{float(f'{x:.2g}'):,.10g}" if 1e-4 <= abs(x) < 1e6 else f"{x:.2g}"


def _broken(result: Rehearsal) -> Iterator[Finding]:
    """Numbers that become infinite or undefined."""
    ended = result.settings["ended"]
    if ended is None or "interrupted" in ended:
        return
    place = re.search(r"step \d+, .*(?:at|of) (\S+)$|step \d+: (\S+)", ended)
    yield Finding(
        "not finite",
        next(filter(None, place.groups()), "") if place else "",
        f"{ended[0].upper()}{ended[1:]}; the measurements end before it.",
        _slower(result),
    )


def _slower(result: Rehearsal, change: float = 0.0) -> str:
    """Return advice for steps that are too large, with a change of so many sizes in the worst."""
    warmup = max(result.settings["warmup"], 1)
    needed = _round_up(change * warmup) if change else 0
    if needed > LONGEST:
        return "Lower the rate."
    steps = f" over {needed:,} steps or more" if change else " longer" if warmup > 1 else ""
    return f"{SLOWER}{steps}."


def _advise_once(findings: list[Finding]) -> list[Finding]:
    """Take advice to lower the rate or warm up from all findings but those that say over how many steps."""
    if not any(finding.advice.startswith(f"{SLOWER} over ") for finding in findings):
        return findings
    vague = (f"{SLOWER}.", f"{SLOWER} longer.")
    return [replace(finding, advice="") if finding.advice in vague else finding for finding in findings]


def _loss(result: Rehearsal) -> Iterator[Finding]:
    """A loss above that at initialisation."""
    loss = mean(result, "loss")
    worst = int(np.argmax(loss))
    if loss[worst] - loss[0] > RISE * abs(loss[0]):
        last = f", and is {loss[-1]:.3g} at the last step" if worst < len(loss) - 1 else ""
        yield Finding(
            "rising loss",
            "",
            f"The loss rises from {loss[0]:.3g} to {loss[worst]:.3g} at step {worst}{last}.",
            _slower(result),
        )


def _steps(result: Rehearsal) -> Iterator[Finding]:
    """Tokens that change by more than their size in one step."""
    change = step_changes(result)
    if not change.size or change.max() <= STEP:
        return
    update, layer = (int(i) for i in np.unravel_index(np.argmax(change), change.shape))
    others = int((change > STEP).any(0).sum()) - 1
    changes = "changes by more than its" if others == 1 else "change by more than their"
    more = f"; {counted(others, 'more layer')} {changes} own size" if others else ""
    least = "at least " if update else ""
    name = result.layers[layer]
    yield Finding(
        "large step",
        name,
        f"Step {update + 1} changes the tokens after {name} by {least}{rounded(change[update, layer])} times their size"
        f"{more}.",
        _slower(result, change[update, layer]),
    )


def _round_up(x: float) -> int:
    """Return a round number of steps over which a warm-up makes a change of so many sizes a small one."""
    wanted = max(10 * x, 10.0)
    power = 10 ** int(np.log10(wanted))
    return int(next(one * power for one in (1, 2, 5, 10) if one * power >= wanted))


def _attention(result: Rehearsal) -> Iterator[Finding]:
    """Attention logits that run away, and how much faster than values queries and keys move."""
    if "attention_range" not in result.data:
        return
    reach = mean(result, "attention_range")
    if reach.max() <= LOGITS:
        return
    step = int(np.flatnonzero(reach.max(1) > LOGITS)[0])
    layer = int(np.argmax(reach[step]))
    name = str(result.data["attention"].values[layer])
    size = f"{min(reach[step, layer], MEASURABLE):.3g}" + (" or more" if reach[step, layer] > MEASURABLE else "")
    before = "before the first step"
    when = before if step == 0 else f"at step {step}, by {rounded(reach[0, layer])} {before}"
    ratio = _faster(result)
    moves = (
        f"Queries and keys move {rounded(ratio)} times as far as values; attention" if ratio > FASTER else "Attention"
    )
    yield Finding(
        "attention logits",
        name,
        f"{moves} logits in {name} differ by more than {LOGITS:g}: by {size} {when}.",
        "Lower the rate of queries and keys, or normalise them.",
    )


def _faster(result: Rehearsal) -> float:
    """Return the effective update of queries and keys over that of values, 0 where it is not known."""
    by_role = result.effect_by_role()
    sizes = [_typical(by_role[one]) for one in (QUERY, KEY) if one in by_role]
    if not sizes or VALUE not in by_role or not _typical(by_role[VALUE]) > 0:
        return 0.0
    return float(np.exp(np.mean(np.log(sizes)))) / _typical(by_role[VALUE])


def _typical(effects: "xarray.DataArray") -> float:
    """Return the median of what is known."""
    return float(effects.median())


def _outputs(result: Rehearsal) -> Iterator[Finding]:
    """Output logits that run away."""
    largest = mean(result, "output_largest")
    worst = int(np.argmax(largest))
    if largest[worst] > LOGITS and largest[worst] > GROWTH * largest[0]:
        yield Finding(
            "output logits",
            "",
            f"The largest output grows from {rounded(largest[0])} to {rounded(largest[worst])} at step {worst}.",
            "Lower the rate of the head and of the embeddings, or add a z-loss.",
        )


def _uneven(result: Rehearsal) -> Iterator[Finding]:
    """Matrices of one kind that move by very different shares over the blocks, and kinds that do."""
    kinds: dict[str, float] = {}
    for role, effects in result.effect_by_role().items():
        if role in (OTHER, ROUTER):
            continue
        values = np.asarray(effects.values).reshape(-1, effects.sizes["block"])
        sizes: dict[str, float] = {}
        for name, column in zip(map(str, effects["block"].values), values.T, strict=True):
            known = column[np.isfinite(column) & (column > 0)]
            if name and known.size:
                sizes[name] = float(np.exp(np.log(known).mean()))
        if not sizes:
            continue
        kinds[role] = float(np.exp(np.mean(np.log([*sizes.values()]))))
        high, low = max(sizes, key=lambda one: sizes[one]), min(sizes, key=lambda one: sizes[one])
        if sizes[high] > UNEVEN * sizes[low]:
            yield Finding(
                "uneven updates",
                high,
                f"Updates of {role} are uneven over depth: ‖xΔW‖/‖xW‖ of a step is {rounded(sizes[high])} in {high} "
                f"but {rounded(sizes[low])} in {low}, {rounded(sizes[high] / sizes[low])} times less.",
                "Give these weights rates of their own, by groups of parameters.",
            )
    if not kinds:
        return
    most, least = max(kinds, key=lambda one: kinds[one]), min(kinds, key=lambda one: kinds[one])
    if kinds[most] > UNEVEN * kinds[least]:
        yield Finding(
            "uneven roles",
            "",
            f"Updates differ by kind: ‖xΔW‖/‖xW‖ of a step is {rounded(kinds[most])} for {most} but "
            f"{rounded(kinds[least])} for {least}, {rounded(kinds[most] / kinds[least])} times less. For matrices that "
            "start small this is by design.",
            bad=False,
        )


def _still(result: Rehearsal) -> Iterator[Finding]:
    """Weights that do not move."""
    if "weight_gradient" not in result.data:
        return
    names = [str(name) for name in result.data["weight"].values]
    gradient = np.nan_to_num(result.data["weight_gradient"].values).max((0, 1))
    moved = result.data["weight_update"].values
    still = (gradient > 0) & np.isfinite(moved).any((0, 1)) & (np.nan_to_num(moved).max((0, 1)) == 0)
    steps = counted(result.data.sizes["update"], "step")
    for which, why in ((gradient == 0, "have no gradient"), (still, "have a gradient, but do not move")):
        if found := [names[i] for i in np.flatnonzero(which)]:
            listed = ", ".join(found[:MOST]) + (" …" if len(found) > MOST else "")
            yield Finding(
                "still weights",
                found[0],
                f"{counted(len(found), 'parameter')} {why} in {steps}: {listed}."
                if len(found) > 1
                else f"1 parameter {why.replace('have', 'has').replace('do ', 'does ')} in {steps}: {listed}.",
                "Look for parameters that the loss does not depend on, or whose rate is 0.",
            )


def _clipping(result: Rehearsal) -> Iterator[Finding]:
    """A gradient that clipping makes much shorter in every step."""
    if "clipped" not in result.data or not (cut := mean(result, "clipped")).size or cut.max() * CLIPPED > 1:
        return
    norms = mean(result, "gradient_total")
    yield Finding(
        "clipping",
        "",
        f"Clipping divides the gradient by at least {rounded(1 / cut.max())} in every step: its norm is at least "
        f"{norms.min():.3g}, the limit {result.settings['clip']:g}. A batch of more tokens usually has a smaller "
        "gradient.",
        bad=False,
    )


def _warmup(result: Rehearsal) -> Iterator[Finding]:
    """A warm-up that hides what the rate does."""
    if "rate" in result.data and (rates := mean(result, "rate")).size and rates.max() < WARM:
        yield Finding(
            "warm-up",
            "",
            f"Warm-up keeps these steps at {100 * rates.max():.2g} % of the rate or less. Rehearse without it to see "
            "what the full rate does.",
            bad=False,
        )


def _interrupted(result: Rehearsal) -> Iterator[Finding]:
    """A rehearsal that was not finished."""
    ended = result.settings["ended"]
    if ended is not None and "interrupted" in ended:
        yield Finding("interrupted", "", f"{ended[0].upper()}{ended[1:]}.", bad=False)
