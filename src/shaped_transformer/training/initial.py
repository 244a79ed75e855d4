"""A saved model that training starts from: its weights, its tokenizer, and what it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import InputError, StorageError
from ..io.files import reading
from .vocabulary import SPECIAL

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
"""The files that are read."""
FREE = {
    *("recover_steps", "num_labels", "id2label", "label2id", "max_position_embeddings", "causal", "use_cache"),
    *("architectures", "transformers_version", "dtype", "torch_dtype"),
}
"""What of a saved configuration may differ: the schedule of its gains stays, and what belongs to a task changes."""
RECIPE_NAMES = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "vocab_size": "vocabulary",
    "patch_size": "patch",
}
"""What a recipe calls the sizes of a configuration; others have one name, or belong to the variant."""


def model_folder(folder: str) -> Path:
    """Return where the model lies: the folder, or `model` in it if it is that of a run.

    **Raises:** `StorageError` if there is no model.
    """
    found = next((f for f in (Path(folder, "model"), Path(folder)) if (f / CONFIG).is_file()), None)
    if found is None or not (found / WEIGHTS).is_file():
        raise StorageError(
            f"initial: {folder} holds no saved model (config.json and model.safetensors): give the folder of a "
            "finished run, or one that save_pretrained wrote"
        )
    return found


def weights_sha256(folder: str) -> str:
    """Return the sha256 of a saved model's weights."""
    with reading(model_folder(folder)), (model_folder(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tokenizer(folder: str) -> str:
    """Return the tokenizer of a saved model, as JSON.

    **Raises:** `StorageError` if there is none; `InputError` if its special tokens are not those of this library.
    """
    file = model_folder(folder) / TOKENIZER
    try:
        described = file.read_text(encoding="utf-8")
        special = {token["content"]: token["id"] for token in json.loads(described)["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageError(
            f"initial: {folder} has no tokenizer that can be read: {file} is missing or damaged"
        ) from None
    if any(special.get(name) != number for number, name in enumerate(SPECIAL)):
        raise InputError(f"initial: the tokenizer in {folder} is not one that training makes: start from such a model")
    return described


def load_model(folder: str, cls: Any, wanted: Any) -> Any:
    """Return the saved model; parts that it lacks, such as another task's head, are initialised.

    **Arguments:**

    - `folder`: of a run or of the model.
    - `cls`: the class of the model.
    - `wanted`: the configuration that the recipe asks for.

    **Raises:** `InputError` with the differences if the saved model is another network; `StorageError` if it cannot be
    read.
    """
    place = model_folder(folder)
    try:
        with reading(place):
            kind = json.loads((place / CONFIG).read_text(encoding="utf-8")).get("model_type")
            if kind != wanted.model_type:
                raise InputError(
                    f"initial: {folder} holds a model of type {kind}, and a recipe trains {wanted.model_type}"
                )
            saved = type(wanted).from_pretrained(place)
            check_same(folder, saved, wanted)
            if saved.recover_steps is not None:
                wanted.recover_steps = saved.recover_steps
            return cls.from_pretrained(place, config=wanted, use_safetensors=True, local_files_only=True)
    except (SafetensorError, ValueError, RuntimeError, KeyError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"initial: the model in {place} cannot be read: save it again, or choose another") from None


def check_same(folder: str, saved: Any, wanted: Any) -> None:
    """Check that a saved model is the network of a recipe.

    **Raises:** `InputError` with the differences if it is not.
    """
    old, new = saved.to_diff_dict(), wanted.to_diff_dict()
    names = sorted((old.keys() | new.keys()) - FREE)
    differences = [
        f"{RECIPE_NAMES.get(name, name)} is {getattr(wanted, name, None)!r}, was {getattr(saved, name, None)!r}"
        for name in names
        if getattr(saved, name, None) != getattr(wanted, name, None)
    ]
    if differences:
        raise InputError(
            f"initial: the model in {folder} is another network: {'; '.join(differences)}. Give the recipe the values "
            "of the model"
        )
