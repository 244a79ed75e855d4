"""The gains of shaped attention during training: fixed, trained, or reduced to 0 for plain softmax attention [ST]."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from .checks import check_module

Mode = Literal["fixed", "learn", "recover"]


class Shaping(nn.Module):
    """The gains a of the identity and b of the centring, one of each per head, and how they change in training.

    Gains and step are in the state dict. The modes "learn" and "recover" are [ST]'s, by name and as summarised there;
    the linear schedule is ours.

    ```python
    shaping = st.nn.Shaping(heads=4, mode="recover", recover_steps=100)
    shaping.advance(50)
    identity, uniform = shaping.gains()  # 0.5 in each head
    ```

    **Arguments:**

    - `heads`: H.
    - `mode`: `"fixed"` (default): the gains are constant. `"learn"`: they are parameters. `"recover"`: they fall
      linearly to 0 over `recover_steps` training steps, so that training ends with plain softmax attention.
    - `recover_steps`: number of steps of `"recover"`; required there, and only there.
    - `identity`, `uniform`: a and b at initialisation, numbers or one per head; default 1, as in the theory.

    **Raises:** `InputError` for an unknown mode, or `recover_steps` that are missing, superfluous or below 1.
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
            raise InputError(
                f"shaping='recover' needs recover_steps, and no other mode takes it (got shaping={mode!r}, "
                f"recover_steps={recover_steps})"
            )
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
        """Return the current (a, b), each (H,)."""
        if self.recover_steps is None:
            return self.identity_gain, self.uniform_gain
        remaining = (1 - self.step / self.recover_steps).clamp(min=0).to(self.identity_gain.dtype)
        return remaining * self.identity_gain, remaining * self.uniform_gain

    def advance(self, steps: int = 1) -> None:
        """Count training steps, by default one."""
        self.step += steps

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}" + ("" if self.recover_steps is None else f", recover_steps={self.recover_steps}")


def advance(model: nn.Module, steps: int = 1) -> None:
    """Count training steps in every shaped attention of a model: call it after each optimiser step.

    Only `shaping="recover"` depends on the count.

    ```python
    model = st.nn.ShapedTransformer(width=32, depth=2, shaping="recover", recover_steps=100)
    st.nn.advance(model)
    ```

    **Arguments:**

    - `model`: any module.
    - `steps`: the number of steps, default 1.

    **Raises:** `InputError` if `model` is not an `nn.Module`.
    """
    check_module(model)
    for part in model.modules():
        if isinstance(part, Shaping):
            part.advance(steps)
