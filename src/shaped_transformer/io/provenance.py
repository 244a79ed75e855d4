"""Provenance of results: the command line of this process, with which a result can be computed again."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Return the command that started this process, quoted for a shell."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program == "__main__.py":
        return shlex.join(["python", "-m", Path(sys.argv[0]).parent.name, *sys.argv[1:]])
    return shlex.join([program, *sys.argv[1:]])
