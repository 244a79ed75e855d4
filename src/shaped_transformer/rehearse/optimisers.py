"""The optimiser of a rehearsal: by name or the user's own, with groups, warm-up and clipping."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .. import weightless
from ..checks import check_count, check_number
from ..errors import InputError
from ..probe.layers import find_blocks

NAMES = ("adamw", "muon", "sgd")
"""Optimisers that are known by name."""

Groups = Callable[[nn.Module, float], list[dict[str, Any]]]
"""Model and learning rate → groups of parameters, such as `st.nn.parameter_groups`."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    **Arguments:**

    - `optimiser`: `"adamw"`, `"muon"`, `"sgd"`, or a function model → optimiser, or optimisers.
    - `lr`: learning rate.
    - `groups`: groups of parameters; default `None`: one rate, and weight decay of matrices alone.
    - `warmup`: steps of linear warm-up: the rate of step s = 1, 2, … is lr·s/warmup until it is lr; 0 for none.
    - `clip`: largest global norm of the gradient, or `None`.
    - `weight_decay`: λ.
    - `options`: further arguments of the optimiser, such as `betas`.
    """

    optimiser: str | Callable[[Any], Any]
    lr: float
    groups: Groups | None = None
    warmup: int = 0
    clip: float | None = None
    weight_decay: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if not callable(self.optimiser) and self.optimiser not in NAMES:
            raise InputError(
                f"optimiser must be {', '.join(map(repr, NAMES))} or a function model → optimiser (got "
                f"{self.optimiser!r}): others do not work without weights"
            )
        if not 0 < check_number(self.lr, "lr") < float("inf"):
            raise InputError(f"lr must be a positive number (got {self.lr:g})")
        if self.groups is not None and not callable(self.groups):
            raise InputError(
                "groups must be a function (model, lr) → groups, such as st.nn.parameter_groups (got "
                f"{self.groups!r:.60})"
            )
        if not isinstance(self.options, Mapping):
            raise InputError(f"options must be a dictionary of the optimiser's arguments (got {self.options!r:.60})")
        if callable(self.optimiser) and (self.groups is not None or self.options):
            raise InputError("groups and options only go with the name of an optimiser: a function sets its own")
        check_count(self.warmup, "warmup", least=0)
        if self.clip is not None and not check_number(self.clip, "clip") > 0:
            raise InputError(f"clip must be positive (got {self.clip:g})")
        if not 0 <= check_number(self.weight_decay, "weight_decay") < float("inf"):
            raise InputError(f"weight_decay must be a finite number of at least 0 (got {self.weight_decay:g})")

    def make(self, model: nn.Module) -> list[Any]:
        """Return the optimisers of a model, weightless or real.

        **Raises:** `InputError` where the user's functions give none, or options do not fit.
        """
        library: Any = weightless if hasattr(model, "weightless") else torch.optim
        if callable(self.optimiser):
            made = self.optimiser(model)
            made = list(made) if isinstance(made, Sequence) else [made]
            if not made or not all(isinstance(one, torch.optim.Optimizer) for one in made):
                raise InputError(f"the function given as optimiser must return optimisers (got {made!r:.60})")
            return made
        groups = decayed(model) if self.groups is None else listed(self.groups(model, self.lr))
        try:
            return self._named(library, model, groups)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.optimiser} cannot be made with these groups and options: {error}") from None

    def _named(self, library: Any, model: nn.Module, groups: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the optimisers of a name.

        **Arguments:**

        - `library`: where they are from.
        - `model`: weightless or real.
        - `groups`: of its parameters.
        """
        given = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimiser == "muon":
            matrices, others = hidden(model, groups)
            options = {"adjust_lr_fn": "match_rms_adamw", **self.options}
            return [
                *([library.Muon(matrices, **given, **options)] if matrices else []),
                *([library.AdamW(others, **given)] if others else []),
            ]
        made = library.AdamW if self.optimiser == "adamw" else library.SGD
        return [made(groups, **given, **self.options)]

    def rate(self, step: int) -> float:
        """Return by what all rates are multiplied in a step, counted from 0."""
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0


def decayed(model: nn.Module) -> list[dict[str, Any]]:
    """Return two groups: matrices, which decay, and biases, gains and the like, which do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices, others = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
    return [{"params": matrices}, *([{"params": others, "weight_decay": 0.0}] if others else [])]


def listed(groups: Any) -> list[dict[str, Any]]:
    """Return groups of parameters that a user's function has made, each with a list.

    **Raises:** `InputError` where they are no groups, or hold no parameters.
    """
    groups = list(groups) if isinstance(groups, Iterable) else [groups]
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), Iterable) for group in groups):
        raise InputError(f"groups must return dictionaries, each with a list of params (got {groups!r:.60})")
    found = [
        {**group, "params": [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])}
        for group in groups
    ]
    if not any(group["params"] for group in found):
        raise InputError("groups must return groups with parameters (got none)")
    return found


def hidden(model: nn.Module, groups: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the groups' matrices inside the model's blocks, and all other parameters."""
    inside = {id(p) for block in find_blocks(model, None).values() for p in block.parameters() if p.dim() == 2}
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for some, wanted in zip(parts, (True, False), strict=True):
            chosen = [p for p in group["params"] if (id(p) in inside) == wanted]
            if chosen:
                some.append(group | {"params": chosen})
    return parts
