"""What the initialisation of a model would do to the same tokens: many weightless draws, observed in the same way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import weightless
from ..checks import check_count, check_seed
from ..errors import InputError
from ..io.progress import progress
from ..numerics.arrays import Floats
from ..weightless.matrices.factor import NotFiniteError
from .measures import MEASURES
from .passes import TOKENS, Loss, run
from .result import KNOWN, ProbeResult, Stored

CODE = {"transformers": "transformers", "shaped_transformer": "Shaped Transformer"}
"""Packages whose configurations are known, by their names in sentences."""


@dataclass(frozen=True, eq=False)
class Expectation(Stored):
    """Draws of a model at initialisation, measured as `run` does.

    **Attributes:**

    - `data`: an xarray dataset with the variables of `MEASURES`, (draw, layer, sequence), and `weight_gradient`
      (draw, weight).
    - `settings`: how they were drawn: `label`, whose initialisation it is; `draws`; `overflowed`, how many of the draws
      were left out since their tokens or gradients were infinite or undefined.
    """

    kind = "probe expectation"

    def draws(self, measure: str) -> Floats:
        """Return a number of each layer in each draw, (draws, layers), means over sequences.

        **Raises:** `InputError` for a number that was not measured.
        """
        return self.over_sequences(measure)


def expected(
    model: Any,
    batch: Any,
    draws: int = 20,
    *,
    layers: str | Sequence[str] | None = None,
    backward: bool = True,
    loss: Loss | None = None,
    max_tokens: int = TOKENS,
    batch_first: bool = True,
    seed: int = 0,
    approximate: bool = False,
    memory: float | None = None,
    cls: Any = None,
    client: Any = None,
) -> Expectation:
    """Return what a model's initialisation would do to a batch, from weightless twins, exact in distribution.

    ```python
    import torch
    batch = torch.randn(2, 8, 64)
    build = lambda: st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    comparison = st.probe.run(build(), batch).compare(st.probe.expected(build, batch, draws=20))
    print(comparison.to_frame("token_norm"))
    ```

    Below a billion parameters take at least 100 draws: bands of fewer draws are wide.

    **Arguments:**

    - `model`: a Hugging Face model or configuration (its folder or JSON file too), or a function or class that builds
      a module.
    - `batch`, `layers`, `backward`, `loss`, `max_tokens`, `batch_first`: as in `run`.
    - `draws`: number of networks, default 20.
    - `seed`: of the networks; each draw has its own, so that the first draws stay the same when there are more.
    - `approximate`, `memory`: as in `st.weightless.build`.
    - `cls`: the Auto class for a configuration, default `AutoModelForCausalLM`.
    - `client`: a Dask client on which draws run in parallel; the numbers are the same.

    **Raises:** `InputError` for a model whose initialisation is not known or cannot be simulated; as `run` otherwise.
    """
    check_count(draws, "draws")
    check_seed(seed)
    twin = Twin(*source_of(model, cls), approximate, memory, _implementation(model))
    options = {
        "layers": layers,
        "backward": backward,
        "loss": loss,
        "max_tokens": max_tokens,
        "batch_first": batch_first,
    }
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(draws)]
    with progress("Draws at initialisation", draws) as advance:
        if client is None:
            results = twin.measure(batch, seeds, options, advance)
        else:
            workers = max(1, len(client.ncores()))
            futures = [client.submit(twin.measure, batch, part, options, pure=False) for part in _parts(seeds, workers)]
            results = [one for future in futures for one in future.result()]
    return _collect(results, draws)


@dataclass(frozen=True)
class Twin:
    """A model without weights, to be built wherever draws are made.

    **Arguments:**

    - `source`: a configuration, or a function that builds a module.
    - `cls`: class for a configuration.
    - `approximate`, `memory`: as in `st.weightless.build`.
    - `attention`: name of the attention implementation, default the configuration's.
    """

    source: Any
    cls: Any
    approximate: bool
    memory: float | None
    attention: str | None

    def build(self) -> nn.Module:
        """Return the weightless model."""
        given: dict[str, Any] = {"approximate": self.approximate, "memory": self.memory, "history": False}
        if self.cls is None:
            return weightless.build(self.source, **given)
        model: nn.Module = weightless.from_config(self.source, cls=self.cls, **given)
        if self.attention is not None:
            model.set_attn_implementation(self.attention)  # type: ignore[operator]
        return model

    def measure(
        self, batch: Any, seeds: list[int], options: dict[str, Any], advance: Callable[[float], None] = lambda _: None
    ) -> list[ProbeResult]:
        """Return the results of networks, by their seeds, without covariances, and without networks that overflow."""
        model, results = self.build(), []
        label = self._label(model)
        for seed in seeds:
            weightless.redraw(model, seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # for models whose forward pass draws random numbers
                try:
                    result = run(model, batch, **options)
                except NotFiniteError:
                    continue
            large = [name for name in ("covariance", "gradient_covariance") if name in result.data]
            results.append(ProbeResult(result.data.drop_vars(large), {**result.settings, "label": label}))
            model.zero_grad(set_to_none=True)
            advance(1)
        return results

    def _label(self, model: nn.Module) -> str:
        """Return whose initialisation it is."""
        package = "" if self.cls is None else type(model).__module__.partition(".")[0]
        return f"as {CODE.get(package, 'its own code')} initialises it"


def source_of(model: Any, cls: Any) -> tuple[Any, Any]:
    """Return what a twin is built from, and its class, `None` for a function."""
    if isinstance(model, nn.Module):
        config = getattr(model, "config", None)
        if not hasattr(config, "to_dict") or not hasattr(type(model), "_from_config"):
            raise InputError(
                f"the initialisation of a {type(model).__name__} is not known from the module: give a function that "
                "builds it, such as lambda: MyModel(...)"
            )
        return config, cls or type(model)
    module = isinstance(model, type) and issubclass(model, nn.Module)
    if module or (callable(model) and not isinstance(model, type) and not hasattr(model, "to_dict")):
        return model, None
    if cls is None:
        from transformers import AutoModelForCausalLM

        cls = AutoModelForCausalLM
    return model, cls


def _implementation(model: Any) -> str | None:
    """Return the name of the attention implementation of a model."""
    found = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return found if isinstance(model, nn.Module) and isinstance(found, str) else None


def _parts(seeds: list[int], count: int) -> list[list[int]]:
    """Return seeds in parts of about equal size, in order."""
    return [list(map(int, part)) for part in np.array_split(seeds, min(count, len(seeds)))]


def _collect(results: list[ProbeResult], draws: int) -> Expectation:
    """Return the draws as one dataset, without those that overflowed."""
    import xarray

    def whole(result: ProbeResult) -> bool:
        return result.settings["not_finite"] is None and "infinite" not in result.settings["gradient"]

    good = [result for result in results if whole(result)]
    if not good:
        raise InputError(
            "at initialisation the tokens or gradients of this model are infinite or undefined in all draws"
        )
    names = [name for name in [*MEASURES, *KNOWN.values(), "weight_gradient", "tokens"] if name in good[0].data]
    data = xarray.concat([result.data[names] for result in good], "draw")
    first = good[0].settings
    settings = {
        "label": first["label"],
        "model": first["model"],
        "parameters": first["parameters"],
        "draws": len(good),
        "overflowed": draws - len(good),
        "gradient": first["gradient"],
    }
    return Expectation(data, settings)
