"""AdamW of weightless models, exact in distribution: updates are made in blocks and dropped."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...numerics.compilation import load_all
from ..matrices.adam import AdamSum, Settings
from ..matrices.weight import Weight
from .base import Parameters, WeightlessOptimiser


class AdamW(WeightlessOptimiser, torch.optim.AdamW):
    """AdamW for a weightless model, as `torch.optim.AdamW` for a real one.

    The update m̂/(√v̂ + ε) is an entry-wise function of the gradients so far, and these are known by their factors xᵀg.
    So a pass makes the updates of each matrix a few rows at a time, multiplies and drops them: as many operations as a
    real product, without its memory. The matrix at initialisation is never drawn (theory §7).

    ```python
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=1024, depth=2, heads=8), seed=0)
    optimiser = st.weightless.AdamW(st.nn.parameter_groups(model, lr=2e-3), weight_decay=0.1)
    model(torch.randn(1, 4, 1024)).square().mean().backward()
    optimiser.step()
    ```

    PyTorch's schedulers of the learning rate take it.

    **Arguments:**

    - `params`: a weightless model, its parameters, or groups of them with settings of their own. Make the optimiser
      before the first backward pass, whose vectors are kept from then.
    - `lr`: learning rate, default 1e-3.
    - `betas`: decay of both moments, default (0.9, 0.999).
    - `eps`: ε, positive, default 1e-8.
    - `weight_decay`: λ, default 0.01; each step multiplies the weights by 1 − lr·λ.

    **Raises:** `InputError` for another model, numbers that do not fit, or a model whose backward pass was not kept.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        load_all("adam")
        self._sums: WeakKeyDictionary[Weight, AdamSum] = WeakKeyDictionary()
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _start_real(self, real: Tensor, number: int) -> None:
        if number:
            moments = {name: torch.zeros_like(real) for name in ("exp_avg", "exp_avg_sq")}
            self.state[real] = {"step": torch.tensor(float(number)), **moments}

    def _step_unseen(self, weight: Weight, group: dict[str, Any], number: int) -> None:
        lr = group["lr"]
        weight.scale(1 - lr * group["weight_decay"])
        if weight.gradient and weight not in self._sums:
            settings = Settings(tuple(group["betas"]), group["eps"])
            self._sums[weight] = AdamSum(weight.name, weight.shape, weight.ledger, settings, number - 1)
            weight.updates.append(self._sums[weight])
        if weight in self._sums:  # else it is one of a stack and never had a gradient
            self._sums[weight].step(weight.gradient, lr)
            weight.last = self._sums[weight]
