"""Pages of the documentation as scripts: their files, Python blocks and commands run in the order of the page."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")

PROLOGUE = """
import subprocess, sys
from pathlib import Path

def _run(arguments):
    sys.stdout.flush()
    done = subprocess.run(arguments, text=True, stdout=subprocess.PIPE)
    print(done.stdout, flush=True)
    if done.returncode:
        sys.exit(f"{arguments} ended with status {done.returncode}")
"""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the fenced blocks of a page: the language of each, and its text."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def python(page: Path) -> str:
    """Return the Python blocks of a page as one script."""
    return "\n".join(text for language, text in blocks(page) if language == "python")


def commands(page: Path) -> list[str]:
    """Return the commands of a page, those that install anything left out."""
    lines = (line for language, text in blocks(page) if language == "sh" for line in text.splitlines())
    return [line for line in lines if re.match(r"(shaped-transformer|python) ", line)]


def whole(page: Path) -> str:
    """Return a script that does all that a page shows: it writes files, runs Python blocks and commands.

    A block of YAML or Python whose first line is a comment with the name of a file is written to that file.
    """
    parts = [PROLOGUE]
    for language, text in blocks(page):
        if name := re.match(r"# (\S+\.(?:py|yaml))\b", text):
            parts.append(f"Path({name[1]!r}).write_text({text!r}, encoding='utf-8')")
        elif language == "python":
            parts.append(text)
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith(("shaped-transformer ", "python ")):
                    words = line.partition("  #")[0].split()
                    module = ["-m", "shaped_transformer"] if words[0] == "shaped-transformer" else []
                    parts.append(f"_run([sys.executable, *{[*module, *words[1:]]!r}])")
    return "\n".join(parts)


def outputs(page: Path) -> list[str]:
    """Return the lines of output that a page shows, those with an ellipsis left out."""
    lines = (line for language, text in blocks(page) if language == "text" for line in text.splitlines())
    return [line for line in lines if line.strip() and "…" not in line]


def run_script(code: str, folder: Path) -> str:
    """Run a script in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_printed(lines: Sequence[str], printed: str) -> None:
    """Assert that each line was printed, with numbers that differ by rounding at most and any spaces."""
    found = [_parts(line) for line in printed.splitlines()]
    for line in lines:
        words, numbers = _parts(line)
        alike = [others for other, others in found if other == words]
        close = (pytest.approx(numbers, rel=0.02, abs=0.011) == others for others in alike)
        assert any(close), f"{line!r} was not printed, but {alike}"


def _parts(line: str) -> tuple[str, list[float]]:
    """Return a line with its numbers replaced, and the numbers."""
    words = " ".join(NUMBER.sub("#", line).split())
    return words, [float(number.replace(",", "")) for number in NUMBER.findall(line)]
