"""Arithmetic of laws: scale, shift, cut, read a part, write a part."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from .law import NEVER, Law, other
from .regions import Place

GIVEN = "values given by the model's code"
FAR = 6.0
"""A normal cut so many standard deviations out is a normal: 2e-9 of its entries are redrawn."""


def constant(value: float) -> Law:
    """Return the law of entries that all are `value`."""
    return Law("constant", 0.0, value)


def values(tensor: Tensor) -> Law:
    """Return the law of known values: a constant where all are equal."""
    if tensor.numel() and tensor.is_floating_point() and bool((tensor == tensor.flatten()[0]).all()):
        return constant(float(tensor.flatten()[0]))
    return other(GIVEN)


def has_scales(law: Law) -> bool:
    """Whether an axis has a vector of scales."""
    return any(scale is not None for scale in law.scales)


def exchangeable(law: Law) -> bool:
    """Whether the entries keep their distribution in any order and shape."""
    return law.kind != "orthogonal" and not has_scales(law)


def as_number(value: object) -> float | None:
    """Return a number, or the value of a constant, `None` for anything else."""
    if isinstance(value, int | float):
        return float(value)
    return value.mean if isinstance(value, Law) and value.kind == "constant" and not has_scales(value) else None


def settled(law: Law) -> Law:
    """Return a law as its reader wants it: never half initialised, and without scales of ones."""
    if any(scale is not None and bool(scale.isnan().any()) for scale in law.scales):
        return other(f"{NEVER} in part")
    scales = tuple(None if s is None or bool((s == 1).all()) else s for s in law.scales)
    return replace(law, scales=scales if any(scale is not None for scale in scales) else ())


def scaled(law: Law, factor: float) -> Law:
    """Return the law of the entries times a number; all bases but a shifted one are symmetric."""
    if law.kind == "other":
        return law
    if factor == 0:
        return constant(0.0)
    return replace(law, std=law.std * abs(factor), mean=law.mean * factor)


def scaled_along(law: Law, factors: Tensor, size: tuple[int, ...]) -> Law | None:
    """Return the law of the entries times factors that vary along at most one axis; `None` for more."""
    if law.kind == "other":
        return law
    varying = [axis for axis, count in enumerate(factors.shape) if count > 1]
    if not varying:
        return scaled(law, float(factors.flatten()[0]) if factors.numel() else 1.0)
    if len(varying) > 1:
        return None
    scales = list(law.scales or (None,) * len(size))
    before = scales[varying[0]]
    scales[varying[0]] = factors.flatten() if before is None else before * factors.flatten()
    return replace(law, scales=tuple(scales))


def shifted(law: Law, shift: float) -> Law | None:
    """Return the law of the entries plus a number, `None` if it has scales."""
    if law.kind == "other":
        return law
    if has_scales(law) or (law.kind == "orthogonal" and shift):
        return None
    return replace(law, mean=law.mean + shift)


def erfinv(law: Law) -> Law | None:
    """Return the law of erfinv of uniform entries: a normal of variance ½, cut where the interval ends."""
    if law.kind != "uniform" or has_scales(law):
        return None
    ends = [law.mean + sign * math.sqrt(3) * law.std for sign in (-1, 1)]
    if max(abs(end) for end in ends) > 1 + 1e-9:
        return None
    cuts = [math.copysign(math.inf, end) if abs(end) >= 1 - 1e-9 else _quantile(end) for end in ends]
    return truncated(0.0, math.sqrt(0.5), *cuts)


def _quantile(end: float) -> float:
    """Return erfinv of a number inside (-1, 1)."""
    return float(torch.erfinv(torch.tensor(end, dtype=torch.float64)))


def truncated(mean: float, std: float, least: float, most: float) -> Law:
    """Return the law of normal entries given that they lie in [least, most]: a normal where both are far out."""
    low, high = (least - mean) / std, (most - mean) / std
    if low <= -FAR and high >= FAR:
        return Law("normal", std, mean)
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    at_low, at_high = (math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    shift = (at_low - at_high) / mass
    edges = sum(sign * x * p for sign, x, p in ((1, low, at_low), (-1, high, at_high)) if math.isfinite(x))
    return Law("truncated", std * math.sqrt(1 + edges / mass - shift**2), mean + std * shift)


def clamped(law: Law, least: float | None, most: float | None) -> Law | None:
    """Return the law of entries clamped where a normal has no mass and a cut one ends; `None` where it bites."""
    bounds = [-math.inf if least is None else least, math.inf if most is None else most]
    if not all(isinstance(bound, int | float) for bound in bounds) or has_scales(law):
        return None
    if law.kind == "constant":
        return constant(min(max(law.mean, bounds[0]), bounds[1]))
    if law.kind not in ("normal", "uniform", "truncated"):
        return None
    distance = FAR if law.kind == "normal" else math.sqrt(3)
    far = law.mean - distance * law.std >= bounds[0] and law.mean + distance * law.std <= bounds[1]
    return law if far else None


def spread(law: Law, size: tuple[int, ...], shape: tuple[int, ...] | None = None) -> Law:
    """Return the law of a tensor of shape `shape` broadcast to `size`: only a constant stays independent."""
    if law.kind == "constant" and not has_scales(law):
        return replace(law, scales=())
    same = shape is not None and tuple(n for n in shape if n != 1) == tuple(n for n in size if n != 1)
    if same and not has_scales(law) and law.kind != "orthogonal":
        return replace(law, scales=())
    return other("a tensor repeated along an axis")


def read(law: Law, place: Place) -> Law:
    """Return the law of a region of a tensor, with the region's axes."""
    if law.kind == "other" and not law.scales:
        return law
    if law.kind == "orthogonal" and (place.partial or _partition(place) is None):
        return other("a part of an orthogonal matrix, or its axes in another order")
    scales: list[Tensor | None] = []
    seen: set[int] = set()
    for along, alone in zip(place.axes, place.alone, strict=True):
        scale = law.scales[along[0]] if alone and law.scales else None
        index = place.indices[along[0]] if alone else None
        scales.append(scale[index] if scale is not None and index is not None else scale)
        seen |= {along[0]} if alone else set()
    for axis, scale in enumerate(law.scales):
        if scale is None or axis in seen:
            continue
        index = place.indices[axis]
        part = scale if index is None else scale[index]
        if bool((part != part[0]).any()):
            return other("rows of different scale in a tensor of another shape")
        law = scaled(law, float(part[0]))
    return replace(law, scales=tuple(scales)) if law.kind != "other" else law


def write(law: Law, place: Place | None, new: Law, frame: tuple[int, ...], name: str) -> Law:
    """Return the law of a tensor of shape `frame` after the entries of a region were given the law `new`."""
    if place is None:
        return other(f"a region that is no block of rows or columns, written by aten.{name}")
    if not place.partial:
        return _whole(new, place, frame)
    if len(place.partial) > 1:
        return other("a block of rows and columns set apart")
    ((axis, index),) = place.partial.items()
    if new.kind == "other" and not new.scales:
        return new if law.kind != "other" or law.reason == NEVER else law
    block = _whole(new, replace(place, indices=(None,) * len(frame)), frame)
    if block.kind == "other":
        return block
    apart = [s for n, s in enumerate((*law.scales, *block.scales)) if s is not None and n % len(frame) != axis]
    own = torch.ones(len(index), dtype=torch.float64)
    if block.scales and (along := block.scales[axis]) is not None:
        own = along
    scale = law.scales[axis] if law.scales else None
    start = torch.ones(frame[axis], dtype=torch.float64) if scale is None else scale.clone()
    zero = block.kind == "constant" and block.mean == 0
    if law.kind == "other":
        if law.reason != NEVER:
            return law
        law, start = replace(block, scales=()), start * math.nan
    elif law.kind == "constant" and law.mean == 0:
        law, start = replace(block, scales=()), start * 0
    elif zero:
        own = own * 0
    else:
        ratio = _ratio(law, block)
        if ratio is None:
            return other(f"a block with another distribution, written by aten.{name}")
        own = own * ratio
    if apart and not (zero and not block.scales):
        return other("a block of rows and columns set apart")
    start[index] = own
    kept = list(law.scales or (None,) * len(frame))
    kept[axis] = start
    return replace(law, scales=tuple(kept))


def _ratio(law: Law, block: Law) -> float | None:
    """Return by how much a block's entries exceed the base's, `None` if they are not of one family."""
    if law.kind != block.kind or law.kind not in ("normal", "uniform", "constant"):
        return None
    ratio = block.mean / law.mean if law.kind == "constant" else block.std / law.std
    return ratio if math.isclose(block.mean, ratio * law.mean, rel_tol=1e-9, abs_tol=0.0) else None


def _whole(law: Law, place: Place, frame: tuple[int, ...]) -> Law:
    """Return a law over a region's axes as one over the frame's axes, of which the region shows all."""
    if law.kind == "other" and not law.scales:
        return law
    if law.kind == "orthogonal" and _partition(place) is None:
        return other("an orthogonal matrix with its axes in another order")
    scales: list[Tensor | None] = [None] * len(frame)
    for scale, along, alone in zip(law.scales, place.axes, place.alone, strict=False):
        if scale is None:
            continue
        if alone:
            scales[along[0]] = scale
        elif not along:  # an axis of size 1
            law = scaled(law, float(scale[0]))
        else:
            return other("rows of different scale in a tensor of another shape")
    return replace(law, scales=tuple(scales))


def _partition(place: Place) -> bool | None:
    """Return whether the first axis against the others is that of the frame (true), transposed (false) or neither."""
    if len(place.axes) < 2 or not all(place.alone[n] or len(a) != 1 for n, a in enumerate(place.axes)):
        return None
    first, rest = set(place.axes[0]), {axis for along in place.axes[1:] for axis in along}
    if 0 in first:
        return True if first == {0} and 0 not in rest else None
    return False if rest <= {0} else None
