"""Parameters that come from the same random numbers, such as the copies of one layer, which start out equal."""

from collections.abc import Iterable

from ...errors import InputError
from .events import Reference, Region, State
from .record import Recording

COPIES = frozenset({"clone", "_to_copy", "copy_", "lift_fresh_copy", "detach", "alias"})
"""Operations that copy values."""


def origin(recording: Recording) -> Reference:
    """Return the tensor of which a parameter is a plain copy; its own where it is none."""
    reference = recording.reference
    while True:
        state, found = reference.state, reference.state.references()
        if state.name not in COPIES or state.previous is not None or len(found) != 1:
            return reference
        if not _alike(reference.region, state.region) or not _alike(found[0].region, state.region):
            return reference
        reference = found[0]


def twins(recordings: dict[str, Recording]) -> dict[str, str]:
    """Return for each parameter the first one with the same initial values, often itself.

    **Raises:** `InputError` for two parameters whose random numbers overlap otherwise.
    """
    first: dict[str, str] = {}
    seen: dict[State, dict[str, Region]] = {}
    owners: dict[int, State] = {}
    for name, recording in recordings.items():
        found = origin(recording)
        for source in recording.sources:
            if owners.setdefault(source, found.state) is not found.state:
                raise InputError(
                    f"{name} shares random numbers with another parameter, but is no copy of it: draw them separately"
                )
        others = seen.setdefault(found.state, {})
        equal = next((other for other, region in others.items() if _same(region, found.region)), None)
        if equal is None and any(_overlap(region, found.region) for region in others.values()):
            raise InputError(f"{name} shares some of its random numbers with another parameter: draw them separately")
        others.setdefault(name, found.region)
        first[name] = equal or name
    return first


def groups(recordings: dict[str, Recording], names: Iterable[str]) -> list[list[str]]:
    """Return the names in groups whose random numbers are independent of each other."""
    out: list[tuple[set[int], list[str]]] = []
    for name in names:
        sources, members = set(recordings[name].sources), [name]
        apart = []
        for one in out:
            if one[0] & sources:
                sources, members = sources | one[0], [*one[1], *members]
            else:
                apart.append(one)
        out = [*apart, (sources, members)]
    return [members for _, members in out]


def _alike(first: Region, second: Region) -> bool:
    """Whether two regions have the same shape in memory."""
    return first.size == second.size and first.stride == second.stride


def _same(first: Region, second: Region) -> bool:
    """Whether two regions of a storage are the same."""
    return _alike(first, second) and first.offset == second.offset


def _overlap(first: Region, second: Region) -> bool:
    """Whether two regions of a storage may have entries in common: whether their spans overlap."""
    spans = [
        (one.offset, one.offset + sum((size - 1) * stride for size, stride in zip(one.size, one.stride, strict=True)))
        for one in (first, second)
    ]
    return spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1]
