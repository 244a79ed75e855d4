"""How a command's process ends."""

import atexit
import os
import sys
from typing import NoReturn


def end(status: int) -> NoReturn:
    """End this process; one of several that a launcher started ends without shutting the interpreter down.

    The threads that carry messages between processes outlive their group while anything refers to it, and with
    parameters divided by FSDP the caches of PyTorch do. Such a thread that frees a tensor while the interpreter shuts
    down aborts the process, and the launcher then calls a finished run failed.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(status)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
