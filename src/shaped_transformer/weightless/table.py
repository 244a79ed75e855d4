"""The table of a model's parameters: distribution, how each is treated, and what memory that saves."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..errors import InputError
from .network import Network, network_of
from .parameters.tensor import WeightlessTensor
from .recording.laws import GIVEN

Treatment = Literal["unseen", "drawn", "constant", "given"]


@dataclass(frozen=True)
class ParameterLaw:
    """A parameter's distribution at initialisation and how it is simulated.

    **Arguments:**

    - `name`, `shape`: of the parameter.
    - `law`: its distribution, as text.
    - `treatment`: `"unseen"` (never drawn), `"drawn"` (real random values), `"constant"`, or `"given"` (by values from
      elsewhere, which `redraw` leaves as they are).
    - `approximate`: whether a Gaussian of equal variance stands for the distribution.
    - `saved`: bytes that real values would take and are not used.
    """

    name: str
    shape: tuple[int, ...]
    law: str
    treatment: Treatment
    approximate: bool
    saved: int


class Laws(tuple[ParameterLaw, ...]):
    """The laws of all parameters, by number or name; printed, a table."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            found = next((one for one in self if one.name == key), None)
            if found is None:
                raise InputError(f"unknown parameter {key!r}: shared parameters have the name that comes first")
            return found
        return super().__getitem__(key)

    @property
    def approximate(self) -> bool:
        """Whether a Gaussian of equal variance stands for any distribution."""
        return any(one.approximate for one in self)

    def __str__(self) -> str:
        rows = [("parameter", "shape", "distribution", "treatment", "saved MB")]
        for one in self:
            law = f"{one.law} (Gaussian of equal variance)" if one.approximate else one.law
            shape = " × ".join(map(str, one.shape))
            rows.append((one.name, shape, law, one.treatment, f"{one.saved / 1e6:,.3f}"))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        note = ["The results are approximate: see the parameters marked so."] if self.approximate else []
        return "\n".join([*lines, *note])

    __repr__ = __str__


def laws(model: nn.Module) -> Laws:
    """Return how each parameter of a weightless model is distributed and treated.

    ```python
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=4096, depth=2), seed=0)
    print(st.weightless.laws(model))
    ```

    A matrix that is drawn because that is cheaper says so after its first product.

    **Arguments:**

    - `model`: a weightless model.

    **Raises:** `InputError` for another model.
    """
    network = network_of(model)
    return Laws(_law(network, name, parameter) for name, parameter in model.named_parameters())


def _law(network: Network, name: str, parameter: nn.Parameter) -> ParameterLaw:
    """Return the law of one parameter."""
    shape, approximate = tuple(parameter.shape), name in network.approximate
    size = parameter.numel() * network.ledger.dtype.itemsize
    if not isinstance(parameter, WeightlessTensor):
        law = next((one.law for one in network.drawn.values() if one.tensor is parameter), None)
        if law is None:
            return ParameterLaw(name, shape, "made after building", "given", approximate=False, saved=0)
        treatment: Treatment = "constant" if law.kind == "constant" else "given" if law.reason == GIVEN else "drawn"
        return ParameterLaw(name, shape, str(law), treatment, approximate, 0)
    source = parameter.source
    used = (
        size if source.data is not None else sum(0 if one.real is None else one.real.nbytes for one in source.parts())
    )
    law = source.law
    treatment = "constant" if law.kind == "constant" else "drawn" if used == size else "unseen"
    return ParameterLaw(name, shape, str(law), treatment, approximate, size - used)
