"""The verdict: whether the tokens keep their norms and their differences up to the last layer."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..estimates import Estimate, median, share
from ..inputs import rank
from ..observables import effective_rank, mean_absolute_correlation, mean_token_norm
from ..views.ensemble import Ensemble
from ..views.stopping import WINDOW

VANISHED, EXPLODED = WINDOW
"""Norms have vanished when the mean token norm is below this share of the input's. A path has exploded when an
eigenvalue of V exceeds this many times the input's mean token norm."""
TOLERATED = 0.05
"""Share of exploded paths above which a network is called exploding."""
PARALLEL = 0.9
"""Mean |ρ| above which the tokens count as collapsed into one direction."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a design in one word and one sentence, with the numbers that decide it.

    ```python
    chain = st.chain.sample(st.deep_linear(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
    found = st.statistics.verdict(chain)
    print(found.word, found.certain, found.rank)
    ```

    **Attributes:**

    - `word`: `"stable"`, `"collapsing"` or `"exploding"`.
    - `certain`: whether none of the intervals that decide the word contains its threshold.
    - `sentence`: the numbers and their thresholds, as a sentence.
    - `exploded`: share of paths that exploded.
    - `correlation`: median over paths of the mean |ρ| over pairs, at the last layer.
    - `rank`: median effective rank at the last layer.
    - `growth`: median of the mean token norm at the last layer over that of the input.
    """

    word: str
    certain: bool
    sentence: str
    exploded: Estimate[float]
    correlation: Estimate[float]
    rank: Estimate[float]
    growth: Estimate[float]


def verdict(ensemble: Ensemble) -> Verdict:
    """Judge whether the tokens keep their norms and their differences up to the last layer (our criterion).

    It is meant for the chain and for networks. In the SDE's Euler scheme, a path that loses positivity counts as
    exploded.

    - exploding: more than 5 % of paths have an eigenvalue of V above 1e4 times the input's mean token norm, the upper
      end of the window of [ST], or left the window `stop` upwards;
    - collapsing: the median of the mean |ρ| over pairs is above 0.9 at the last layer, or the median norm is below 1e-4
      of the input's;
    - stable: neither.

    ```python
    chain = st.chain.sample(st.deep_linear(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
    print(st.statistics.verdict(chain).sentence)
    ```

    **Arguments:**

    - `ensemble`: samples of any view, with the last layer among the records.

    **Returns:** a `Verdict`.

    **Raises:** `InputError` if the last layer was not recorded.
    """
    depth, tokens = ensemble.architecture.depth, ensemble.tokens
    if ensemble.depth[-1] != depth:
        raise InputError(
            f"a verdict needs the last layer: record it (layer {depth}; the last record is {ensemble.depth[-1]})"
        )
    start = float(mean_token_norm(ensemble.initial)) or 1.0
    below = ensemble.eigenvalues[:, -1, rank(ensemble.initial) - 1] < ensemble.settings["stop"][0]
    stopped_above = (ensemble.stopped <= depth) & ~below
    exploded = share(stopped_above | np.any(ensemble.eigenvalues[..., 0] > EXPLODED * start, axis=1))
    last = ensemble.covariance[:, -1]
    correlation = median(mean_absolute_correlation(last))
    rank_at_end = median(effective_rank(ensemble.eigenvalues[:, -1]))
    growth = median(mean_token_norm(last) / start)
    words = {
        "exploding": (exploded.value > TOLERATED, exploded.straddles(TOLERATED)),
        "collapsing": (
            correlation.value > PARALLEL or growth.value < VANISHED,
            correlation.straddles(PARALLEL) or growth.straddles(VANISHED),
        ),
    }
    word = next((name for name, (holds, _) in words.items() if holds), "stable")
    deciding = words.values() if word == "stable" else [words[word]]
    certain = not any(straddles for _, straddles in deciding)
    sentence = (
        f"after {depth} layers the median mean |rho| is {correlation} (collapse: above {PARALLEL:g}), the "
        f"median effective rank {rank_at_end} of {tokens}, the median token norm {growth} times the "
        f"input's, and {exploded.scaled(100)} % of paths have exploded (tolerated: {100 * TOLERATED:g} %)"
    )
    return Verdict(word, certain, sentence, exploded, correlation, rank_at_end, growth)
