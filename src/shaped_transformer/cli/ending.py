"""Exit of a command's process, alone or as one of several that a launcher started."""

import atexit
import logging
import os
import sys
from typing import NoReturn

SIGNALS = 128
"""Exit statuses from here on stand for signals."""
_statuses: list[int] = []
"""The exit status, once `exit_process` has been called where the interpreter is not to shut down."""


def exit_process(status: int) -> NoReturn:
    """Exit this process; one of several, or after a signal, it exits before the interpreter shuts down.

    Exit handlers run in any case.

    The threads that carry messages between processes outlive the process group while anything refers to it; with
    parameters divided by FSDP, PyTorch's caches do. If such a thread frees a tensor while the interpreter shuts down,
    the process aborts, and the launcher reports a finished run as failed. After an interrupt in the middle of `exec`,
    such as in an import, Python would end with its own status instead of the given one.

    **Arguments:**

    - `status`: the exit status.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" or status >= SIGNALS:
        _statuses.append(status)
    sys.exit(status)


@atexit.register  # exit handlers run in reverse order: this module is imported early, so that this one runs last
def _skip_shutdown() -> None:
    """Exit at once if `exit_process` asked for it."""
    if not _statuses:
        return
    logging.shutdown()  # its handler was registered before this one
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(_statuses[-1])
