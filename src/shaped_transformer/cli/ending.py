"""Exit of a command's process, alone or as one of several that a launcher started."""

import atexit
import logging
import os
import sys
from typing import NoReturn

_statuses: list[int] = []
"""The exit status, once `exit_process` has been called in one of several processes."""


def exit_process(status: int) -> NoReturn:
    """Exit this process; one of several exits after its exit handlers, before the interpreter shuts down.

    The threads that carry messages between processes outlive the process group while anything refers to it; with
    parameters divided by FSDP, PyTorch's caches do. If such a thread frees a tensor while the interpreter shuts down,
    the process aborts, and the launcher reports a finished run as failed.

    **Arguments:**

    - `status`: the exit status.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        _statuses.append(status)
    sys.exit(status)


@atexit.register  # exit handlers run in reverse order: this module is imported early, so that this one runs last
def _skip_shutdown() -> None:
    """Exit at once if `exit_process` was called in one of several processes."""
    if not _statuses:
        return
    logging.shutdown()  # its handler was registered before this one
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(_statuses[-1])
