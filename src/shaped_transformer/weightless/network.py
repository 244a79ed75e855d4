"""A weightless model as a whole: which of its parameters are never drawn, which are drawn, and with which seed."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_seed
from ..errors import InputError, counted
from .matrices.ledger import Ledger
from .parameters.source import Source
from .parameters.tensor import View, WeightlessTensor
from .recording.law import Law
from .recording.record import Recording, draw_jointly
from .recording.sharing import groups, twins

SMALL = 2**16
"""Most entries of a matrix that is drawn for real because its distribution has no weightless form."""

EXACT = ("normal", "orthogonal")
APPROXIMATE = ("uniform", "truncated")
"""Distributions with independent entries that a Gaussian of equal variance can stand for."""

ATTRIBUTE = "weightless"
"""Name of the model's attribute that holds its `Network`."""


@dataclass(eq=False)
class Drawn:
    """A parameter or buffer that is drawn for real.

    **Arguments:**

    - `name`: its name in the model.
    - `tensor`: the parameter.
    - `recording`: how the model's code initialises it.
    - `law`: its distribution.
    """

    name: str
    tensor: Tensor
    recording: Recording
    law: Law


class Network:
    """The weightless parameters of a model and those drawn for real.

    **Arguments:**

    - `model`: with its weights on `meta`; they are replaced.
    - `recordings`: how each parameter is initialised.
    - `ledger`: seed, dtype and limits.
    - `approximate`: whether a Gaussian of equal variance may stand for other distributions.
    """

    def __init__(
        self, model: nn.Module, recordings: dict[str, Recording], ledger: Ledger, *, approximate: bool
    ) -> None:
        self.ledger = ledger
        self.sources: dict[str, Source] = {}
        self.drawn: dict[str, Drawn] = {}
        self.approximate: set[str] = set()
        laws = {name: recordings[name].law(tensor.shape) for name, tensor in _named(model)}
        unseen = {name for name, tensor in _named(model) if _has_weightless_form(tensor, laws[name], approximate)}
        self._check_rest(model, laws, unseen)
        self._first = twins({name: recordings[name] for name in laws if name in unseen})
        made: dict[int, Tensor] = {}
        for owner, attribute, name, tensor in _places(model):
            if id(tensor) not in made:
                if name in unseen:
                    made[id(tensor)] = self._weightless(name, tensor, laws[name])
                else:
                    made[id(tensor)] = self._real(name, tensor, recordings.get(name), laws.get(name))
            setattr(owner, attribute, made[id(tensor)])
        self._groups = groups(recordings, self.drawn)
        self._check_independent(recordings)
        self._draw()
        buffers = [one for name, one in model.named_buffers() if name not in self.drawn]
        self._buffers = [(one, one.detach().clone()) for one in buffers]

    def _weightless(self, name: str, tensor: Tensor, law: Law) -> Tensor:
        """Return the weightless parameter in place of one on `meta`."""
        if law.kind in APPROXIMATE:
            self.approximate.add(name)
        self.sources[name] = Source(name, tensor.shape, law, self.ledger, twin=self.sources.get(self._first[name]))
        out = WeightlessTensor(self.sources[name], View(), tensor.shape, requires_grad=tensor.requires_grad)
        out._is_param = True  # what PyTorch asks of a parameter of another class
        return out

    def _real(self, name: str, tensor: Tensor, recording: Recording | None, law: Law | None) -> Tensor:
        """Return the parameter or buffer with values."""
        if recording is None or law is None:
            return tensor
        if tensor.is_meta:
            values = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            tensor = nn.Parameter(values, requires_grad=tensor.requires_grad) if is_parameter else values
        self.drawn[name] = Drawn(name, tensor, recording, law)
        return tensor

    def _draw(self) -> None:
        """Draw the parameters that are real, those that share random numbers together."""
        for names in self._groups:
            some = [self.drawn[name] for name in names]
            values = _drawn_together(names[0], [one.recording for one in some], self.ledger)
            for one, value in zip(some, values, strict=True):
                self.ledger.reserve(one.tensor.nbytes)
                one.tensor.grad = None
                with torch.no_grad():
                    one.tensor.copy_(value.reshape(one.tensor.shape))

    def _check_rest(self, model: nn.Module, laws: dict[str, Law], unseen: set[str]) -> None:
        """Check that the parameters without a weightless form can be drawn and fit into memory.

        **Raises:** `InputError` with their names and sizes otherwise.
        """
        rest = {name: tensor for name, tensor in _named(model) if name not in unseen}
        refused = [
            name
            for name, tensor in rest.items()
            if laws[name].kind in APPROXIMATE and tensor.dim() > 1 and tensor.numel() > SMALL
        ]
        if refused:
            raise InputError(
                f"{counted(len(refused), 'weight')} cannot be simulated exactly, because the initialisation is not "
                f"Gaussian or orthogonal: {_listed(refused, rest, laws)}. Give approximate=True to take Gaussian "
                "weights of equal variance, or initialise them with torch.nn.init.normal_ or orthogonal_"
            )
        size = sum(tensor.nbytes for tensor in rest.values())
        if size > self.ledger.limit:
            largest = sorted(rest, key=lambda name: -rest[name].nbytes)
            raise InputError(
                f"the parameters that must be drawn for real take {size / 1e9:.3g} GB, more than the limit of "
                f"{self.ledger.limit / 1e9:.3g} GB: {_listed(largest, rest, laws)}. Give a larger memory="
            )

    def _check_independent(self, recordings: dict[str, Recording]) -> None:
        """Check that no parameter that is drawn depends on the random numbers of one that is not.

        **Raises:** `InputError` with its name otherwise.
        """
        unseen = {source: name for name in self.sources for source in recordings[name].sources}
        for name in self.drawn:
            shared = recordings[name].sources & unseen.keys()
            if shared:
                raise InputError(
                    f"{name} is computed from the random values of {unseen[min(shared)]}, which is never drawn: "
                    "run such a model with real weights"
                )

    def redraw(self, seed: int) -> None:
        """Forget the network and start another one with this seed."""
        self.ledger.clear(check_seed(seed))
        for source in self.sources.values():
            source.reset()
        self._draw()
        with torch.no_grad():
            for buffer, first in self._buffers:
                buffer.copy_(first)


def network_of(model: Any) -> Network:
    """Return the network of a weightless model.

    **Raises:** `InputError` for any other model.
    """
    found = getattr(model, ATTRIBUTE, None)
    if not isinstance(found, Network):
        raise InputError(
            f"a model made by st.weightless.build or st.weightless.from_config is expected (got {type(model).__name__})"
        )
    return found


def _drawn_together(name: str, recordings: list[Recording], ledger: Ledger) -> list[Tensor]:
    """Return parameters drawn for real, from the stream of the first one's name."""
    stream, number = ledger.stream(name), iter(range(10**9))
    seed = int(stream.uniforms((1,), next(number)).item() * 2**31)
    return draw_jointly(
        recordings,
        lambda size: stream.normals(tuple(size), "whole", next(number)),
        lambda size: stream.uniforms(tuple(size), next(number)),
        torch.Generator().manual_seed(seed),
    )


def _has_weightless_form(tensor: Tensor, law: Law, approximate: bool) -> bool:
    """Whether a parameter is simulated without its values."""
    if tensor.dim() < 2 or not tensor.is_floating_point() or not isinstance(tensor, nn.Parameter):
        return False
    if law.kind == "constant":
        return law.mean == 0 and tensor.is_meta
    if law.mean != 0 or (
        law.kind == "orthogonal" and (tensor.dim() != 2 or any(one is not None for one in law.scales))
    ):
        return False
    return law.kind in EXACT or (approximate and law.kind in APPROXIMATE)


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters, and the buffers on `meta`, each once under its first name."""
    return [*model.named_parameters(), *((name, one) for name, one in model.named_buffers() if one.is_meta)]


def _places(model: nn.Module) -> list[tuple[nn.Module, str, str, Tensor]]:
    """Return where each parameter, and each buffer on `meta`, stands: module, attribute, first name, tensor."""
    names: dict[int, str] = {}
    places = []
    for prefix, module in model.named_modules(remove_duplicate=True):
        own = [*module.named_parameters(recurse=False, remove_duplicate=False)]
        own += [(name, one) for name, one in module.named_buffers(recurse=False) if one.is_meta]
        for attribute, tensor in own:
            name = names.setdefault(id(tensor), f"{prefix}.{attribute}" if prefix else attribute)
            places.append((module, attribute, name, tensor))
    return places


def _listed(names: list[str], tensors: dict[str, Tensor], laws: dict[str, Law]) -> str:
    """Return the first few names with shapes, sizes and distributions."""
    texts = [
        f"{name} {tuple(tensors[name].shape)}, {math.ceil(tensors[name].nbytes / 1e6):,} MB, {laws[name]}"
        for name in names[:4]
    ]
    return "; ".join(texts) + (f"; and {len(names) - 4:,} more" if len(names) > 4 else "")
