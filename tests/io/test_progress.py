"""The progress bar goes to standard error, and only to a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.cli.output import say
from shaped_transformer.io.progress import progress
from shaped_transformer.views import sampling


def test_no_bar_where_standard_error_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("drawing", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("drawing", 10) as advance:
        advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert "drawing" in err


def test_notices_are_printed_above_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("drawing", 10) as advance:
        advance(5)
        say("half of it")
        advance(5)
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if "half of it" in line)
    assert "drawing" not in line


def test_work_inside_a_bar_is_part_of_its_unit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("shaped_transformer.io.progress.REFRESH", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with progress("designs", 4) as advance:
        for _ in range(2):
            with progress("drawing", 10) as advance_inner:
                advance_inner(10)
            advance(1)
        with progress("drawing", 10) as advance_inner:
            advance_inner(5)
    err = capsys.readouterr().err
    assert "drawing" not in err
    assert "62 %" in err


def test_a_bar_counts_the_steps_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []

    @contextmanager
    def watched(_: str, total: float) -> Iterator[Callable[[float], None]]:
        yield lambda done: shown.append(done / total)

    monkeypatch.setattr(sampling, "progress", watched)
    st.chain.sample(st.deep_linear(8, 50), np.eye(3), samples=5000, seed=0)
    assert sum(shown) == pytest.approx(1)
    assert len(shown) > 100
