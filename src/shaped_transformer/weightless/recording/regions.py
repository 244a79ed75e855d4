"""Where a strided tensor lies in the axes of another: which rows and columns it shows, and in which order."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from .events import Region


@dataclass(frozen=True)
class Place:
    """A region of a contiguous tensor, the frame.

    - `indices`: for each axis of the frame the indices that the region shows, `None` for all of them.
    - `axes`: for each axis of the region the axes of the frame along which it runs, () for an axis of size 1.
    - `alone`: for each axis of the region whether it runs along one axis of the frame that no other has.
    """

    indices: tuple[torch.Tensor | None, ...]
    axes: tuple[tuple[int, ...], ...]
    alone: tuple[bool, ...]

    @property
    def partial(self) -> dict[int, torch.Tensor]:
        """The axes of the frame of which the region shows a part, with the indices it shows."""
        return {axis: index for axis, index in enumerate(self.indices) if index is not None}


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def frame_of(region: Region) -> tuple[int, ...]:
    """Return the shape in which the memory of a dense region is contiguous: its axes by descending stride."""
    axes = sorted(zip(region.stride, region.size, strict=True), key=lambda axis: -axis[0])
    return tuple(size for _, size in axes)


def locate(frame: tuple[int, ...], region: Region) -> Place | None:
    """Return where `region` lies in a contiguous tensor of shape `frame`; `None` for what is no product of indices."""
    if 0 in frame or 0 in region.size or region.offset >= math.prod(frame):
        return None
    strides = contiguous_strides(frame)
    start, rest = [], region.offset
    for stride, size in zip(strides, frame, strict=True):
        start.append(rest // stride % size)
        rest %= stride
    runs: dict[int, list[tuple[int, int, int]]] = {axis: [] for axis in range(len(frame))}  # step, count, axis
    axes: list[tuple[int, ...]] = []
    for number, (count, stride) in enumerate(zip(region.size, region.stride, strict=True)):
        found = () if count == 1 else _runs(frame, strides, count, stride)
        if found is None:
            return None
        for axis, step, length in found:
            runs[axis].append((step, length, number))
        axes.append(tuple(axis for axis, _, _ in found))
    indices = [_indices(frame[axis], start[axis], runs[axis]) for axis in range(len(frame))]
    if any(index is not None and len(index) == 0 for index in indices):
        return None
    alone = tuple(len(along) == 1 and len(runs[along[0]]) == 1 for along in axes)
    return Place(tuple(indices), tuple(axes), alone)


def _runs(
    frame: tuple[int, ...], strides: tuple[int, ...], count: int, stride: int
) -> tuple[tuple[int, int, int], ...] | None:
    """Return (axis, step, count) of each axis of the frame along which one axis of a region runs."""
    axis = next((a for a in range(len(frame)) if frame[a] > 1 and strides[a] <= stride < strides[a] * frame[a]), None)
    if axis is None or stride % strides[axis]:
        return None
    step = stride // strides[axis]
    found: list[tuple[int, int, int]] = []
    while axis >= 0:
        if (count - 1) * step < frame[axis]:
            return (*found, (axis, step, count)) if count > 1 else tuple(found)
        if count * step % frame[axis] or frame[axis] % step:
            return None
        if frame[axis] > 1:
            found.append((axis, step, frame[axis] // step))
            count, step = count * step // frame[axis], 1
        axis -= 1
    return None


def _indices(size: int, start: int, runs: list[tuple[int, int, int]]) -> torch.Tensor | None:
    """Return the indices along one axis of the frame: `None` for all, none if they are no arithmetic sequence."""
    runs = sorted(runs)
    if any(step * count != after for (step, count, _), (after, _, _) in pairwise(runs)):
        return torch.empty(0, dtype=torch.long)
    step, count = (runs[0][0], math.prod(n for _, n, _ in runs)) if runs else (1, 1)
    if start + (count - 1) * step >= size:
        return torch.empty(0, dtype=torch.long)
    return None if count == size else start + step * torch.arange(count)
