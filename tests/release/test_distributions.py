"""The distributions hold the library and nothing else; the wheel, built from the sdist, runs where it is installed."""

import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import check_distributions
import pytest

pytest.importorskip("hatchling")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def build(source: Path, kind: str, folder: Path) -> Path:
    """Build a distribution from a folder and return it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked sdist."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (source,) = place.iterdir()
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_the_library_and_what_builds_it(sdist: Path) -> None:
    check_distributions.check_sdist(sdist)


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    check_distributions.check_wheel(wheel)


def test_a_file_too_many_is_noticed(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = check_distributions.library_files()
    assert "shaped_transformer/py.typed" in files
    monkeypatch.setattr(check_distributions, "library_files", lambda: files - {"shaped_transformer/py.typed"})
    with pytest.raises(check_distributions.CheckError, match=r"besides shaped_transformer/py\.typed"):
        check_distributions.check_wheel(wheel)


def test_the_wheel_runs_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees the packages of this one but not the library in the repository."""
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    check_distributions.check_core(python.absolute(), folder)
