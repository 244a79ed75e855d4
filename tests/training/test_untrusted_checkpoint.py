"""A run resumes from a folder that somebody else may have written: its files are read as numbers, and run no code."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from shaped_transformer import StorageError
from shaped_transformer.training import train
from shaped_transformer.training.folder import Interrupted, last_checkpoint

from .runs import Make, interrupt_after

pytestmark = pytest.mark.filterwarnings("ignore")


class Attack:
    """What makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def interrupted(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(9, patch)
        with pytest.raises(Interrupted):
            train(recipe(), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_checkpoint_runs_no_code(name: str, recipe: Make, interrupted: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(interrupted, tmp_path / "run"))
    checkpoint = last_checkpoint(out)
    assert checkpoint is not None
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    else:
        assert (checkpoint / name).exists()
    mark = tmp_path / "mark"
    (checkpoint / name).write_bytes(pickle.dumps(Attack(mark)))
    with pytest.raises(StorageError, match="cannot be read: it is damaged, or holds more than numbers"):
        train(recipe(), out)
    assert not mark.exists()
    pickle.loads((checkpoint / name).read_bytes())  # the file would have run
    assert mark.exists()
