"""Configurations of Hugging Face: read from a file, and the class of model that each stands for."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.files import read_text
from ..weightless.untrusted import without_kernels

CLASSES = (
    *("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING", "MODEL_FOR_MASKED_LM_MAPPING"),
    *("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
    *(
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
        "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
        "MODEL_FOR_PRETRAINING_MAPPING",
    ),
    "MODEL_MAPPING",
)
"""Tables of transformers from configurations to classes; the first that knows a configuration is the default."""


def read_configuration(file: Path) -> Any:
    """Return the configuration in a JSON file, or in a folder's `config.json`. No code of the model's own is run.

    **Raises:** `StorageError` where the file cannot be read; `InputError` where it is damaged, or its type of model is
    not known.
    """
    from transformers import CONFIG_MAPPING

    file = file / "config.json" if file.is_dir() else file
    try:
        content = json.loads(read_text(file, "JSON"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not valid JSON ({str(error).splitlines()[0]}): copy it again") from None
    kind = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise InputError(f"{file} is not the configuration of a model: it needs a model_type, such as gpt2")
    if kind.startswith("shaped"):
        from .. import hf  # noqa: F401 - registers its models
    if kind not in CONFIG_MAPPING:
        own = "; the model's own code (auto_map) is not run" if "auto_map" in content else ""
        raise InputError(
            f"{file}: the installed transformers does not know model_type {kind!r}{own}: update "
            "transformers, or correct the file"
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(without_kernels(content))
    except Exception as error:  # for a value that does not fit, Hugging Face raises exceptions of almost any type
        raise InputError(f"{file} is not a valid configuration of {kind}: {' '.join(str(error).split())}") from None


def model_class(config: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the class of a configuration's model, and what to say about it.

    **Arguments:**

    - `config`: a configuration. Its `architectures` name the class; without them it is the model for language or
      images that transformers has for this type.

    **Raises:** `InputError` where transformers has no model for it.
    """
    import transformers

    known = [one for name in CLASSES for one in _classes(getattr(transformers, name), config)]
    if not known:
        raise InputError(f"transformers has no model that probes can use for a {type(config).__name__}")
    named = next(iter(getattr(config, "architectures", None) or ()), None)
    if named is None:
        return known[0], (f"The configuration names no class in architectures: {known[0].__name__} is taken.",)
    found = next((one for one in known if one.__name__ == named), getattr(transformers, named, None))
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        return known[0], (f"transformers has no {named}: {known[0].__name__} is taken.",)
    return found, ()


def _classes(table: Any, config: Any) -> tuple[Any, ...]:
    """Return the classes that a table has for a configuration."""
    found = table.get(type(config), ())
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)
