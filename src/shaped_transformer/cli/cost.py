"""What a rehearsal takes, said before it starts."""

from .output import say

LONG = 30.0
"""Seconds from which on the time is told beforehand."""


def say_cost(seconds: float, gigabytes: float, ending: str = "") -> None:
    """Say about how long something takes and how much memory, if it is long.

    **Arguments:**

    - `seconds`, `gigabytes`: the estimates.
    - `ending`: a sentence that follows; default none.
    """
    if seconds > LONG:
        say(f"This takes about {duration(seconds)} and {gigabytes:.2g} GB of memory. {ending}".strip())


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
