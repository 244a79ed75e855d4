"""What the optimisers of weightless models share: parameters without values beside real ones, in groups."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...checks import check_number
from ...errors import InputError
from ..matrices.weight import Weight
from ..network import network_of
from ..parameters.source import Source
from ..parameters.tensor import WeightlessTensor

Parameters = nn.Module | Iterable[Any]
"""A weightless model, its parameters, or groups of them, each a dictionary with `params` and settings of its own."""


class WeightlessOptimiser(torch.optim.Optimizer):
    """An optimiser of PyTorch for the real parameters, which makes the step of those without values too.

    Subclasses inherit from it before one of PyTorch's optimisers, and say how a matrix steps.
    """

    def __init__(self, params: Parameters, **settings: Any) -> None:
        """Make groups of real parameters for PyTorch, and beside each the parameters without values.

        **Raises:** `InputError` for parameters of another model, the same one twice, or none, and those whose backward
        pass was not kept.
        """
        groups = as_groups(params)
        check_once(groups, empty=isinstance(params, nn.Module))
        for group in groups:
            check_settings({name: value for name, value in (settings | group).items() if name != "params"})
        self._sources = [[p.source for p in one["params"] if isinstance(p, WeightlessTensor)] for one in groups]
        ledgers = {id(source.ledger): source.ledger for some in self._sources for source in some}
        if len(ledgers) > 1:
            raise InputError(f"give the parameters of one weightless model (got those of {len(ledgers)})")
        if any(weight.forgotten is not None for some in self._sources for one in some for weight in one.parts()):
            raise InputError(
                "the vectors of the last backward pass were not kept: make the optimiser before the first pass, or "
                "call st.weightless.redraw(model, seed=...)"
            )
        self._generations = [(ledger, ledger.generation) for ledger in ledgers.values()]
        for ledger in ledgers.values():
            ledger.history = True
        self._numbers: WeakKeyDictionary[Source, int] = WeakKeyDictionary()
        reals = [
            one | {"params": [p for p in one["params"] if not isinstance(p, WeightlessTensor)] or [torch.zeros(0, 0)]}
            for one in groups
        ]
        super().__init__(reals, **settings)
        self._complete = True

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse groups that come after the optimiser was made.

        **Raises:** `InputError`.
        """
        if getattr(self, "_complete", False):  # PyTorch calls it for each group while the optimiser is made
            raise InputError("groups of parameters cannot be added later: give all of them when making the optimiser")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Refuse to save a state that is that of the network.

        **Raises:** `InputError`.
        """
        raise InputError(
            "an optimiser of a weightless model cannot be saved, because its state lies in the vectors that the "
            "network has met: repeat the same steps from the same seed"
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse it likewise.

        **Raises:** `InputError`.
        """
        self.state_dict()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        super().zero_grad(set_to_none)
        for some in self._sources:
            for source in some:
                source.clear_gradient()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step with the gradients of all parameters.

        **Arguments:**

        - `closure`: computes the loss again, as in PyTorch; default none.

        **Returns:** the closure's loss, or `None`.

        **Raises:** `InputError` where the network was redrawn since the optimiser was made.
        """
        if any(ledger.generation != before for ledger, before in self._generations):
            raise InputError("the network was redrawn: make a new optimiser for it")
        for name in ("maximize", "amsgrad"):
            if any(group.get(name) for group in self.param_groups):
                raise InputError(f"{name} is not supported: leave it as it is")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        stepping: list[tuple[Source, Weight, dict[str, Any]]] = []
        for group, sources in zip(self.param_groups, self._sources, strict=True):
            for source in sources:
                parts = _stepping(source)
                for real in _reals(source, parts):
                    if not any(real is one for one in group["params"]):
                        group["params"].append(real)
                        self._start_real(real, self._numbers.get(source, 0))
                stepping += [(source, weight, group) for weight in parts if weight.real is None]
        super().step()
        for source in {source for source, _, _ in stepping}:
            self._numbers[source] = self._numbers.get(source, 0) + 1
        for source, weight, group in stepping:
            weight.version += 1
            self._step_unseen(weight, group, self._numbers[source])
        return loss

    def _start_real(self, real: Tensor, number: int) -> None:
        """Prepare PyTorch's step of a matrix that was drawn for real after its stack made `number` steps."""

    @abstractmethod
    def _step_unseen(self, weight: Weight, group: dict[str, Any], number: int) -> None:
        """Make the step of a matrix that is known by what it has met; `number` counts those of its parameter from 1."""


def check_settings(settings: dict[str, Any]) -> None:
    """Check the numbers of a group.

    **Raises:** `InputError` for one that does not fit.
    """
    for name in ("lr", "momentum", "weight_decay", "dampening"):
        if name in settings and not 0 <= check_number(settings[name], name) < float("inf"):
            raise InputError(f"{name} must be a finite number of at least 0 (got {settings[name]:g})")
    if "eps" in settings and not 0 < check_number(settings["eps"], "eps") < float("inf"):
        raise InputError(f"eps must be a positive number (got {settings['eps']:g})")
    if "betas" in settings:
        try:
            first, second = settings["betas"]
        except (TypeError, ValueError):
            raise InputError(f"betas must be two numbers (got {settings['betas']!r})") from None
        if not (0 <= check_number(first, "betas") < 1 and 0 <= check_number(second, "betas") < 1):
            raise InputError(f"betas must be at least 0 and below 1 (got {first:g}, {second:g})")


def check_once(groups: list[dict[str, Any]], *, empty: bool = False) -> None:
    """Check that there are parameters, each once; `empty` allows none, as of a model that has none.

    **Raises:** `InputError` otherwise.
    """
    every = [p for group in groups for p in group["params"]]
    if not every and not empty:
        raise InputError(
            "the optimiser has no parameters: give a weightless model, or a list (an iterator can be read once)"
        )
    if len({id(p) for p in every}) < len(every):
        twice = next(p for i, p in enumerate(every) if any(p is other for other in every[:i]))
        name = twice.source.name if isinstance(twice, WeightlessTensor) else f"one of shape {tuple(twice.shape)}"
        raise InputError(f"each parameter must be in exactly one group, once (got {name} twice)")


def as_groups(params: Any) -> list[dict[str, Any]]:
    """Return groups of parameters."""
    if isinstance(params, nn.Module):
        network_of(params)  # raises for another model
        params = params.parameters()
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise InputError(
            f"a weightless model, its parameters or groups of them are expected (got {type(params).__name__})"
        )
    found = list(params)
    groups = (
        [dict(one) for one in found] if found and all(isinstance(one, dict) for one in found) else [{"params": found}]
    )
    for one in groups:
        some = one.get("params")
        some = [some] if isinstance(some, Tensor) else some
        one["params"] = list(some) if isinstance(some, Iterable) else []
        if not all(isinstance(p, Tensor) for p in one["params"]):
            raise InputError("each group needs params, a list of parameters of a weightless model")
    return groups


def _stepping(source: Source) -> list[Weight]:
    """Return the matrices of a parameter if it has a gradient, those of a stack without one included."""
    if not any(weight.has_gradient for weight in source.parts()):
        return []
    return source.all_parts()


def _reals(source: Source, stepping: list[Weight]) -> list[Tensor]:
    """Return what was drawn for real of a parameter, with gradients for PyTorch's optimiser."""
    reals = [weight.real for weight in stepping if weight.real is not None]
    for real in reals:
        if real.grad is None:  # one of a stack, of which others have a gradient
            real.grad = torch.zeros_like(real)
    return [source.data] if source.data is not None and not source.parts() else reals
