"""YAML as people write it: 1e3 is a number, and a key that stands twice is an error."""

import functools
import re
from pathlib import Path
from typing import Any

from ..errors import InputError, StorageError

EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Numbers of YAML 1.2 that YAML 1.1 reads as text."""


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    **Raises:** `StorageError` if it cannot be read, `InputError` if it is not YAML or has a key twice.
    """
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not YAML: it is not UTF-8 text") from None


def parse_yaml(text: str, name: str) -> Any:
    """Return what a YAML text holds.

    **Arguments:** `text`; `name`: of the text in messages, such as its file.

    **Raises:** `InputError` if it is not YAML or has a key twice.
    """
    import yaml

    try:
        return yaml.load(text, _loader())  # a safe one: plain values only
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        raise InputError(f"{name} is not YAML: {f'line {mark.line + 1}: ' if mark else ''}{problem}") from None
    except RecursionError:
        raise InputError(f"{name} is nested too deeply") from None


@functools.cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice: leave one out", key.start_mark
                    )
                if isinstance(key, yaml.ScalarNode):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    return Loader
