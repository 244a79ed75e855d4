"""Several processes: each leaves their group before it ends."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from .test_run import Make, spoken

SENDS_AND_ENDS = """
import sys, torch
from torch import distributed
from shaped_transformer.training.processes import leave_group
distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
for _ in range(40):
    distributed.all_reduce(torch.ones(300_000), async_op=True)
leave_group()
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore")  # the libraries warn of their own parts
def test_the_command_leaves_the_group(run: Any, recipe: Make, tmp_path: Path) -> None:
    file = spoken(recipe(steps=2, evaluate=0, save=0, watch=0), tmp_path / "r.yaml")
    code, _, err = run("train", str(file), "--out", "made")
    assert code == 0, err
    assert not distributed.is_initialized()


def test_messages_under_way_do_not_abort_the_end(tmp_path: Path) -> None:
    # without leaving the group, PyTorch 2.13 aborts at least one of the two each time (20 pairs of 20)
    command = [sys.executable, "-c", SENDS_AND_ENDS, str(tmp_path / "store")]
    pair = [subprocess.Popen([*command, rank], stderr=subprocess.PIPE, text=True) for rank in ("0", "1")]
    told = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
