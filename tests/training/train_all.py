"""Trains the recipes of a file, as one of several processes; the recipe "interrupted" is interrupted and resumed.

With "fsdp" as second argument the parameters are divided between the processes, as `accelerate launch --use_fsdp
--fsdp_version 2` does. accelerate allows this on accelerators only, so CPUs are presented to it as such.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer

from shaped_transformer.cli.ending import exit_process
from shaped_transformer.training import Recipe, train
from shaped_transformer.training.processes import leave_group

INTERRUPTED_AT = 9
TRAINING_STEP, SAVE_MODEL = Trainer.training_step, Trainer.save_model


def interrupted(self: Any, *arguments: Any) -> Any:
    """A training step, or an interrupt in its place."""
    if self.state.global_step == INTERRUPTED_AT:
        raise KeyboardInterrupt
    return TRAINING_STEP(self, *arguments)


def use_cpu(state: Any) -> None:
    """Set the device and the backend of a process."""
    state.device, state.backend = torch.device("cpu"), "gloo"


def divide_parameters() -> None:
    """Let accelerate use FSDP version 2 on CPUs, with gloo."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    os.environ["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    from accelerate import state  # type: ignore[import-untyped]

    torch.distributed.init_process_group("gloo")
    torch.accelerator.is_available = lambda: True
    state.is_neuron_available = lambda: True  # an accelerator that needs no further libraries
    state.PartialState.set_device = use_cpu


def save_divided(trainer: Any, *arguments: Any, **options: Any) -> None:
    """Save a model, or fail if its parameters are not divided."""
    if not any(isinstance(parameter, DTensor) for parameter in trainer.model.parameters()):
        raise RuntimeError("the parameters are not divided")
    SAVE_MODEL(trainer, *arguments, **options)


def main(file: str, kind: str) -> None:
    """Train all recipes."""
    if kind == "fsdp":
        divide_parameters()
        Trainer.save_model = save_divided  # type: ignore[assignment, method-assign]
    for name, values in json.loads(Path(file).read_text(encoding="utf-8")).items():
        recipe, out = Recipe.from_dict(values), Path("two") / name
        if name == "interrupted":
            Trainer.training_step = interrupted  # type: ignore[assignment, method-assign]
            try:
                train(recipe, out)
            except KeyboardInterrupt:
                Trainer.training_step = TRAINING_STEP  # type: ignore[method-assign]
        train(recipe, out)
    leave_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process(0)
