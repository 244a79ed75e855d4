"""The progress bar goes to standard error, and only to a terminal."""

import sys

import pytest

from shaped_transformer.cli.output import say
from shaped_transformer.io.progress import progress


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
