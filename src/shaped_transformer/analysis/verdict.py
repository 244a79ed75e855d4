"""The verdict: whether the tokens keep their norms and their differences up to the last layer."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from ..design.architecture import Architecture
from ..errors import InputError, counted
from ..estimates import Estimate, median, share
from ..observables import effective_rank, mean_absolute_correlation, mean_token_norm
from ..views import chain
from ..views.ensemble import Ensemble, joined
from ..views.stopping import DEFAULT_WINDOW
from .criterion import Criterion, rank_of


@dataclass(frozen=True)
class Verdict:
    """The verdict on a design in one word and one sentence, with the numbers that decide it.

    ```python
    chain = st.chain.sample(st.deep_linear(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
    found = st.statistics.verdict(chain)
    print(found.word, found.certain, found.healthy)
    ```

    **Attributes:**

    - `word`: `"exploding"`, `"collapsing"`, `"losing rank"` or `"stable"`.
    - `certain`: whether no interval that decides the word contains its threshold.
    - `sentence`: the word, the numbers and their thresholds.
    - `healthy`: share of healthy networks, as `Criterion` defines it.
    - `exploded`: share of paths with an eigenvalue of V above the window.
    - `mean_absolute_correlation`: median over paths of the mean |ρ| over pairs, at the last layer.
    - `effective_rank`: median effective rank at the last layer.
    - `growth`: median of the mean token norm at the last layer over that of the input.
    """

    word: str
    certain: bool
    sentence: str
    healthy: Estimate[float]
    exploded: Estimate[float]
    mean_absolute_correlation: Estimate[float]
    effective_rank: Estimate[float]
    growth: Estimate[float]


def verdict(ensemble: Ensemble, criterion: Criterion | None = None) -> Verdict:
    """Judge whether the tokens keep their norms and their differences up to the last layer (our criterion).

    The first word that holds is the verdict:

    - exploding: a share of more than 1 − `probability` of the paths has an eigenvalue above the window;
    - collapsing: the median of the mean |ρ| over pairs rises above 0.9 up to the last layer, or the median of the mean
      token norm falls below the window;
    - losing rank: the share of healthy networks is surely below `probability`;
    - stable: none of these.

    It is meant for the chain and for networks. In the SDE's Euler scheme, a path that loses positivity counts as
    exploded.

    ```python
    chain = st.chain.sample(st.deep_linear(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
    print(st.statistics.verdict(chain).sentence)
    ```

    **Arguments:**

    - `ensemble`: samples of any view, with the last layer among the records.
    - `criterion`: when a network counts as healthy, and how many must be; default `Criterion()`.

    **Returns:** a `Verdict`.

    **Raises:** `InputError` if the last layer was not recorded.
    """
    wanted = criterion or Criterion()
    depth = ensemble.architecture.depth
    if ensemble.depth[-1] != depth:
        raise InputError(
            f"a verdict needs the last layer: record it (layer {depth}; the last record is {ensemble.depth[-1]})"
        )
    last = ensemble.covariance[:, -1]
    healthy, exploded = wanted.share(ensemble), share(wanted.exploded(ensemble))
    correlation = median(mean_absolute_correlation(last))
    rank = median(effective_rank(ensemble.eigenvalues[:, -1]))
    growth = median(mean_token_norm(last) / float(mean_token_norm(ensemble.initial)))
    parallel = wanted.largest_correlation(ensemble.initial)
    vanished, tolerated = wanted.window[0], 1 - wanted.probability
    words = {
        "exploding": (exploded.value > tolerated, exploded.straddles(tolerated)),
        "collapsing": (
            correlation.value > parallel or growth.value < vanished,
            correlation.straddles(parallel) or growth.straddles(vanished),
        ),
        "losing rank": (healthy.high < wanted.probability, healthy.straddles(wanted.probability)),
    }
    word = next((name for name, (holds, _) in words.items() if holds), "stable")
    deciding = words.values() if word == "stable" else [words[word]]
    needed, input_rank = 100 * wanted.probability, rank_of(ensemble.initial)
    sentence = (
        f"{word}: after {counted(depth, 'layer')} {healthy.scaled(100)} % of networks are healthy "
        f"(needed: {needed:g} %) and {exploded.scaled(100)} % have exploded (allowed: {100 - needed:g} %). "
        f"Medians: effective rank {rank} (input: {input_rank:.3g}; needed: {wanted.rank_share * input_rank:.3g}), "
        f"mean |rho| {correlation} (collapse above {parallel:g}), token norm {growth} times the input's"
    )
    certain = not any(straddles for _, straddles in deciding)
    return Verdict(word, certain, sentence, healthy, exploded, correlation, rank, growth)


FIRST = 128
"""Paths of a first look."""


def first_look(architecture: Architecture, v0: ArrayLike, seed: int, criterion: Criterion | None = None) -> Verdict:
    """Return a verdict from 128 paths of the chain, for designs whose whole verdict takes long.

    **Arguments:** as in `compare` and `verdict`.
    """
    drawn = list(chain.stream(architecture, v0, FIRST, seed, batch=FIRST, stop=DEFAULT_WINDOW))
    return verdict(joined(drawn), criterion)
