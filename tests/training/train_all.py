"""Trains the recipes of a file one after the other, as one of several processes; "interrupted" is, and goes on.

With "fsdp" as a second argument parameters are divided between the processes, as `accelerate launch --use_fsdp
--fsdp_version 2` does. accelerate allows this on accelerators only, so that processors are given out for some.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from shaped_transformer.cli.ending import end
from shaped_transformer.training import Recipe, run, train
from shaped_transformer.training.processes import leave_group

INTERRUPTED_AT = 9
STEP = run._Trainer.training_step


def interrupted(self: Any, *arguments: Any) -> Any:
    """A training step, or an interrupt instead."""
    if self.state.global_step == INTERRUPTED_AT:
        raise KeyboardInterrupt
    return STEP(self, *arguments)


def divide_parameters() -> None:
    """Let accelerate take FSDP, of version 2, with gloo and processors."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    os.environ["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    from accelerate.state import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedType  # type: ignore[import-untyped]

    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_NEURON)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))


def main(file: str, kind: str) -> None:
    """Train all."""
    if kind == "fsdp":
        divide_parameters()
    for name, values in json.loads(Path(file).read_text(encoding="utf-8")).items():
        recipe, out = Recipe.from_dict(values), Path("two") / name
        if name == "interrupted":
            run._Trainer.training_step = interrupted  # type: ignore[assignment, method-assign]
            try:
                train(recipe, out)
            except KeyboardInterrupt:
                run._Trainer.training_step = STEP  # type: ignore[method-assign]
        train(recipe, out)
    leave_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    end(0)
