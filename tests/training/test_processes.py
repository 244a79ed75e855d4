"""Several processes: they give the losses of one, stop and resume together, and leave their group at the end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marks import slow
from safetensors.numpy import load_file
from torch import distributed

from shaped_transformer.errors import InputError
from shaped_transformer.training import train

from .runs import Make, held_out, losses, start_module, write_images, write_recipe

SENDS_AND_EXITS = """
import sys
from shaped_transformer.cli.ending import exit_process
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from shaped_transformer.training.processes import leave_group
distributed.init_process_group("gloo")
if sys.argv[1] == "divided":
    distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (2,)), [Shard(0)]).full_tensor()
for _ in range(40):
    distributed.all_reduce(torch.ones(300_000), async_op=True)
leave_group()
if sys.argv[2] == "exit_process":
    exit_process(0)
"""
TRAINS_ALL = Path(__file__).with_name("train_all.py")


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
    file = write_recipe(recipe(steps=2, evaluate=0, save=0, watch=0), tmp_path / "r.yaml")
    code, _, err = run("train", str(file), "--out", "made")
    assert code == 0, err
    assert not distributed.is_initialized()


def test_several_gpus_without_a_launcher_are_refused(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer would give each of them a whole batch."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(InputError, match=r"sees 4 GPUs.*torchrun --nproc-per-node 4"):
        train(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def send_and_exit(parameters: str, how: str, folder: Path) -> tuple[int, str]:
    """Leave a group while messages are under way, and exit; the exit status and standard error."""
    (folder / "sends.py").write_text(SENDS_AND_EXITS, encoding="utf-8")
    return on_two(["sends.py", parameters, how], folder)


@pytest.mark.slow
@pytest.mark.parametrize(("parameters", "how"), [("whole", "shut down"), ("divided", "exit_process")])
def test_messages_under_way_do_not_abort_the_exit(parameters: str, how: str, tmp_path: Path) -> None:
    # without leaving the group, PyTorch 2.13 aborts at least one of the two each time (20 pairs of 20)
    status, errors = send_and_exit(parameters, how, tmp_path)
    assert status == 0, errors


@pytest.mark.slow
def test_with_divided_parameters_leaving_is_not_enough(tmp_path: Path) -> None:
    """Why `exit_process` is needed: about nine of ten pairs abort without it."""
    errors = (send_and_exit("divided", "shut down", tmp_path)[1] for _ in range(5))
    assert any("terminate called without an active exception" in each for each in errors)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_exit_handlers_run_before_the_exit(processes: str) -> None:
    code = (
        "import atexit; from shaped_transformer.cli.ending import exit_process;"
        "atexit.register(print, 'handler', end=''); exit_process(3)"
    )
    environment = os.environ | {"WORLD_SIZE": processes}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (3, "handler", "")


def on_two(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run a module in two processes; the launcher's exit status and standard error."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    process = start_module(launch, folder, OMP_NUM_THREADS="1")
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def assert_same_losses(two: Path, one: Path) -> None:
    for found in (losses, held_out):
        a, b = found(two), found(one)
        assert [step for step, _ in a] == [step for step, _ in b]
        np.testing.assert_allclose([x for _, x in a], [x for _, x in b], rtol=2e-5)


@pytest.mark.parametrize("kind", slow(["ddp", "fsdp"], long=["ddp"]))
@pytest.mark.filterwarnings("ignore")
def test_two_processes_are_one(kind: str, recipe: Make, tmp_path: Path) -> None:
    """All tasks; held-out sequences that do not fill the last batch; a spike in one half of a batch that is none in the
    whole batch (1.033 of the first loss against 1.023); and a run that is interrupted.
    """
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images")
    recipes = {
        "causal-lm": recipe(held_out=7),
        "masked-lm": recipe(task="masked-lm", held_out=7),
        "classification": recipe(task="classification", held_out=7),
        "images": recipe(task="images", data=str(tmp_path / "images"), patch=14, held_out=7),
        "half a spike": recipe(task="masked-lm", batch=32, lr=1e-6, spike=1.028),
        "interrupted": recipe(seed=3),
    }
    for name, chosen in recipes.items():
        train(chosen, tmp_path / "one" / name)
    (tmp_path / "recipes.json").write_text(json.dumps({name: r.to_dict() for name, r in recipes.items()}))
    status, errors = on_two([str(TRAINS_ALL), "recipes.json", kind], tmp_path)
    assert status == 0, errors
    for name in recipes:
        assert_same_losses(tmp_path / "two" / name, tmp_path / "one" / name)
        assert (tmp_path / "two" / name / "report.md").exists()
        of_two, of_one = (load_file(tmp_path / made / name / "model" / "model.safetensors") for made in ("two", "one"))
        assert of_two.keys() == of_one.keys()
        for key, value in of_one.items():
            np.testing.assert_allclose(of_two[key], value, atol=1e-3)
    with pytest.raises(AssertionError):  # another seed is further away than the tolerance
        assert_same_losses(tmp_path / "two" / "interrupted", tmp_path / "one" / "causal-lm")


@pytest.mark.slow
def test_two_processes_stop_together(recipe: Make, tmp_path: Path) -> None:
    """Each process writes the reason in one line, and the first writes the report."""
    file = write_recipe(recipe(lr=0.1, warmup=0, steps=60, clip=1e3, batch=16, spike=1.2), tmp_path / "r.yaml")
    status, errors = on_two(["-m", "shaped_transformer", "train", str(file), "--out", "made"], tmp_path)
    assert status != 0
    assert errors.count("diverged at step") == 2, errors
    assert errors.count("Traceback") == 1, errors  # the launcher's own, which it prints at every failure
    report = (tmp_path / "made" / "report.md").read_text(encoding="utf-8")
    assert "**Stopped:** training diverged at step" in report
