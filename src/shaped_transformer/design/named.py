"""Activations by one name each, as the command line and the options of blocks take them."""

from ..errors import DefinitionError
from .activations import PLAIN, SMOOTH, Activation, AnyActivation, ShapedReLU, ShapedSmooth

SHAPED_RELU = "shaped-relu"
"""The shaped ReLU, whose slopes a user may give beside its name."""

NAMED: dict[str, AnyActivation] = {
    **{name: Activation(name) for name in PLAIN},
    SHAPED_RELU: ShapedReLU(),
    **{f"shaped-{name}": ShapedSmooth(name, a=1.0) for name in SMOOTH},
}
"""The activations by name: plain ones, the shaped ReLU with slopes 1 and 1 − 1/√n, shaped smooth ones with a = 1."""


def named_activation(name: str) -> AnyActivation:
    """Return the activation with a name.

    **Arguments:**

    - `name`: a plain one such as `"gelu"`, or a shaped one such as `"shaped-tanh"`, which stands for
      `ShapedSmooth("tanh", a=1.0)`.

    **Raises:** `DefinitionError` for another name.
    """
    if name not in NAMED:
        raise DefinitionError(f"unknown activation {name!r}: choose one of {', '.join(NAMED)}")
    return NAMED[name]
