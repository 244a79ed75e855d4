"""Helpers of the tests that train: what a run wrote, recipes as files, processes, interrupts, images."""

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import Trainer

from shaped_transformer.training.log import METRICS, read

Make = Callable[..., Any]
"""The fixture `recipe`: changes → a small recipe."""


def losses(out: Path) -> list[tuple[int, float]]:
    """The training losses of a run by step."""
    return [(line["step"], line["loss"]) for line in read(out / METRICS) if "loss" in line]


def held_out(out: Path) -> list[tuple[int, float]]:
    """The held-out losses of a run by step."""
    return [(line["step"], line["held_out_loss"]) for line in read(out / METRICS) if "held_out_loss" in line]


def write_recipe(recipe: Any, file: Path) -> Path:
    """Write a recipe as YAML."""
    values = {k: v for k, v in recipe.to_dict().items() if k != "kind" and v is not None}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def start_module(arguments: list[str], cwd: Path, **environment: str) -> Any:
    """Start a module of Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=cwd, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise `KeyboardInterrupt` in place of the training step that follows this one."""
    training_step = Trainer.training_step

    def interrupted(self: Any, *arguments: Any) -> Any:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return training_step(self, *arguments)

    monkeypatch.setattr(Trainer, "training_step", interrupted)


def write_images(folder: Path, count: int = 40) -> None:
    """Write small data in the four files of MNIST: a bright row of each image names its class."""
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(count) % 10
        images = rng.integers(0, 100, (count, 28, 28))
        images[np.arange(count), labels] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
