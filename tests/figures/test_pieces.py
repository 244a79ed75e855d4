"""The pieces of a figure: finished ones are stored and read again, broken ones are computed again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shaped_transformer.figures import catalogue
from shaped_transformer.figures.pieces import Arrays, PieceRunner


class Work:
    """Three tasks that record when they are computed; the last one can be interrupted."""

    def __init__(self, *, interrupted: bool = False) -> None:
        self.done: list[str] = []
        self.interrupted = interrupted

    def tasks(self) -> dict[str, Any]:
        return {name: lambda name=name: self.compute(name) for name in ("a", "b/2", "c 3")}

    def compute(self, name: str) -> Arrays:
        if self.interrupted and name == "c 3":
            raise KeyboardInterrupt
        self.done.append(name)
        return {"numbers": np.arange(3.0) + len(name), "text": np.array([name])}


@pytest.fixture
def interrupted(tmp_path: Path) -> Work:
    """Return work of which two pieces are finished and stored."""
    work = Work(interrupted=True)
    runner = PieceRunner(tmp_path / "pieces")
    with pytest.raises(KeyboardInterrupt):
        runner.run(work.tasks())
    assert (runner.finished, runner.total) == (2, 3)
    work.interrupted = False
    return work


def test_an_interrupted_figure_computes_only_the_other_pieces(interrupted: Work, tmp_path: Path) -> None:
    PieceRunner(tmp_path / "pieces").run(interrupted.tasks())
    assert interrupted.done == ["a", "b/2", "c 3"]


def test_stored_pieces_are_those_of_a_run_without_interruption(interrupted: Work, tmp_path: Path) -> None:
    found = PieceRunner(tmp_path / "pieces").run(interrupted.tasks())
    expected = PieceRunner().run(Work().tasks())
    assert list(found) == list(expected)
    for name, arrays in expected.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[name][key], array)


def test_a_broken_piece_is_computed_again(tmp_path: Path) -> None:
    work = Work()
    PieceRunner(tmp_path / "pieces").run(work.tasks())
    (tmp_path / "pieces" / "a.npz").write_bytes(b"half a file")
    PieceRunner(tmp_path / "pieces").run(work.tasks())
    assert work.done == ["a", "b/2", "c 3", "a"]


def test_pieces_are_removed_when_they_are_discarded(tmp_path: Path) -> None:
    runner = PieceRunner(tmp_path / "pieces")
    runner.run(Work().tasks())
    runner.discard()
    assert not list(tmp_path.iterdir())


def test_other_settings_have_other_pieces(tmp_path: Path) -> None:
    folders = {
        catalogue.piece_runner("correlation", catalogue.settings("correlation", changes=changes), tmp_path).folder
        for changes in ({}, {"seed": 1}, {"seed": 1})
    }
    assert len(folders) == 2
