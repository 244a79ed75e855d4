"""Short runs for comparisons: what is returned of one that ends, and of one that diverges."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shaped_transformer.training import search

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_run_that_ends(recipe: Callable[..., Any]) -> None:
    run = search.run_losses(recipe(steps=25))
    assert run["loss"].shape == (4,)  # steps 1, 10, 20, 25
    assert run["stopped"] == 26
    assert run["final"] < run["loss"][0]
    assert search.rank(run, 25) == (False, float(run["final"]))


def test_runs_are_compared_by_the_third_split(recipe: Callable[..., Any]) -> None:
    run = search.run_losses(recipe(steps=5, validation=8))
    assert run["chosen_by"] != run["final"]
    assert search.rank(run, 5) == (False, float(run["chosen_by"]))
    assert search.run_losses(recipe(steps=5))["final"] != run["final"]  # the documents set apart are not trained on


def test_a_run_that_diverges_keeps_its_last_loss(recipe: Callable[..., Any]) -> None:
    run = search.run_losses(recipe(steps=25, lr=1e30, warmup=0))
    assert run["stopped"] <= 25
    assert np.isfinite(run["loss"]).all()
    assert run["final"] == run["loss"][-1]
    assert search.rank(run, 25) > (False, 1e9)  # never chosen while another run ended


def test_a_run_whose_last_update_diverges_has_finite_numbers(recipe: Callable[..., Any]) -> None:
    run = search.run_losses(recipe(steps=1, lr=1e30, warmup=0))
    assert run["stopped"] == 1
    assert np.isfinite(run["final"])
    assert np.isfinite(run["loss"]).all()


def test_times_are_of_every_network(recipe: Callable[..., Any]) -> None:
    seconds = search.step_seconds(["shaped-fixed", "pre-norm"], [1, 16], recipe())
    assert seconds.shape == (2, 2)
    assert (seconds[:, 1] > 2 * seconds[:, 0]).all()  # measured 3.5 to 8 times; head and embedding stay the same
