"""How initialisation and learning rates follow the size of a model: in the standard way, in μP, and in ours."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..nn import parameter_groups
from ..probe.expectation import source_of
from ..weightless.recording.record import record
from .optimisers import Groups, decayed

KINDS = ("standard", "mup", "shaped")
"""Parametrisations that are known by name."""

SHAPED_LOGITS = -0.5
"""Power of the width by which shaped attention divides its logits beyond the root of a head's size."""


@dataclass(frozen=True)
class Parametrised:
    """A model of one size with the learning rates that belong to it, as `st.rehearse.run` takes them.

    **Arguments:**

    - `model`: a configuration, or a function that builds a module.
    - `groups`: groups of parameters with their rates, or `None` for one rate.
    - `logits`: the power of the width by which attention multiplies its logits, for models whose logits cannot be seen;
      default 0.
    """

    model: Any
    groups: Groups | None
    logits: float = 0.0


Parametrisation = Callable[[Any, Any, Any], Parametrised]
"""A function (model, base, class) → `Parametrised`: both models as configurations or functions that build modules."""


def standard(model: Any, base: Any = None, cls: Any = None) -> Parametrised:  # noqa: ARG001 - as all have them
    """Return a model as its own code initialises it, with one learning rate for all parameters.

    **Arguments:**

    - `model`: a configuration, or a function that builds a module.
    - `base`, `cls`: not used.
    """
    return Parametrised(model, None)


def shaped(model: Any, base: Any = None, cls: Any = None) -> Parametrised:  # noqa: ARG001 - as all have them
    """Return a shaped Transformer as its own code initialises it, with the rates of `st.nn.parameter_groups`.

    **Arguments:**

    - `model`: a configuration of `st.hf`, or a function that builds a module with `ShapedBlock`s.
    - `base`, `cls`: not used.
    """
    return Parametrised(model, parameter_groups, SHAPED_LOGITS)


def mup(model: Any, base: Any, cls: Any = None) -> Parametrised:
    """Return a model in the maximal update parametrisation (μP) for Adam, relative to a base model.

    The form is that of table 3 of Yang et al. (arXiv 2203.03466), without multipliers in the forward pass. Where n is
    the fan-in of a matrix and n₀ that of the same matrix in the base model:

    - matrices of which both sides grow (hidden): standard deviation of the base model × √(n₀/n), rate × n₀/n;
    - matrices of which only the fan-in grows (the head): standard deviation × n₀/n, rate × n₀/n;
    - matrices of which only the fan-out grows (embeddings), and vectors: as the model's own code initialises them,
      rate × 1.

    At the base size this is the model's own initialisation with one rate. Queries are divided by the root of a head's
    size as in the model's own code, which is μP too where heads grow in number and not in size. Weight decay multiplies
    the rate, so that hidden matrices decay more slowly in wider models.

    ```python
    from transformers import LlamaConfig
    base = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=100
    )
    wide = st.rehearse.mup(st.rehearse.scaled(base, width=4), base)
    ids = torch.arange(8)[None]
    st.rehearse.run(wide.model, {"input_ids": ids, "labels": ids}, lr=1e-3, groups=wide.groups)
    ```

    **Arguments:**

    - `model`: a configuration, or a function that builds a module.
    - `base`: the same of the base width, with the same number of layers.
    - `cls`: class for configurations, default `AutoModelForCausalLM`.

    **Returns:** a function that builds the model with this initialisation, and its groups.

    **Raises:** `InputError` where both models differ in more than width, or where the head is tied to the embedding,
    which then cannot be both.
    """
    build, rules = _compare(model, base, cls)

    def groups(module: nn.Module, lr: float) -> list[dict[str, Any]]:
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        out: list[dict[str, Any]] = []
        for group in decayed(module):
            rates: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rule = rules.get(names[id(parameter)])
                rates.setdefault(1.0 if rule is None else rule.rate, []).append(parameter)
            out += [group | {"params": some, "lr": lr * rate} for rate, some in rates.items()]
        return out

    stds = {name: rule.std for name, rule in rules.items() if rule.std is not None}
    return Parametrised(_initialised(build, stds), groups)


HIDDEN, HEAD, EMBEDDING, FIXED = "hidden", "head", "embedding", "fixed"


@dataclass(frozen=True)
class Rule:
    """How μP initialises a matrix, and by what it multiplies its rate.

    **Arguments:**

    - `kind`: which sides grow with the width: both, the fan-in, the fan-out, or none.
    - `std`: initial standard deviation, or `None` where the model's own initialisation stays.
    - `rate`: factor of the learning rate.
    """

    kind: str
    std: float | None
    rate: float


def _compare(model: Any, base: Any, cls: Any) -> tuple[Callable[[], nn.Module], dict[str, Rule]]:
    """Return the function that builds a model, and the rules of its matrices, from what grows over the base model."""
    build = builder(model, cls)
    small, recordings = record(builder(base, cls), torch.float32)
    large = record(build, torch.float32)[0]
    fans, tied = _fan_in(small), _tied(large)
    before, after = (dict(one.named_parameters()) for one in (small, large))
    if differing := before.keys() ^ after.keys():
        raise InputError(
            f"the model and its base model differ in {min(differing)}: give two models that differ in width alone"
        )
    rules = {}
    for name, parameter in after.items():
        shape, base_shape = tuple(parameter.shape), tuple(before[name].shape)
        if len(shape) != len(base_shape):
            raise InputError(f"{name} has {len(shape)} axes, and {len(base_shape)} in the base model")
        if len(shape) > 1:
            std = _std(recordings[name].law(before[name].shape), base_shape)
            rules[name] = _rule(shape, base_shape, fans.get(name, len(shape) - 1), std)
            if name in tied and rules[name].kind == EMBEDDING:
                raise InputError(
                    f"the head is tied to {name}, an embedding, and μP treats the two differently: untie them "
                    "(tie_word_embeddings=False)"
                )
    return build, rules


def _rule(shape: tuple[int, ...], base: tuple[int, ...], fan_in: int, std: float) -> Rule:
    """Return the rule of a matrix, or of a stack of them.

    **Arguments:**

    - `shape`, `base`: of the matrix, and in the base model.
    - `fan_in`: the axis of the fan-in.
    - `std`: in the base model, 0 for constants, which stay.
    """
    grows = [a != b for a, b in zip(shape, base, strict=True)]
    ratio = base[fan_in] / shape[fan_in]
    if not grows[fan_in]:
        return Rule(EMBEDDING if any(grows) else FIXED, None, 1.0)
    if any(grow for i, grow in enumerate(grows) if i != fan_in):
        return Rule(HIDDEN, std * ratio**0.5 if std else None, ratio)
    return Rule(HEAD, std * ratio if std else None, ratio)


def _initialised(build: Callable[[], nn.Module], stds: Mapping[str, float]) -> Callable[[], nn.Module]:
    """Return a function that builds a model and draws some of its matrices again, by name, as N(0, std²)."""

    def factory() -> nn.Module:
        made = build()
        for name, parameter in made.named_parameters():
            if name in stds:
                nn.init.normal_(parameter, 0.0, stds[name])
        return made

    return factory


def _fan_in(model: nn.Module) -> dict[str, int]:
    """Return the axis of the fan-in of the matrices whose first axis it is; of all others it is the last."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D":
            name = names.get(id(module.weight))
            if name is not None:
                found[name] = 0
    return found


def _tied(model: nn.Module) -> set[str]:
    """Return the names of the parameters that several modules share."""
    every = [(id(parameter), name) for name, parameter in model.named_parameters(remove_duplicate=False)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[one] for one, name in every if names[one] != name}


def _std(law: Any, shape: tuple[int, ...]) -> float:
    """Return the standard deviation of a matrix' entries; 0 of constants."""
    if law.kind == "orthogonal":
        return float(law.std * max(shape[0], shape[-1]) ** -0.5)
    return 0.0 if law.kind in ("constant", "other") else float(law.std)


def builder(model: Any, cls: Any = None) -> Callable[[], nn.Module]:
    """Return a function that builds a module in single precision.

    **Arguments:**

    - `model`: a configuration, or such a function.
    - `cls`: class for a configuration.
    """
    source, chosen = source_of(model, cls)
    if chosen is None:
        made_by: Callable[[], nn.Module] = source
        return made_by

    def build() -> nn.Module:
        config = deepcopy(source)
        config._experts_implementation = "eager"  # as weightless models have it
        auto = hasattr(chosen, "_model_mapping")
        made: nn.Module = chosen.from_config(config, dtype=torch.float32) if auto else chosen(config)
        return made

    return build


def parametrisation_of(kind: str | Parametrisation) -> Parametrisation:
    """Return a parametrisation by name.

    **Raises:** `InputError` for another name.
    """
    known: dict[str, Parametrisation] = dict(zip(KINDS, (standard, mup, shaped), strict=True))
    if callable(kind):
        return kind
    if kind not in known:
        raise InputError(
            f"parametrisation must be {', '.join(map(repr, KINDS))}, or a function (model, base, class) → "
            f"st.rehearse.Parametrised (got {kind!r})"
        )
    return known[kind]
