"""Compiled kernels are kept: where nothing can be written, in a folder of this process alone, and that is told once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shaped_transformer.errors import StorageError
from shaped_transformer.numerics.compilation import HOMELESS, _temporary_cache

KERNELS = """
import os, stat, subprocess, sys
from pathlib import Path
from shaped_transformer.numerics.compilation import compiled

@compiled("float64(float64)")
def twice(x):
    return 2 * x

@compiled("float64(float64)")
def thrice(x):
    return 3 * x

if __name__ == "__main__":
    place = Path(os.environ["NUMBA_CACHE_DIR"])
    print(twice(1.5), thrice(1.5), place, oct(stat.S_IMODE(place.stat().st_mode)), len(list(place.rglob("*.nbi"))))
    if len(sys.argv) < 2:
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, "again"], check=True)
        if hasattr(os, "fork") and os.fork() == 0:
            sys.exit()
        hasattr(os, "wait") and os.wait()
        print(place.is_dir())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a module of kernels that nothing can be written beside, not even by root."""
    (tmp_path / "kernels_here.py").write_text(KERNELS, encoding="utf-8")
    (tmp_path / "__pycache__").write_text("", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    return tmp_path


def run(place: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run the module with a home and a cache that cannot be made."""
    nowhere = str(place / "__pycache__" / "below")
    homeless = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "TMPDIR": str(place / "temporary")}
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | homeless | changes
    command = [sys.executable, str(place / "kernels_here.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("changes", [{}, {"NUMBA_CACHE_DIR": "/dev/null/below"}])
def test_without_a_home_kernels_are_kept_for_this_process_and_its_children(
    place: Path, changes: dict[str, str]
) -> None:
    done = run(place, **changes)
    assert done.returncode == 0, done.stderr
    assert done.stderr == HOMELESS + "\n"
    assert "NUMBA_CACHE_DIR" in HOMELESS
    first, again, kept = done.stdout.splitlines()
    folder = Path(first.split()[2])
    assert first == f"3.0 4.5 {folder} 0o700 2"
    assert again == first  # the child finds them, and says nothing
    assert folder.parent == place / "temporary"
    assert kept == "True"  # a forked child leaves the folder to its owner
    assert list((place / "temporary").iterdir()) == []


def test_a_folder_that_is_named_is_used_and_nothing_is_said(place: Path) -> None:
    done = run(place, NUMBA_CACHE_DIR=str(place / "kept"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(list((place / "kept").rglob("*.nbi"))) == 2


def test_without_even_a_temporary_folder_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: str) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(StorageError, match=r"\(Read-only file system\): set NUMBA_CACHE_DIR"):
        _temporary_cache()
