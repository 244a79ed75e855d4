"""Modes of PyTorch under which a model is built without memory for its weights, while each operation is recorded."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import InputError
from .events import WRITTEN, Given, Reference, Region, State, Tracked, leaves, transform
from .replay import NO_CONTENT, moments

SMALL = 2**16
"""A constant tensor of at most so many entries is kept: 512 kB in float64."""

RANDOM = {"randn", "rand", "normal", "randn_like", "rand_like"}
CONSTANT = {f"{prefix}{name}" for name in ("zeros", "ones", "full") for prefix in ("", "new_")} | {
    f"{name}_like" for name in ("zeros", "ones", "full")
}
INTEGER_RANDOM = {"randperm", "randint", "randint_like", "multinomial"}
FILLS = {"normal_", "uniform_", "zero_", "fill_", "copy_", "exponential_", "cauchy_", "log_normal_", "geometric_"} | {
    "bernoulli_",
    "random_",
}
METADATA = {"t_", "transpose_", "squeeze_", "unsqueeze_", "as_strided_", "detach_", "set_"}
READS = {"_local_scalar_dense", "allclose", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}

Noted = tuple[tuple[Any, ...], dict[str, Any]]

READS_VALUE = (
    "the model's code reads the value of a parameter while the model is built (torch's `{name}`), so it cannot be "
    "simulated without weights: build the model with real weights, or take that value from the configuration"
)


class Recorder(TorchDispatchMode):
    """Put tensors that wait for random values on `meta`, and record what is done to each storage."""

    def __init__(self) -> None:
        """Start without any storage."""
        super().__init__()
        self.busy = False
        self._tracked: dict[int, Tracked] = {}

    def tracked(self, tensor: Tensor) -> Tracked | None:
        """Return what is recorded of a tensor's storage, `None` where it is ordinary."""
        return None if tensor.layout != torch.strided else self._tracked.get(id(tensor.untyped_storage()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, on `meta` where a tensor of it stands there, and record what it wrote."""
        self.busy, before = True, self.busy
        try:
            return self._run(func, str(func.overloadpacket).rpartition(".")[2], args, dict(kwargs or {}))
        finally:
            self.busy = before

    def _run(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Choose between reading a value, writing into a tensor and making a new one."""
        asked = kwargs.get("device")
        if name in NO_CONTENT | RANDOM | CONSTANT and (asked is None or asked.type == "cpu"):
            kwargs["device"] = _device(name, args, kwargs)
        tracked = [t for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor) and (t := self.tracked(leaf))]
        if (name in READS or (name == "index" and _masks(args))) and any(not t.readable for t in tracked):
            return self._read(name, args)
        random = torch.Tag.nondeterministic_seeded in func.tags
        written = _written(func, args, kwargs)
        if name in METADATA or not (random or tracked or written or _on_meta(args, kwargs)):
            return func(*args, **kwargs)
        if random:
            kwargs.pop("generator", None)
        if written:
            return self._write(func, name, args, kwargs, written) if random or tracked else func(*args, **kwargs)
        explicit = asked is not None and asked.type == "meta"
        return self._make(func, name, args, kwargs, pretends=not explicit and (not tracked or tracked[0].pretends))

    def _make(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, pretends: bool) -> Any:
        """Run an operation that makes new tensors or views, and record the new ones."""
        random = torch.Tag.nondeterministic_seeded in func.tags
        inputs = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [t for tensor in inputs if (t := self.tracked(tensor))]
        moved = args, kwargs
        constant = name in CONSTANT and kwargs["device"].type == "cpu"
        if not constant and (any(t.is_meta for t in inputs) or (random and name not in INTEGER_RANDOM)):
            moved = transform((args, kwargs), _to_meta)
            if name == "_to_copy" and pretends and (device := kwargs.get("device")) and device.type == "cpu":
                moved[1]["device"] = torch.device("meta")
        result = _run_on_meta(func, name, *moved) if moved[0] is not args else func(*args, **kwargs)
        outputs = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor) and leaf.layout == torch.strided]
        if constant or (name in NO_CONTENT and not outputs[0].is_meta):
            return result
        shown = {id(t.untyped_storage()) for t in (*inputs, *leaves(moved)) if isinstance(t, Tensor)}
        for number, output in enumerate(outputs):
            storage = output.untyped_storage()
            if id(storage) not in shown and (known or random or output.is_meta):
                state = State(
                    name,
                    func,
                    *self._notes(args, kwargs),
                    Region.of(output),
                    storage.nbytes(),
                    output=number,
                    random=random,
                )
                readable = not output.is_meta and all(t.readable for t in known)
                self._tracked[id(storage)] = Tracked(storage, state, pretends and output.is_meta, readable)
        return result

    def _write(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], written: list[Tensor]) -> Any:
        """Run an operation that writes into tensors, and record it for each of them."""
        inputs = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        readable = all(t.readable for tensor in inputs if (t := self.tracked(tensor)))
        states = []
        for target in written:
            before = self._state(target)
            region = Region.of(target)
            fresh = (name in FILLS or "out" in kwargs) and region.fills(before.nbytes)
            notes = self._notes(args, kwargs, target)
            random = torch.Tag.nondeterministic_seeded in func.tags
            repeatable = func if len(written) == 1 else None
            previous = None if fresh else before
            states.append(State(name, repeatable, *notes, region, before.nbytes, previous, random=random))
        meta = any(t.is_meta for t in inputs)
        if not meta:
            func(*args, **kwargs)
        elif name != "index_put_":  # on meta it would want indices without values
            _run_on_meta(func, name, *transform((args, kwargs), _to_meta))
        for target, state in zip(written, states, strict=True):
            tracked = self._tracked[id(target.untyped_storage())]
            tracked.state, tracked.readable = state, readable and not meta and not target.is_floating_point()
        return written[0] if len(written) == 1 else None

    def _read(self, name: str, args: tuple[Any, ...]) -> bool:
        """Answer whether an entry lies outside the cuts of a truncated normal, and record that none does.

        A loop that draws until none is outside makes that condition true. Any other reading has no answer.
        """
        cut = _cuts(self.tracked(args[0])) if name == "_local_scalar_dense" else None
        if cut is None:
            raise InputError(READS_VALUE.format(name="item" if name == "_local_scalar_dense" else name))
        normal, least, most = cut
        for tracked in self._tracked.values():
            if tracked.state is normal:
                bounds = (*moments(normal), least, most)
                tracked.state = State("truncate", None, bounds, {}, normal.region, normal.nbytes, normal, random=True)
        return False

    def _state(self, tensor: Tensor) -> State:
        """Return the state of a tensor's storage; of an ordinary one its values, which are recorded from now on."""
        storage = tensor.untyped_storage()
        if id(storage) not in self._tracked:
            self._tracked[id(storage)] = Tracked(storage, given(tensor), pretends=False)
        return self._tracked[id(storage)].state

    def _notes(self, args: tuple[Any, ...], kwargs: dict[str, Any], written: Tensor | None = None) -> Noted:
        """Return the arguments as they are recorded."""

        def note(leaf: Any) -> Any:
            if leaf is written and written is not None:
                return WRITTEN
            if not isinstance(leaf, Tensor):
                return leaf
            if leaf.is_meta or self.tracked(leaf):
                return Reference(self._state(leaf), Region.of(leaf))
            return Given(leaf.detach().clone())

        arguments, options = transform((args, kwargs), note)
        return arguments, options


class Disguise(TorchFunctionMode):
    """Let tensors moved to `meta` look as if on the CPU: torch.nn.init skips some of its work on `meta`."""

    def __init__(self, recorder: Recorder) -> None:
        """Disguise what `recorder` moved."""
        super().__init__()
        self._recorder = recorder
        self._answers = {Tensor.is_meta.__get__: False, Tensor.device.__get__: torch.device("cpu")}  # type: ignore[attr-defined]
        self._reads = {Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.__array__: "numpy"}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer where a tensor is; refuse to show values that are not there."""
        if not self._recorder.busy and func in self._answers and (t := self._recorder.tracked(args[0])) and t.pretends:
            return self._answers[func]
        if func == Tensor.data.__set__ and args[0].is_meta != args[1].is_meta:  # type: ignore[attr-defined]
            args = self._on_one_device(*args)
        if func in self._reads and (t := self._recorder.tracked(args[0])) and not t.readable:
            raise InputError(READS_VALUE.format(name=self._reads[func]))
        return func(*args, **(kwargs or {}))

    def _on_one_device(self, target: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return a tensor and what shall become its data, both on `meta`."""
        if values.is_meta:
            to_meta_in_place(target)
            return target, values
        return target, torch.empty_like(values).copy_(values)


def given(tensor: Tensor) -> State:
    """Return the state of a storage whose content is known, or of one on `meta` that was made elsewhere."""
    storage = tensor.untyped_storage()
    count = storage.nbytes() // tensor.dtype.itemsize
    region = Region((count,), (1,), 0, tensor.dtype)
    if tensor.is_meta:
        return State("empty", None, (), {}, region, storage.nbytes())
    with torch.no_grad():
        return State("given", None, (Given(region.view(storage).clone()),), {}, region, storage.nbytes())


def _device(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Return where a factory makes its tensor: on `meta`, unless it has integers or is constant and small."""
    source = args[0] if isinstance(args[0], Tensor) else None
    dtype = kwargs.get("dtype") or (source.dtype if source is not None else torch.get_default_dtype())
    if name == "full" and kwargs.get("dtype") is None and not isinstance(args[1], float | complex):
        dtype = torch.long
    size = source.shape if source is not None and name.endswith("_like") else args[name.startswith("new_")]
    if name == "normal":
        size = args[2] if len(args) > 2 else ()
    small = name in CONSTANT and math.prod(size) <= SMALL
    return torch.device("cpu" if small or not (dtype.is_floating_point or dtype.is_complex) else "meta")


def _masks(args: tuple[Any, ...]) -> bool:
    """Whether a tensor is indexed by a mask, so that the shape of the result depends on its values."""
    return any(isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in leaves(args[1]))


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors among the arguments that the operation writes."""
    written = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            written += [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]
    return written


def _on_meta(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation takes or makes a tensor on `meta`."""
    return any(
        leaf.type == "meta" if isinstance(leaf, torch.device) else isinstance(leaf, Tensor) and leaf.is_meta
        for leaf in leaves((args, kwargs))
    )


def _to_meta(leaf: Any) -> Any:
    """Return a tensor on `meta`, anything else as it is."""
    return leaf.to("meta") if isinstance(leaf, Tensor) and not leaf.is_meta else leaf


def _run_on_meta(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on tensors without values; say so where its result depends on them."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError as error:
        raise InputError(READS_VALUE.format(name=name)) from error


def to_meta_in_place(tensor: Tensor) -> None:
    """Move a tensor to `meta` wherever it is held."""
    empty = torch.empty_like(tensor, device="meta")
    twin = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    twin.__dict__.update(tensor.__dict__)
    torch.utils.swap_tensors(tensor, twin)


def _cuts(answer: Tracked | None) -> tuple[State, float, float] | None:
    """Return the normal draw, the least and the most of "any entry of it below `least` or above `most`"."""
    names = ("any", "bitwise_or")
    state = answer.state if answer else None
    for name in names:
        if state is None or state.name != name or not state.references():
            return None
        if name == "any":
            state = state.references()[0].state
    sides = {reference.state.name: reference.state for reference in state.references()} if state else {}
    if set(sides) != {"lt", "gt"} or any(len(side.references()) != 1 for side in sides.values()):
        return None
    below, above = sides["lt"].references()[0], sides["gt"].references()[0]
    if below.state is not above.state or below.state.name != "normal_" or below.region != below.state.region:
        return None
    return below.state, float(sides["lt"].arguments[1]), float(sides["gt"].arguments[1])
