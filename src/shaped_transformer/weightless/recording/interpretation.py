"""The distribution of a recorded tensor, read off the operations that made it, without drawing anything."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import laws
from .events import WRITTEN, Given, Reference, Region, State, sources
from .law import NEVER, Law, other
from .regions import Place, frame_of, locate
from .replay import NO_CONTENT, is_standard, moments


@dataclass(frozen=True)
class Factor:
    """What a QR factorisation of an iid normal matrix gives: `q`, `r`, the `diagonal` of r, its `size` or `sign`."""

    kind: str
    source: tuple[State, Region]


Value = Law | Factor

TWICE = "random entries used twice"

ARITHMETIC = {"mul", "div", "add", "sub", "rsub", "neg", "erfinv", "clamp"}


def law_of(reference: Reference, shape: tuple[int, ...]) -> Law:
    """Return the distribution of a recorded tensor of this shape."""
    region, state = reference.region, reference.state
    if region.fills(state.nbytes) and frame_of(region) == region.size and shape == region.size:
        value = _content(state, shape)
    else:
        value = _value(reference)
    if isinstance(value, Factor):
        return other("aten.linalg_qr without the signs that make Q uniform")
    return laws.settled(value)


def _value(reference: Reference) -> Value:
    """Return what is known of a tensor."""
    frame = frame_of(reference.state.chain()[0].region)
    value = _content(reference.state, frame)
    if math.prod(frame) * reference.region.dtype.itemsize != reference.state.nbytes:
        return other("a tensor whose memory was resized or read as another type")
    if isinstance(value, Factor):
        return _part_of_factor(value, frame, reference.region)
    return _seen(value, locate(frame, reference.region), reference.region)


def _seen(law: Law, place: Place | None, region: Region) -> Law:
    """Return the law of a region of a tensor."""
    if place is not None:
        return laws.read(law, place)
    return replace(law, scales=()) if region.distinct and laws.exchangeable(law) else laws.spread(law, region.size)


def _part_of_factor(factor: Factor, frame: tuple[int, ...], region: Region) -> Value:
    """Return a factor seen whole, or the diagonal of r as a view."""
    place = locate(frame, region)
    if place is not None and not place.partial:
        return factor
    diagonal = Region((min(frame),), (frame[-1] + 1,), 0, region.dtype)
    if factor.kind == "r" and region == diagonal:
        return replace(factor, kind="diagonal")
    return other("a part of a factor of aten.linalg_qr")


def _content(state: State, frame: tuple[int, ...]) -> Value:
    """Return what is known of a storage in one of its states, as a contiguous tensor of shape `frame`."""
    value: Value = other(NEVER)
    for member in state.chain():
        if not member.in_place and member.name != "truncate":
            new = _made(member)
            if isinstance(new, Factor):
                value = new
                continue
            value = _written(other(NEVER), new, member, frame)
        else:
            value = _after(value, member, frame)
    return value


def _made(state: State) -> Value:
    """Return what a new tensor holds, by the operation that made it."""
    size, arguments = state.region.size, state.arguments
    if is_standard(state):
        return _drawn(state)
    match state.name:
        case name if name in NO_CONTENT:
            return other(NEVER)
        case "zeros" | "zeros_like" | "new_zeros":
            return laws.constant(0.0)
        case "ones" | "ones_like" | "new_ones":
            return laws.constant(1.0)
        case "full" | "full_like":
            return laws.constant(float(arguments[1]))
        case "new_full":
            return laws.constant(float(arguments[2]))
        case "given":
            return laws.values(arguments[0].values)
        case "clone" | "_to_copy" | "t_copy" | "lift_fresh_copy" | "copy":
            return _operand(arguments[-1]) if state.region.dtype.is_floating_point else other("aten._to_copy")
        case "linalg_qr" if state.output < 2 and len(arguments) == 1:
            return _factor(state)
        case "diagonal_copy" if len(arguments) == 1:
            return _turned(state, "r", "diagonal")
        case "sign" | "sgn":
            return _turned(state, "diagonal", "sign")
        case "abs":
            return _turned(state, "diagonal", "size")
        case "cat":
            return _joined(state)
        case name if name in ARITHMETIC:
            return _computed(state, size)
    return other(f"aten.{state.name}")


def _after(value: Value, state: State, frame: tuple[int, ...]) -> Value:
    """Return what a storage holds after an operation wrote into a region of it."""
    place = locate(frame, state.region)
    name = state.name.removesuffix("_")
    if is_standard(state):
        new: Value = _drawn(state)
    elif name == "zero":
        new = laws.constant(0.0)
    elif name == "fill" and isinstance(number := _operand(state.arguments[1]), int | float):
        new = laws.constant(float(number))
    elif name == "copy" and state.previous and _overlap(state.previous, *state.references()):
        new = other(TWICE)
    elif name == "copy":
        copied = _operand(state.arguments[1])
        new = laws.constant(float(copied)) if isinstance(copied, int | float) else copied
        shape = _shape(state.arguments[1])
        if isinstance(new, Law) and shape != state.region.size:
            new = laws.spread(new, state.region.size, shape)
    elif name == "truncate":
        new = laws.truncated(*state.arguments)
    elif name in ARITHMETIC:
        before = value if isinstance(value, Factor) else _seen(value, place, state.region)
        new = _computed(state, state.region.size, before)
    else:
        new = other(f"aten.{state.name}")
    if isinstance(new, Factor):
        return new if place is not None and not place.partial else other("a part of a factor of aten.linalg_qr")
    return _written(value if isinstance(value, Law) else other("aten.linalg_qr"), new, state, frame)


def _written(law: Law, new: Law, state: State, frame: tuple[int, ...]) -> Law:
    """Return the law of a storage after the region of `state` was given the law `new`."""
    place = locate(frame, state.region)
    if place is None and state.region.fills(state.nbytes) and laws.exchangeable(new):
        return replace(new, scales=())
    return laws.write(law, place, new, frame, state.name)


def _drawn(state: State) -> Law:
    """Return the distribution of a standard random operation."""
    location, scale = moments(state)
    if state.name in ("uniform_", "rand", "rand_like"):
        return Law("uniform", abs(scale) / math.sqrt(12), location + scale / 2) if scale else laws.constant(location)
    return Law("normal", scale, location) if scale else laws.constant(location)


def _operand(argument: Any) -> Any:
    """Return an argument as a number, a tensor of known values, or what is known of it."""
    if isinstance(argument, Given):
        return argument.values.item() if argument.values.numel() == 1 else laws.values(argument.values)
    return _value(argument) if isinstance(argument, Reference) else argument


def _shape(argument: Any) -> tuple[int, ...]:
    """Return the shape of an argument, () for a number."""
    if isinstance(argument, Given):
        return tuple(argument.values.shape)
    return argument.region.size if isinstance(argument, Reference) else ()


def _computed(state: State, size: tuple[int, ...], before: Value | None = None) -> Value:
    """Return what an arithmetic operation makes of one random operand and numbers or known values."""
    name = state.name.removesuffix("_")
    failed = other(f"aten.{state.name}")
    if state.options.get("alpha", 1) != 1 or state.options.get("rounding_mode") is not None:
        return failed
    operands = [(before, size) if a is WRITTEN else (_operand(a), _shape(a)) for a in state.arguments]
    first, shape = operands[0]
    if name in ("neg", "erfinv", "clamp"):
        if not isinstance(first, Law):
            return failed
        if name == "neg":
            return laws.scaled(first, -1.0)
        if name == "erfinv":
            return laws.erfinv(first) or failed
        limits: list[float | None] = [state.options.get("min"), state.options.get("max")]
        limits[: len(state.arguments) - 1] = state.arguments[1:]
        return laws.clamped(first, *limits) or failed
    second, second_shape = operands[1]
    if isinstance(first, Factor) and isinstance(second, Factor):
        return _haar(name, (first, shape), (second, second_shape), size) or failed
    if name in ("mul", "add") and (not isinstance(first, Law) or (_is_random(second) and not _is_random(first))):
        (first, shape), (second, second_shape) = (second, second_shape), (first, shape)
    if not isinstance(first, Law) or shape != size:
        return failed
    if name in ("add", "sub", "rsub"):
        number = laws.as_number(second)
        if number is None:
            return failed
        kept = laws.scaled(first, -1.0) if name == "rsub" else first
        return laws.shifted(kept, -number if name == "sub" else number) or failed
    factor = _vector(state, second, second_shape, size)
    if factor is None:
        return failed
    return laws.scaled_along(first, factor if name == "mul" else factor.reciprocal(), size) or failed


def _is_random(operand: Any) -> bool:
    """Whether an operand is random, not a number or known values."""
    return isinstance(operand, Law) and operand.kind != "constant" and operand.reason != laws.GIVEN


def _vector(state: State, factor: Any, shape: tuple[int, ...], size: tuple[int, ...]) -> Tensor | None:
    """Return known factors with as many axes as the result, in float64, or `None` if they are not known."""
    number = laws.as_number(factor)
    if number is not None:
        return torch.full((1,) * len(size), number, dtype=torch.float64)
    for argument in state.arguments:
        if isinstance(argument, Given) and tuple(argument.values.shape) == shape:
            return argument.values.double().reshape((1,) * (len(size) - len(shape)) + shape)
    return None


def _factor(state: State) -> Value:
    """Return a factor of QR, if the matrix has iid normal entries."""
    matrix = _operand(state.arguments[0])
    normal = isinstance(matrix, Law) and matrix.kind == "normal" and matrix.mean == 0 and not laws.has_scales(matrix)
    reference = state.arguments[0]
    if not normal or not isinstance(reference, Reference) or len(state.region.size) != 2:
        return other("aten.linalg_qr")
    return Factor("qr"[state.output], (reference.state, reference.region))


def _turned(state: State, before: str, after: str) -> Value:
    """Return a factor of kind `after` that an operation makes of one of kind `before`."""
    factor = _operand(state.arguments[0])
    known = isinstance(factor, Factor) and factor.kind == before
    return replace(factor, kind=after) if known else other(f"aten.{state.name}")


def _haar(name: str, first: tuple[Factor, Any], second: tuple[Factor, Any], size: tuple[int, ...]) -> Value | None:
    """Return what two factors of one QR make: the sign of r's diagonal, or Q times it, which is uniform [Mezzadri]."""
    (a, a_shape), (b, b_shape) = first, second
    if a.source != b.source:
        return None
    if name == "div" and (a.kind, b.kind) == ("diagonal", "size"):
        return replace(a, kind="sign")
    if a.kind == "sign":
        (a, a_shape), (b, b_shape) = (b, b_shape), (a, a_shape)
    along_columns = b_shape in ((size[-1],), (1, size[-1]))
    if name in ("mul", "div") and (a.kind, b.kind) == ("q", "sign") and a_shape == size and along_columns:
        return Law("orthogonal", 1.0, scales=(None, None))
    return None


def _overlap(state: State | None, *references: Reference) -> bool:
    """Whether parts of a tensor depend on the same random numbers."""
    found = [sources(part) for part in (state, *(reference.state for reference in references)) if part]
    return len(frozenset().union(*found)) < sum(map(len, found))


def _joined(state: State) -> Value:
    """Return the distribution of tensors joined along an axis."""
    size = state.region.size
    if _overlap(None, *state.references()):
        return other(TWICE)
    axis = (state.arguments[1] if len(state.arguments) > 1 else state.options.get("dim", 0)) % max(len(size), 1)
    value: Law = other(NEVER)
    start = 0
    for part in state.arguments[0]:
        law = _operand(part)
        if isinstance(law, int | float):
            law = laws.constant(float(law))
        count = _shape(part)[axis]
        indices: list[Tensor | None] = [None] * len(size)
        if count != size[axis]:
            indices[axis] = torch.arange(start, start + count)
        place = Place(tuple(indices), tuple((n,) for n in range(len(size))), (True,) * len(size))
        value = laws.write(value, place, law if isinstance(law, Law) else other("aten.cat"), size, "cat")
        start += count
    return value
