"""What a name on the command line stands for: a folder, a hub name, a configuration, or a function of one's own."""

import importlib
import json
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import weightless
from ..errors import InputError, MissingExtra, StorageError, counted
from ..io.files import read_text
from .configurations import model_class, read_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = "model.safetensors"
"""File of the weights in a folder of Hugging Face."""

INDEX = f"{WEIGHTS}.index.json"
"""File that names the parts of large weights."""

UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
"""Files of weights that are not read: most of these formats can run code when they are loaded."""

ADVICE = "save the model again with save_pretrained, or give --init to probe its configuration at initialisation"
"""What to do about weights that are not read."""

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
"""Files by which a folder is known to have a tokenizer."""

FROM_HUB = ("*.json", "*.txt", "*.model")
"""Files that are read of a model on the hub, beside its weights."""


@dataclass(frozen=True)
class Subject:
    """A model to probe, and its initialisation.

    **Arguments:**

    - `name`: as the user gave it.
    - `model`: the module that is measured, with weights; `None` where the measurement is a weightless draw.
    - `source`: what `st.probe.expected` takes: a configuration, or a function that builds a module.
    - `cls`: class of a configuration's model; `None` for a function.
    - `tokenizer`: tokenizer of Hugging Face; `None` where there is none.
    - `notes`: what the user should know, as sentences.
    """

    name: str
    model: nn.Module | None
    source: Any
    cls: Any = None
    tokenizer: Any = None
    notes: tuple[str, ...] = ()

    @property
    def is_weightless(self) -> bool:
        """Whether no weights are made or read."""
        return self.model is None

    def draw(self, seed: int, *, approximate: bool = False) -> nn.Module:
        """Return the module to measure: the model, or a weightless draw of its initialisation.

        **Raises:** `InputError` for a model whose initialisation cannot be simulated.
        """
        if self.model is not None:
            return self.model
        given: dict[str, Any] = {"seed": seed, "approximate": approximate, "history": False}
        if self.cls is None:
            return weightless.build(self.source, **given)
        with _one_line(f"no model can be made from the configuration of {self.name}"):
            return weightless.from_config(self.source, cls=self.cls, **given)


def load(name: str | None, *, config: Path | None = None, init: bool = False, seed: int = 0) -> Subject:
    """Return the model that a name stands for.

    - A folder of Hugging Face with weights in safetensors: the trained model. No code in the folder is run.
    - A folder with nothing but a configuration, or a JSON file: the initialisation of that configuration.
    - `package.module:factory`: what the function returns, called without arguments.
    - Any other name: a model on the Hugging Face hub, or in its cache.

    ```python
    from shaped_transformer.probe.loading import load
    load("torch.nn:Identity").model  # Identity()
    ```

    **Arguments:**

    - `name`: the name; `None` where `config` is given alone.
    - `config`: JSON file of a configuration that is taken in place of the model's; the tokenizer is that of `name`.
    - `init`: whether to take the model's initialisation in place of its weights.
    - `seed`: of PyTorch's generator while a function builds a module.

    **Raises:** `InputError` or `StorageError` for a name that stands for nothing, a damaged folder, weights in another
    format, no network, or a function that fails; `MissingExtra` without Hugging Face's packages.
    """
    if name is None:
        if config is None:
            raise InputError("give a MODEL, or a configuration with --config")
        return _initialisation(str(config), config, None)
    if names_function(name):
        if config is not None:
            raise InputError(f"--config does not go with a function ({name}): leave one of them out")
        return _from_factory(name, init=init, seed=seed)
    _require_transformers()
    if Path(name).is_file():
        if Path(name).suffix != ".json":
            raise InputError(
                f"{name} is a file: give a model's folder, the JSON file of a configuration, or module:function"
            )
        if config is not None:
            raise InputError(f"{name} and --config are both configurations: leave one of them out")
        return _initialisation(name, Path(name), None)
    weights = not init and config is None
    folder = Path(name) if Path(name).is_dir() else _from_hub(name, weights=weights)
    if config is not None:
        return _initialisation(str(config), config, folder)
    return _from_folder(name, folder, init=init, on_hub=folder != Path(name))


def _require_transformers() -> None:
    """Check that Hugging Face's packages are there."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtra("hf", "a Hugging Face model") from None


def _initialisation(name: str, config: Path, folder: Path | None) -> Subject:
    """Return the initialisation of a configuration, with the tokenizer of a folder."""
    _require_transformers()
    read = read_configuration(config)
    cls, notes = model_class(read)
    tokenizer, more = _tokenizer(folder)
    return Subject(name, None, read, cls, tokenizer, (*notes, *more))


def _from_folder(name: str, folder: Path, *, init: bool, on_hub: bool) -> Subject:
    """Return the model in a folder, or its initialisation where there are no weights or `init` asks for it."""
    file = folder / "config.json"
    if not file.is_file():
        raise StorageError(f"{name} has no config.json: give the folder of a Hugging Face model")
    if init or not _has_weights(name, folder, on_hub=on_hub):
        return _initialisation(name, file, folder)
    config = read_configuration(file)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{name} is quantised, and its weights have no gradients: give the original, or --init")
    cls, notes = model_class(config)
    model, more = _with_weights(name, folder, config, cls)
    tokenizer, last = _tokenizer(folder)
    return Subject(name, model, config, cls, tokenizer, (*notes, *more, *last))


def _has_weights(name: str, folder: Path, *, on_hub: bool) -> bool:
    """Whether a folder has weights in safetensors.

    **Raises:** `InputError` or `StorageError` where parts are missing, or weights are there in another format only.
    """
    if (folder / WEIGHTS).is_file():
        return True
    if (folder / INDEX).is_file():
        try:
            parts = set(json.loads(read_text(folder / INDEX, "JSON"))["weight_map"].values())
            missing = sorted(part for part in parts if not (folder / part).is_file())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / INDEX} is damaged: copy the folder again") from None
        if missing:
            raise StorageError(f"{name} lacks {', '.join(missing[:3])}, part of its weights: copy the folder again")
        return True
    others = sorted(found.name for pattern in UNSAFE for found in folder.glob(pattern))
    if others or on_hub:
        what = f"only {', '.join(others[:3])}" if others else f"no {WEIGHTS}"
        raise InputError(
            f"{name} has {what}: weights are read only from safetensors, because other formats can run code; {ADVICE}"
        )
    if any(folder.glob("*.safetensors")):
        raise StorageError(f"{name} has neither {WEIGHTS} nor {INDEX}: copy the folder again, or give --init")
    return False


def _with_weights(name: str, folder: Path, config: Any, cls: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model of a folder, in single precision, and what to say about it."""
    with _one_line(f"the weights of {name} cannot be read, copy the folder again"), _quiet():
        model, found = cls.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, in one line
        )
    if wrong := sorted(found.get("mismatched_keys", ()), key=lambda one: str(one[0])):
        key, there, asked = wrong[0]
        raise InputError(
            f"{name} does not fit its config.json: {key} has shape {tuple(there)} instead of {tuple(asked)}, and "
            f"{counted(len(wrong) - 1, 'more parameter')} differ: copy the folder again"
        )
    missing = sorted(found.get("missing_keys", ()))
    if len(missing) >= len(list(model.parameters())):
        raise InputError(f"no weight in {name} belongs to a {cls.__name__}: check architectures in its config.json")
    if not missing:
        return model, ()
    first = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return model, (f"{counted(len(missing), 'parameter')} not in the weights, so at initialisation: {first}",)


def _tokenizer(folder: Path | None) -> tuple[Any, tuple[str, ...]]:
    """Return the tokenizer in a folder, or `None`, and what to say about it."""
    if folder is None or not any((folder / name).is_file() for name in TOKENIZERS):
        return None, ()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True), ()
    except Exception as error:  # for a damaged tokenizer, Hugging Face raises exceptions of almost any type
        return None, (
            f"The tokenizer cannot be read ({first_line(error)}): each different word gets one random token.",
        )


def _from_hub(name: str, *, weights: bool) -> Path:
    """Return the folder in the cache with the files of a model on the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name):
        raise StorageError(f"no such folder: {name}")
    wanted = [*FROM_HUB, *(["model*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except LocalEntryNotFoundError:
        raise StorageError(
            f"there is no file or folder {name}, no model of this name in the cache, and the hub cannot be reached: "
            "check the path, or try again with a network and without HF_HUB_OFFLINE"
        ) from None
    except HfHubHTTPError as error:
        raise StorageError(
            f"there is no folder {name}, and the hub gives no model of this name: {first_line(error)}"
        ) from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{name} cannot be loaded from the hub: {first_line(error)}") from None


def _from_factory(name: str, *, init: bool, seed: int) -> Subject:
    """Return what a function builds, or its initialisation."""
    factory = import_factory(name)

    def build() -> nn.Module:
        try:
            built = factory()
        except InputError:
            raise
        except Exception as error:  # a function of the user's may raise anything
            raise InputError(f"{name} raised {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(built, nn.Module):
            raise InputError(f"{name} must return a PyTorch module (got {type(built).__name__})")
        return built

    if init:
        return Subject(name, None, build)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Subject(name, build(), build)


def names_function(name: str | None) -> bool:
    """Whether a name has the form `package.module:factory`, and is no file or folder."""
    return bool(name and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name) and not Path(name).exists())


def import_factory(name: str) -> Callable[[], Any]:
    """Return the function that `package.module:name` stands for.

    **Raises:** `InputError` where there is none, or importing its module fails.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # a module of the user's may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}.")
        if absent:
            raise InputError(f"there is no module {module} in the current folder or among the packages") from None
        raise InputError(f"importing {module} raised {type(error).__name__}: {first_line(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module} has no {path}: give a function of that module that builds a PyTorch module")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{name} is not a function (got {type(found).__name__}): give one that builds a module")
    return found


@contextmanager
def _one_line(what: str) -> "Iterator[None]":
    """Turn what Hugging Face raises, which may be anything, into an `InputError` with one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def _quiet() -> "Iterator[None]":
    """Keep transformers from printing warnings and bars while the context lasts."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
