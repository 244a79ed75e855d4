"""Check the wheel and the sdist in dist/: what is in them, and that they install and run in empty environments.

python tools/check_distributions.py             installs each in a fresh environment, then the extras probe and explore
python tools/check_distributions.py --contents  looks at the files only

`make dist-check` builds both before.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shaped_transformer import __version__

ROOT = Path(__file__).parents[1]
LARGEST = 2 * 2**20
"""Bytes of a distribution; the library has 0.7 MB."""
KINDS = {".css", ".js", ".py", ".txt", ".yaml"}
"""Suffixes of the library's files, beside the marker `py.typed`."""
SDIST_FILES = {
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
}
"""Files of the sdist beside the library's."""
COMPARE = "compare --width 16 --depth 4 --tokens 3 --samples 50 --network-samples 10 --out compared"
PROBED = {"model_type": "gpt2", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
"""A configuration whose initialisation is probed."""
TYPED = """\
import shaped_transformer as st
reveal_type(st.chain.sample(st.deep_linear(8, 2), st.inputs.equicorrelated(2, 0.5), samples=2, seed=0))
"""
"""A user's file, and the type that a checker must find in it."""


class CheckError(Exception):
    """A distribution that is not as it should be; the message says how."""


def library_files() -> set[str]:
    """Return the files of the library in the repository, relative to `src`."""
    source = ROOT / "src"
    files = (file for file in (source / "shaped_transformer").rglob("*") if file.is_file())
    return {file.relative_to(source).as_posix() for file in files if "__pycache__" not in file.parts}


def check_wheel(wheel: Path) -> None:
    """Check that a wheel holds the library's files and its metadata, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = {name for name in names if name.split("/")[0] == f"shaped_transformer-{__version__}.dist-info"}
    _check_size(wheel)
    _check_files(wheel, names - metadata, library_files())


def check_sdist(sdist: Path) -> None:
    """Check that an sdist holds the library's files and what builds it, and nothing else."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    _check_size(sdist)
    _check_files(sdist, names, {f"src/{name}" for name in library_files()} | SDIST_FILES)


def _check_size(file: Path) -> None:
    if (size := file.stat().st_size) > LARGEST:
        raise CheckError(f"{file.name} has {size:,} bytes, and at most {LARGEST:,} are expected")


def _check_files(file: Path, found: set[str], expected: set[str]) -> None:
    strange = {name for name in expected if "shaped_transformer" in name and not _is_of_library(name)}
    for what, names in (("lacks", expected - found), ("has besides", found - expected), ("has a stray", strange)):
        if names:
            raise CheckError(f"{file.name} {what} {', '.join(sorted(names)[:5])}")


def _is_of_library(name: str) -> bool:
    return Path(name).suffix in KINDS or Path(name).name == "py.typed"


def run(command: Sequence[str | Path], folder: Path, *, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, outside this repository's environment.

    **Raises:** `CheckError` if it ends with another status.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != status:
        called = " ".join(map(str, command))
        raise CheckError(f"{called}: status {done.returncode}, not {status}\n{done.stdout}{done.stderr}")
    return done


def check_core(python: Path, folder: Path) -> None:
    """Check that an installed library runs its main job in an empty folder.

    **Arguments:**

    - `python`: the interpreter in whose environment the library is installed.
    - `folder`: an empty folder.
    """
    command = python.parent / "shaped-transformer"
    where = run([python, "-c", "import shaped_transformer as st; print(st.__file__)"], folder).stdout.strip()
    if not Path(where).is_relative_to(python.parents[1]):
        raise CheckError(f"the library is imported from {where}, and not from the environment of {python}")
    if (version := run([command, "--version"], folder).stdout.strip()) != __version__:
        raise CheckError(f"the installed version is {version}, and not {__version__}")
    if "Verdict: " not in run([command, *COMPARE.split()], folder).stdout:
        raise CheckError("compare prints no verdict")
    if "weightless" not in run([command, "figure", "--list"], folder).stdout:
        raise CheckError("figure --list does not list the figures")


def check_missing_extras(python: Path, folder: Path) -> None:
    """Check that without extras the commands that need one end with one line, which names it."""
    command = python.parent / "shaped-transformer"
    _configuration(folder)
    for arguments in (["probe", "--config", "config.json"], ["explore", "--no-open"], ["train", "quick.yaml"]):
        told = run([command, *arguments], folder, status=2).stderr
        if told.count("\n") != 1 or "pip install 'shaped-transformer[" not in told:
            raise CheckError(f"{arguments[0]} without its extra does not say so in one line: {told}")
        print(f"  without extras: {told.strip()}")  # noqa: T201


def check_extras(python: Path, folder: Path) -> None:
    """Check that `probe` and `explore` run, with their extras."""
    command = python.parent / "shaped-transformer"
    _configuration(folder)
    if "Verdict: " not in run([command, "probe", "--config", "config.json", "--out", "probed"], folder).stdout:
        raise CheckError("probe prints no verdict")
    if not (folder / "probed" / "report.html").is_file():
        raise CheckError("probe writes no report.html")
    server = subprocess.Popen(
        [command, "explore", "--no-open"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = server.stdout.readline().strip() if server.stdout else ""
        with urllib.request.urlopen(url, timeout=60) as answer:
            if b"Shaped Transformer explorer" not in answer.read():
                raise CheckError(f"{url} is not the page of the explorer")
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def _configuration(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(PROBED), encoding="utf-8")


def check_types(python: Path, folder: Path) -> None:
    """Check that mypy sees the types of the installed library."""
    (folder / "user.py").write_text(TYPED, encoding="utf-8")
    done = run([sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "user.py"], folder)
    if not re.search(r'Revealed type is "shaped_transformer\.views\.ensemble\.Ensemble"', done.stdout):
        raise CheckError(f"mypy does not see the types: {done.stdout}")


def installed(target: str | Path, folder: Path) -> Path:
    """Return the interpreter of a new environment in a folder, with a distribution installed."""
    run([sys.executable, "-m", "venv", folder], ROOT)
    python = folder / "bin" / "python"
    install(python, target)
    return python


def install(python: Path, target: str | Path) -> None:
    """Install a distribution, with the versions of constraints.txt."""
    pip: list[Any] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    run([python, *pip, target], ROOT)


def distributions(folder: Path) -> tuple[Path, Path]:
    """Return the wheel and the sdist of this version in a folder."""
    stem = f"shaped_transformer-{__version__}"
    wheel, sdist = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
    for file in (wheel, sdist):
        if not file.is_file():
            raise CheckError(f"no {file}: run make dist first")
    return wheel, sdist


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--contents", action="store_true", help="look at the files only")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="folder of the distributions")
    options = parser.parse_args(None if arguments is None else list(arguments))
    try:
        wheel, sdist = distributions(options.folder.resolve())
        check_wheel(wheel)
        check_sdist(sdist)
        if not options.contents:
            for file in (sdist, wheel):
                _check_installed(file, extras=file == wheel)
    except CheckError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _check_installed(file: Path, *, extras: bool) -> None:
    """Install a distribution in a fresh environment and check its commands; where asked, those of extras too."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        for part in ("core", "bare", "typed", "extras"):
            (place / part).mkdir()
        python = installed(file, place / "environment")
        check_core(python, place / "core")
        check_missing_extras(python, place / "bare")
        if extras:
            check_types(python, place / "typed")
            install(python, f"{file}[probe,explore]")
            check_extras(python, place / "extras")
    print(f"{file.name} installs and runs ({time.perf_counter() - start:.0f} s)")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
