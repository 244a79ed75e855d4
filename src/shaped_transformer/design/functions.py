"""Functions in definitions: they are saved by name, and by default a file can name only those that are safe to load."""

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from ..errors import DefinitionError

TRUSTED_MODULES = ("numpy", "scipy.special")
"""Modules whose functions may be loaded from any file. Importing another module would run its code."""


def _as_function(f: Any) -> Any:
    """Return a function, or the function of this name."""
    f = import_function(f) if isinstance(f, str) else f
    if not callable(f):
        raise ValueError(f"a function of arrays or its name 'module:name' is expected (got {f!r})")
    return f


FUNCTION_MARKER = BeforeValidator(_as_function)
"""Marks the type of a field that contains a function, so that loading knows which texts are names of functions."""

NamedFunction = Annotated[Any, FUNCTION_MARKER]
"""Type of a field of a definition that contains a function; in JSON it is `"module:name"`."""


def import_function(name: str) -> Callable[..., Any]:
    """Return the function called `"module:name"`. This imports its module, and so runs the module's code.

    **Raises:** `DefinitionError` if there is no such function or its module cannot be imported.
    """
    module, _, own = name.partition(":")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module of the user may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = (
                f"there is no module {error.name!r}; make it importable, or put it beside the JSON file of "
                "--architecture and give --trust"
            )
        else:
            reason = f"its module raised {error!r}"
        raise DefinitionError(f"no function {name!r} ('module:name'): {reason}") from error
    if not callable(found := getattr(imported, own, None)):
        raise DefinitionError(f"no function {name!r}: the module {module} has no function {own!r}")
    return found


def load_function(name: str, *, trust: bool) -> Callable[..., Any]:
    """Return the function that a file names `"module:name"`.

    **Arguments:**

    - `name`: the name in the file.
    - `trust`: whether any module may be imported, or only `TRUSTED_MODULES`.

    **Raises:** `DefinitionError` if there is no such function; before anything is imported, if it needs trust.
    """
    module, _, own = name.partition(":")
    if trust:
        return import_function(name)
    if module in TRUSTED_MODULES and not own.startswith("_") and _is_array_function(found := import_function(name)):
        return found
    raise DefinitionError(
        f"the definition names the function {name!r}, but without trust only functions of "
        f"{' and '.join(TRUSTED_MODULES)} are loaded from a file, because importing others runs their code: if you "
        "trust the file, give trust=True, or --trust on the command line"
    )


def _is_array_function(found: Any) -> bool:
    """Whether this is a function of NumPy or SciPy themselves; their modules also contain classes and test runners."""
    return isinstance(found, np.ufunc) or (inspect.isroutine(found) and _package_name(found) in ("numpy", "scipy"))


def _package_name(function: Any) -> str:
    """Return the top-level package in which a function is defined."""
    return str(getattr(function, "__module__", None)).partition(".")[0]


def function_name(function: Callable[..., Any]) -> str:
    """Return the name `"module:name"` of a function, in one of `TRUSTED_MODULES` if they export it.

    **Raises:** `DefinitionError` for a function that cannot be imported by its name (a lambda, a local function).
    """
    own, module = getattr(function, "__name__", ""), getattr(function, "__module__", None)
    of_library = isinstance(function, np.ufunc) or _package_name(function) in ("numpy", "scipy")
    for candidate in (*(TRUSTED_MODULES if of_library else ()), module):
        try:
            if candidate and import_function(f"{candidate}:{own}") is function:
                return f"{candidate}:{own}"
        except DefinitionError:
            continue
    raise DefinitionError(
        f"the function {' '.join(repr(function).split())[:80]} cannot be saved: define it at the top level of a "
        "module, so that it can be imported by name"
    )
