"""YAML in the form in which people write it: 1e3 is a number, and a key that appears twice is an error."""

import functools
import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import read_text

EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Numbers of YAML 1.2 that PyYAML, a parser of YAML 1.1, reads as text."""


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    **Raises:** `StorageError` if it cannot be read, `InputError` if it is not YAML or a key appears twice.
    """
    return parse_yaml(read_text(Path(path), "YAML"), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return the content of a YAML text.

    **Arguments:**

    - `text`: the YAML.
    - `name`: what messages call the text, such as the name of its file.

    **Raises:** `InputError` if it is not YAML or a key appears twice.
    """
    import yaml

    try:
        return yaml.load(text, _loader())  # derived from PyYAML's safe loader: plain values only
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        raise InputError(f"{name} is not YAML: {f'line {mark.line + 1}: ' if mark else ''}{problem}") from None
    except RecursionError:
        raise InputError(f"{name} is nested too deeply") from None


@functools.cache
def _loader() -> Any:
    """Return a safe loader that reads exponents as numbers and refuses repeated keys."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} appears twice: leave one out", key.start_mark
                    )
                if isinstance(key, yaml.ScalarNode):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    return Loader
