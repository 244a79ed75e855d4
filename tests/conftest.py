"""Settings of all tests: the same property tests in every run, no deadline on slow machines, a cache of their own."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from shaped_transformer.cli import main

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")

# A shell has its background jobs ignore interrupts, and what they start would too; the tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """The command line in an empty folder: its arguments → (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    for module in ("shaped_transformer.cli", "shaped_transformer.cli.train"):
        monkeypatch.setattr(f"{module}.exit_process", sys.exit)  # after an interrupt it would end the tests too

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shaped-transformer", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call
