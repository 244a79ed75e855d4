"""The processes of one run, which a launcher (`torchrun`, `accelerate launch`) starts and numbers."""

import os

from torch import distributed


def is_first_process() -> bool:
    """Return whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """Return how many processes a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Wait until all processes have come here; alone, do nothing."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave_group() -> None:
    """Leave the group of processes at the end of a script; alone, do nothing.

    The threads that carry messages between processes may still hold tensors when the interpreter shuts down, and
    freeing one then aborts the process. Leaving waits for them. No run on several processes can follow.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
