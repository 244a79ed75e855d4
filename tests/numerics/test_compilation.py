"""Compiled kernels are cached on disk, where no folder can be written in a temporary one, with a single notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shaped_transformer.numerics.compilation import NO_CACHE_NOTICE

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
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    print(twice(1.5), thrice(1.5), cache, oct(stat.S_IMODE(cache.stat().st_mode)), len(list(cache.rglob("*.nbi"))))
    if len(sys.argv) < 2:
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, "again"], check=True)
        if hasattr(os, "fork") and os.fork() == 0:
            sys.exit()
        hasattr(os, "wait") and os.wait()
        print(cache.is_dir())
"""

Run = tuple[Path, "subprocess.CompletedProcess[str]"]

WITHOUT_TEMPORARY_FOLDER = """
import runpy, sys, tempfile

def refuse(**_):
    raise OSError(30, "Read-only file system")

tempfile.mkdtemp = refuse
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def unwritable_folder(parent: Path) -> Path:
    """Return a folder with a module of kernels beside which not even root can write."""
    (parent / "some_kernels.py").write_text(KERNELS, encoding="utf-8")
    (parent / "__pycache__").write_text("", encoding="utf-8")
    (parent / "temporary").mkdir()
    return parent


def run_without_home(folder: Path, *command: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with a home and a cache folder that cannot be made."""
    nowhere = str(folder / "__pycache__" / "below")
    homeless = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "TMPDIR": str(folder / "temporary")}
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | homeless | changes
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module", params=[{}, {"NUMBA_CACHE_DIR": "/dev/null/below"}], ids=["unset", "impossible"])
def without_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder, and the run of its kernels where no cache folder can be made."""
    folder = unwritable_folder(tmp_path_factory.mktemp("kernels"))
    done = run_without_home(folder, str(folder / "some_kernels.py"), **request.param)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_without_a_cache_folder_one_notice_names_the_way_out(without_cache: Run) -> None:
    _, done = without_cache
    assert done.stderr == NO_CACHE_NOTICE + "\n"
    assert "NUMBA_CACHE_DIR" in NO_CACHE_NOTICE


def test_without_a_cache_folder_a_process_shares_a_private_one_with_its_children(without_cache: Run) -> None:
    folder, done = without_cache
    first, of_child, _ = done.stdout.splitlines()
    cache = Path(first.split()[2])
    assert first == f"3.0 4.5 {cache} 0o700 2"
    assert of_child == first
    assert cache.parent == folder / "temporary"


def test_the_temporary_folder_outlives_a_forked_child_but_not_its_owner(without_cache: Run) -> None:
    folder, done = without_cache
    *_, exists_after_child = done.stdout.splitlines()
    assert exists_after_child == "True"
    assert list((folder / "temporary").iterdir()) == []


def test_the_folder_of_the_environment_is_used_without_a_notice(tmp_path: Path) -> None:
    folder = unwritable_folder(tmp_path)
    done = run_without_home(folder, str(folder / "some_kernels.py"), NUMBA_CACHE_DIR=str(folder / "kept"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((folder / "kept").rglob("*.nbi"))) == 2


def test_without_even_a_temporary_folder_the_error_names_the_way_out(tmp_path: Path) -> None:
    folder = unwritable_folder(tmp_path)
    done = run_without_home(folder, "-c", WITHOUT_TEMPORARY_FOLDER, str(folder / "some_kernels.py"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("shaped_transformer.errors.StorageError: no folder to keep compiled kernels in")
    assert "(Read-only file system): set NUMBA_CACHE_DIR" in last
