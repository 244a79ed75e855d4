"""Marks of parameters: those that CI runs, and those much like them, which run before a release."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(values: Iterable[Any], *, long: Iterable[Any]) -> list[Any]:
    """Return values as parameters of a slow test.

    **Arguments:**

    - `values`: all of them.
    - `long`: those that run before a release only.
    """
    before_release = set(long)
    return [pytest.param(v, marks=pytest.mark.long if v in before_release else pytest.mark.slow) for v in values]
