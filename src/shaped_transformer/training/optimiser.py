"""The optimiser of a training run, with its learning rates."""

from typing import Any

import torch

from ..nn import parameter_groups
from .completep import completep_groups
from .recipe import Recipe
from .variants import VARIANTS


def build_optimiser(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW with the learning rates of the recipe's variant: one per parameter group, or one for all."""
    variant = VARIANTS[recipe.variant]
    if variant.alpha is not None:
        return torch.optim.AdamW(completep_groups(model, recipe.lr, recipe.weight_decay, variant.alpha))
    if variant.groups:
        return torch.optim.AdamW(parameter_groups(model, recipe.lr, recipe.weight_decay))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [(matrices, recipe.weight_decay), (others, 0.0)]
    return torch.optim.AdamW([{"params": p, "lr": recipe.lr, "weight_decay": decay} for p, decay in groups if p])
