"""The gains of shaped attention during training: held, learnt, or taken back to plain softmax attention [ST]."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from .checks import check_module

Mode = Literal["fixed", "learn", "recover"]


class Shaping(nn.Module):
    """The gains a of the identity and b of the centring, one of each per head, as they change in training.

    **Arguments:**

    - `heads`: H.
    - `mode`: `"fixed"` (default): the gains stay as they are. `"learn"`: they are parameters. `"recover"`: they fall
      linearly to 0 over `recover_steps` calls of `advance`, so that training ends with plain softmax attention.
    - `recover_steps`: for `"recover"` only, and needed there.
    - `identity`, `uniform`: a and b at initialisation, numbers or one per head; default 1, the theory's.

    All that changes is in the state dict. The two ways of training are [ST]'s, by name and as summarised; the schedule
    is ours.
    """

    def __init__(
        self,
        heads: int,
        mode: Mode = "fixed",
        recover_steps: int | None = None,
        identity: float | tuple[float, ...] = 1.0,
        uniform: float | tuple[float, ...] = 1.0,
    ) -> None:
        super().__init__()
        if mode not in ("fixed", "learn", "recover"):
            raise InputError(f"shaping must be 'fixed', 'learn' or 'recover' (got {mode!r})")
        if (mode == "recover") != (recover_steps is not None):
            raise InputError("recover_steps, how many steps it takes, goes with shaping='recover' and is needed there")
        if recover_steps is not None and recover_steps < 1:
            raise InputError(f"recover_steps must be at least 1 (got {recover_steps})")
        self.mode, self.recover_steps = mode, recover_steps
        for name, gain in (("identity_gain", identity), ("uniform_gain", uniform)):
            values = torch.as_tensor(gain, dtype=torch.get_default_dtype()).expand(heads).clone()
            if mode == "learn":
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.identity_gain: Tensor
        self.uniform_gain: Tensor
        self.step: Tensor

    def gains(self) -> tuple[Tensor, Tensor]:
        """Return (a, b) as they are now, each (H,)."""
        if self.recover_steps is None:
            return self.identity_gain, self.uniform_gain
        left = (1 - self.step / self.recover_steps).clamp(min=0).to(self.identity_gain.dtype)
        return left * self.identity_gain, left * self.uniform_gain

    def advance(self, steps: int = 1) -> None:
        """Note that so many training steps were taken."""
        self.step += steps

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}" + ("" if self.recover_steps is None else f", recover_steps={self.recover_steps}")


def advance(model: nn.Module, steps: int = 1) -> None:
    """Tell all shaped attention in a model that so many training steps were taken; call it after each optimiser step.

    It matters for shaping="recover" only, and is harmless elsewhere.

    **Raises:** `InputError` for what is no module.
    """
    check_module(model)
    for part in model.modules():
        if isinstance(part, Shaping):
            part.advance(steps)
