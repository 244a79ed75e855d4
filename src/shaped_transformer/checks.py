"""Checks of numbers that users give, the same in every part of the library."""

from numbers import Integral, Real

from .errors import InputError


def check_count(value: int, name: str, least: int = 1) -> int:
    """Return a whole number of at least `least`, as a Python `int`.

    **Arguments:**

    - `value`: the number, of Python or NumPy.
    - `name`: of the argument, for the message.
    - `least`: the smallest number allowed, default 1.

    **Raises:** `InputError` otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least} (got {value!r})")
    return int(value)


def check_counts(**given: int) -> None:
    """Check several whole numbers of at least 1, given by name.

    **Raises:** `InputError` for the first that is not.
    """
    for name, value in given.items():
        check_count(value, name)


def check_seed(seed: int) -> int:
    """Return a seed that NumPy accepts: a whole number of at least 0.

    **Raises:** `InputError` otherwise.
    """
    return check_count(seed, "seed", least=0)


def check_number(value: float, name: str) -> float:
    """Return a number as a Python `float`; text and truth values are refused.

    **Raises:** `InputError` otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number (got {value!r})")
    return float(value)
