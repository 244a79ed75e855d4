"""A model measured, held against its initialisation and judged: what the command `probe` does."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .batches import Batch
from .comparison import Comparison
from .expectation import Expectation, expected
from .loading import Subject
from .passes import run
from .result import ProbeResult
from .suggestions import Suggestion, results_of, suggestions
from .verdict import Verdict, judge

LARGE = 1_000_000_000
"""Number of parameters from which fewer networks are drawn."""

DRAWS = (100, 20)
"""Number of networks that are drawn by default, of smaller and of large models."""

FEWEST = 3
"""Smallest number of networks from which there is a band."""


@dataclass(frozen=True, eq=False)
class Examination:
    """All that is known of a model.

    **Attributes:**

    - `result`: the measurement.
    - `expectation`, `comparison`: what its initialisation would do, and where the measurement lies; or `None`.
    - `verdict`: the verdict.
    - `obstacle`: why nothing is expected; `None` where something is, or nobody asked.
    - `suggestions`: changes of the configuration that were tried without weights, where its initialisation is bad.
    """

    result: ProbeResult
    expectation: Expectation | None
    comparison: Comparison | None
    verdict: Verdict
    obstacle: str | None = None
    suggestions: tuple[Suggestion, ...] = ()


def check_draws(draws: int | None) -> None:
    """Check a number of networks to draw.

    **Raises:** `InputError` for a number from which there is no band.
    """
    if draws is not None and draws != 0 and draws < FEWEST:
        raise InputError(f"--expected must be 0, for no expectation, or at least {FEWEST} (got {draws})")


def examine(
    subject: Subject,
    model: Any,
    batch: Batch,
    *,
    draws: int | None = None,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    approximate: bool = False,
) -> Examination:
    """Return the measurement of a model, its expectation at initialisation, and the verdict.

    ```python
    from shaped_transformer.probe.batches import make_batch
    from shaped_transformer.probe.examination import examine
    from shaped_transformer.probe.loading import Subject
    build = lambda: st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    subject = Subject("mine", build(), build)
    batch = make_batch(subject.model, tokens=8, input_width=64)
    print(examine(subject, subject.model, batch, draws=10).verdict.sentence)
    ```

    **Arguments:**

    - `subject`: what is examined, from `loading.load`.
    - `model`: its module, from `subject.draw`.
    - `batch`: from `batches.make_batch`.
    - `draws`: number of networks at initialisation, 0 for none. Default: 100 below a billion parameters, else 20; and
      none where the initialisation cannot be simulated.
    - `layers`: globs of the layers, default the blocks of the residual stream.
    - `seed`: of the draws and of a sample of tokens.
    - `approximate`: whether Gaussian weights may stand for others, as in `st.weightless.build`.

    **Raises:** `InputError` as `st.probe.run`; as `st.probe.expected` if `draws` is given.
    """
    check_draws(draws)
    result = run(model, batch.values, layers=layers, seed=seed)
    count = DRAWS[result.settings["parameters"] >= LARGE] if draws is None else draws
    if not count:
        return Examination(result, None, None, judge(result))
    source = subject.source if subject.cls is None else _with_attention_of(model, subject.source)
    try:
        expectation = expected(
            source, batch.values, count, layers=layers, seed=seed, approximate=approximate, cls=subject.cls
        )
        comparison = result.compare(expectation)
    except InputError as error:
        if draws is not None:
            raise
        return Examination(result, None, None, judge(result), obstacle=str(error))
    verdict, tried = judge(result, comparison), []
    if not verdict.good and subject.cls is not None and not judge(next(results_of(expectation))).good:
        tried = suggestions(source, batch.values, cls=subject.cls, layers=layers, seed=seed, approximate=approximate)
    return Examination(result, expectation, comparison, verdict, suggestions=tuple(tried))


def _with_attention_of(model: Any, config: Any) -> Any:
    """Return a configuration whose models compute their attention as a model does."""
    name = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if name is None or getattr(config, "_attn_implementation", name) == name:
        return config
    changed = copy.deepcopy(config)
    changed._attn_implementation = name
    return changed
