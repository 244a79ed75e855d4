"""Functions by name: how a definition keeps one, and which names it takes from a file."""

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from ..errors import DefinitionError

HOMES = ("numpy", "scipy.special")
"""Modules whose functions are taken from any file; to call another module's would run a stranger's code."""


def _as_function(f: Any) -> Any:
    f = imported(f) if isinstance(f, str) else f
    if not callable(f):
        raise ValueError(f"a function of arrays or its name 'module:name' is expected (got {f!r})")
    return f


BY_NAME = BeforeValidator(_as_function)
"""Marks what holds a function, so that loading knows which texts are names."""
NamedFunction = Annotated[Any, BY_NAME]
"""A field of a definition that holds a function; in JSON it is `"module:name"`."""


def imported(name: str) -> Callable[..., Any]:
    """Return the function called `"module:name"`. This imports its module, which runs its code.

    **Raises:** `DefinitionError` if there is none, or its module cannot be imported.
    """
    module, _, own = name.partition(":")
    try:
        home = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the module is the user's: what it raises is told
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = (
                f"there is no module {error.name!r}; it must be importable, or with --architecture and --trust lie "
                "beside the JSON file"
            )
        else:
            reason = f"its module raised {error!r}"
        raise DefinitionError(f"no function {name!r} ('module:name'): {reason}") from error
    if not callable(found := getattr(home, own, None)):
        raise DefinitionError(f"no function {name!r}: the module {module} has no function {own!r}")
    return found


def from_file(name: str, *, trust: bool) -> Callable[..., Any]:
    """Return the function that a file calls `"module:name"`.

    **Arguments:** `trust`: whether any module may be imported, not only `HOMES`.

    **Raises:** `DefinitionError`, before anything is imported, for a function that is not taken without trust; or if
    there is none.
    """
    home, _, own = name.partition(":")
    if trust:
        return imported(name)
    if home in HOMES and not own.startswith("_") and _computes(found := imported(name)):
        return found
    raise DefinitionError(
        f"the definition names the function {name!r}, but without trust only functions of {' and '.join(HOMES)} are "
        "taken from a file, as others run code of their own: if you know whose it is, allow it with trust=True, or on "
        "the command line with --trust"
    )


def _computes(found: Any) -> bool:
    """Whether it is a function of NumPy's or SciPy's own; their namespaces also hold classes and test runners."""
    return isinstance(found, np.ufunc) or (inspect.isroutine(found) and _package(found) in ("numpy", "scipy"))


def _package(function: Any) -> str:
    return str(getattr(function, "__module__", None)).partition(".")[0]


def name_of(function: Callable[..., Any]) -> str:
    """Return `"module:name"`, under one of `HOMES` where the function stands there.

    **Raises:** `DefinitionError` for a function that cannot be found again by its name (a lambda, a local one).
    """
    own, module = getattr(function, "__name__", ""), getattr(function, "__module__", None)
    homes = HOMES if isinstance(function, np.ufunc) or _package(function) in ("numpy", "scipy") else ()
    for home in (*homes, module):
        try:
            if home and imported(f"{home}:{own}") is function:
                return f"{home}:{own}"
        except DefinitionError:
            continue
    raise DefinitionError(
        f"the function {' '.join(repr(function).split())[:80]} cannot be saved: define it at the top level of a "
        "module, so that it can be found again by name"
    )
