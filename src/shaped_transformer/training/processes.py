"""The processes of one run, started and numbered by a launcher (`torchrun`, `accelerate launch`)."""

import os

import torch
from torch import distributed

from ..errors import InputError


def is_first_process() -> bool:
    """Return whether this process writes the files and messages of the run."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_devices() -> None:
    """Check that a process without a launcher sees no more than one GPU.

    The Trainer would give each of several GPUs a whole batch.

    **Raises:** `InputError` if it sees more.
    """
    if "LOCAL_RANK" not in os.environ and (count := torch.cuda.device_count()) > 1:
        raise InputError(
            f"one process sees {count} GPUs, and each would take a whole batch: start one process for each, with "
            f"torchrun --nproc-per-node {count}, or let it see only one with CUDA_VISIBLE_DEVICES=0"
        )


def wait_for_all() -> None:
    """Wait until all processes have called this; a single process does nothing."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave_group() -> None:
    """Leave the process group at the end of a script; a single process does nothing.

    The threads that carry messages between processes may still hold tensors when the interpreter shuts down, and
    freeing one then aborts the process. Leaving the group waits for these threads. Afterwards this process cannot join
    another run.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
