"""Changes of a configuration that might mend it, each tried on weightless draws before it is suggested."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .expectation import Expectation, expected
from .result import ProbeResult
from .verdict import Verdict, judge

DRAWS = 3
"""Number of networks on which a change is tried."""

FACTORS = {
    "initializer_range": (0.5, 0.25, 0.1, 2.0),
    "residual_multiplier": (0.5,),
    "gamma": (0.5,),
    "num_hidden_layers": (0.5,),
}
"""Numbers of a configuration and the factors by which they are changed: initial standard deviation, scales of the
branches, depth."""

SWITCHES = ("scale_attn_by_inverse_layer_idx", "normalize_before", "pre_norm", "do_layer_norm_before")
"""Options of some configurations that weaken branches or normalise before them."""


@dataclass(frozen=True)
class Suggestion:
    """A change of a configuration, and what became of it in weightless draws at initialisation.

    **Arguments:**

    - `change`: such as `"initializer_range 0.02 → 0.01"`.
    - `verdict`: of the first draw of the changed configuration.
    - `mended`: in how many of the draws the verdict is good.
    - `draws`: their number.
    - `sentence`: in plain words.
    """

    change: str
    verdict: Verdict
    mended: int
    draws: int
    sentence: str


def suggestions(config: Any, batch: Any, *, cls: Any = None, draws: int = DRAWS, **options: Any) -> list[Suggestion]:
    """Return changes of a configuration whose initialisation is judged bad, tried without weights.

    The changes: initial standard deviation, scale of the branches, place of the norm, depth, where the configuration
    has an option for it. Those that mend most draws come first; a change that mends none is left out.

    **Arguments:**

    - `config`: a Hugging Face configuration.
    - `batch`, `options`: as in `expected`.
    - `cls`: the Auto class, as there.
    - `draws`: number of networks for each change, default 3.
    """
    found = []
    for change, changed in changes(config):
        try:
            expectation = expected(changed, batch, draws, cls=cls, **options)
        except (InputError, ValueError, TypeError):
            continue  # the change makes no model, or one that overflows
        verdicts = [judge(result) for result in results_of(expectation)]
        mended = sum(verdict.good for verdict in verdicts)
        if mended:
            sentence = f"{change}: the signal is then sane in {mended} of {draws} weightless draws."
            found.append(Suggestion(change, verdicts[0], mended, draws, sentence))
    return sorted(found, key=lambda one: -one.mended)


def changes(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield changes of a configuration, in words, and the changed ones."""
    for name, factors in FACTORS.items():
        value = getattr(config, name, None)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            continue
        for factor in factors:
            new = max(1, int(value * factor)) if isinstance(value, int) else value * factor
            if new != value:
                yield f"{name} {value:g} → {new:g}", _with(config, {name: new})
    for name in SWITCHES:
        if getattr(config, name, None) is False:
            yield f"{name} = True", _with(config, {name: True})


def results_of(expectation: Expectation) -> Iterator[ProbeResult]:
    """Yield each draw as a result of its own."""
    settings = {**expectation.settings, "not_finite": None}
    for i in range(expectation.data.sizes["draw"]):
        yield ProbeResult(expectation.data.isel(draw=i), settings)


def _with(config: Any, values: dict[str, Any]) -> Any:
    """Return a configuration with other values."""
    changed = copy.deepcopy(config)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed
