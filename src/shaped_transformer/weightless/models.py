"""Make a model weightless: from any function that builds one, or from a Hugging Face configuration."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checks import check_number, check_seed
from ..errors import InputError, MissingExtra
from .matrices.ledger import Ledger, machine_memory
from .network import ATTRIBUTE, Network, network_of
from .recording.record import record
from .untrusted import without_kernels


def build(
    factory: Callable[[], nn.Module],
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    approximate: bool = False,
    memory: float | None = None,
    history: bool | None = None,
) -> Any:
    """Return a model at initialisation without its weights, with activations and gradients exact in distribution.

    ```python
    model = st.weightless.build(lambda: st.nn.ShapedTransformer(width=65_536, depth=2, heads=64), seed=0)
    model(torch.randn(1, 4, 65_536)).square().mean().backward()
    st.weightless.gradient_norms(model)
    ```

    The distribution of each parameter is what the model's own code makes of it. A matrix is drawn for real where that
    is cheaper; biases, norms and other small parameters always are.

    **Arguments:**

    - `factory`: a function without arguments that builds the module.
    - `seed`: of all parameters, default 0. PyTorch's global generator is not used.
    - `dtype`: `torch.float32` (default) or `torch.float64`.
    - `approximate`: whether Gaussian weights of equal variance may stand for those of other distributions, such as
      PyTorch's uniform default. Default no: an error says which they are.
    - `memory`: gigabytes (10⁹ bytes) that parameters drawn for real may take in all, and any single product; default
      half of the machine's memory.
    - `history`: whether the vectors of the backward pass are kept, so that the same network can make further passes.
      Default `None`: while they take at most 128 MB, and always once there is an optimiser.

    **Returns:** the module that `factory` makes, in the mode in which it makes it, with weightless parameters.

    **Raises:** `InputError` for a model that cannot be simulated, with the names and sizes of the parameters.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be torch.float32 or torch.float64 (got {dtype!r})")
    if history is not None and not isinstance(history, bool):
        raise InputError(f"history must be True, False or None (got {history!r})")
    if not isinstance(approximate, bool):
        raise InputError(f"approximate must be True or False (got {approximate!r})")
    gigabytes = machine_memory() / 2e9 if memory is None else check_number(memory, "memory")
    if not gigabytes >= 0:
        raise InputError(f"memory must be a number of gigabytes of at least 0 (got {memory!r})")
    ledger = Ledger(check_seed(seed), dtype, gigabytes * 1e9, history)
    model, recordings = record(factory, dtype)
    setattr(model, ATTRIBUTE, Network(model, recordings, ledger, approximate=approximate))
    return model


def from_config(
    config: Any,
    seed: int = 0,
    *,
    cls: Any = None,
    dtype: torch.dtype = torch.float32,
    approximate: bool = False,
    memory: float | None = None,
    history: bool | None = None,
) -> Any:
    """Return the model of a Hugging Face configuration at initialisation, without its weights (extra `hf`).

    ```python
    from transformers import LlamaConfig
    model = st.weightless.from_config(LlamaConfig(hidden_size=8192, num_hidden_layers=2), seed=0)
    ids = torch.arange(16)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    ```

    **Arguments:**

    - `config`: a configuration, or a folder or JSON file of one.
    - `cls`: class of the model, such as `BertForMaskedLM` or `AutoModelForSeq2SeqLM`; default `AutoModelForCausalLM`.
    - `seed`, `dtype`, `approximate`, `memory`, `history`: as in `build`. The configuration's data type is not used.

    **Returns:** the model, in training mode, as Hugging Face makes it: call `.eval()` to turn dropout off.

    **Raises:** `InputError` for what is not a configuration, a class that does not take it, or a model that cannot be
    simulated; `MissingExtra` without Hugging Face's packages.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra("hf", "shaped_transformer.weightless.from_config") from None
    config = _configuration(config, transformers)
    for part in (config, *_parts(config, transformers)):
        part._experts_implementation = "eager"  # one matrix product for each expert; the fused kernels read the weights
    chosen: Any = transformers.AutoModelForCausalLM if cls is None else cls
    auto = hasattr(chosen, "_model_mapping")
    if not auto and not (isinstance(chosen, type) and issubclass(chosen, transformers.PreTrainedModel)):
        raise InputError(f"cls must be a Hugging Face model class, such as AutoModel (got {chosen!r})")
    if not auto and not isinstance(config, chosen.config_class):
        raise InputError(f"{chosen.__name__} takes a {chosen.config_class.__name__} (got a {type(config).__name__})")

    def factory() -> nn.Module:
        try:
            model: nn.Module = chosen.from_config(config, dtype=dtype) if auto else chosen(config)
            return model
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise InputError(
                f"{chosen.__name__} has no model for a {type(config).__name__}: give another class as "
                "cls=, such as transformers.AutoModel"
            ) from None

    return build(factory, seed, dtype=dtype, approximate=approximate, memory=memory, history=history)


def redraw(model: nn.Module, seed: int) -> None:
    """Forget the network and its gradients, and start another one of the same distribution.

    **Arguments:**

    - `model`: a weightless model.
    - `seed`: of the new network.

    **Raises:** `InputError` for another model, or a seed that is not a whole number of at least 0.
    """
    network_of(model).redraw(seed)


def _configuration(config: Any, transformers: Any) -> Any:
    """Return a copy of a configuration, read from a folder or file where a path is given."""
    if isinstance(config, transformers.PretrainedConfig):
        return deepcopy(config)
    if not isinstance(config, str | Path):
        raise InputError(f"config must be a Hugging Face configuration or a path to one (got {type(config).__name__})")
    path = Path(config)
    file = path / "config.json" if path.is_dir() else path
    try:
        content = without_kernels(json.loads(file.read_text()))
        return transformers.AutoConfig.for_model(**content)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a configuration: give a folder with a config.json, or a JSON file with a "
            f"model_type that Hugging Face knows ({type(error).__name__})"
        ) from None


def _parts(config: Any, transformers: Any) -> list[Any]:
    """Return the configurations inside a configuration."""
    return [one for one in vars(config).values() if isinstance(one, transformers.PretrainedConfig)]
