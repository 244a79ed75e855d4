"""A model probed over its training steps: in one's own loop, or by a callback of Hugging Face's `Trainer`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..checks import check_count
from ..errors import InputError
from ..weightless.parameters.tensor import WeightlessTensor
from .measures import MEASURES
from .passes import run
from .result import KNOWN, ProbeResult, read, write

if TYPE_CHECKING:
    import xarray

KIND = "probe history"
"""Attribute by which a store is known."""


class History:
    """Measurements of one batch at several steps of a training.

    ```python
    import torch
    model, batch = st.nn.ShapedTransformer(width=64, depth=3, heads=4), torch.randn(2, 8, 64)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    history = st.probe.History(batch)
    for step in range(4):
        optimiser.zero_grad()
        model(batch).square().mean().backward()
        with history.step(model, step):
            optimiser.step()
    print(history.data["effective_rank"].mean("sequence").values)  # (steps, layers)
    ```

    **Arguments:**

    - `batch`: what is measured at every step, best held out from training; it is moved to the model's device.
    - `options`: as in `run`, such as `layers`, `loss` and `backward`.

    **Attributes:**

    - `results`: step → `ProbeResult` without its covariances.
    - `not_finite`: step → first layer with infinite or undefined tokens; such steps are not in `data`.
    """

    def __init__(self, batch: Any, **options: Any) -> None:
        self._batch, self._options = batch, options
        self.results: dict[int, ProbeResult] = {}
        self.not_finite: dict[int, str] = {}
        self._updates: dict[int, dict[str, float]] = {}

    def measure(self, model: nn.Module, step: int) -> ProbeResult:
        """Measure a model, and keep the result under the number of a step, which replaces an earlier one.

        **Raises:** `InputError` as `run`.
        """
        result = run(model, _moved(self._batch, model), **self._options)
        if (layer := result.settings["not_finite"]) is not None:
            self.not_finite[step] = layer
            self.results.pop(step, None)
        else:
            self.not_finite.pop(step, None)
            large = [name for name in ("covariance", "gradient_covariance") if name in result.data]
            self.results[step] = ProbeResult(result.data.drop_vars(large), result.settings)
        return result

    @contextmanager
    def step(self, model: nn.Module, step: int) -> Iterator[None]:
        """Measure a model before the body, and what the body, a step of an optimiser, changes in each weight.

        The weights are copied meanwhile. The update is ‖ΔW‖/‖W‖ in Frobenius norms, as `weight_update` in `data`.
        """
        self.measure(model, step)
        before = weights_of(model)
        yield
        self._updates[step] = {
            name: _change(before[name], weight) for name, weight in weights_of(model, copy=False).items()
        }

    @property
    def data(self) -> "xarray.Dataset":
        """All measurements, an xarray dataset with the dimension `step`.

        Gradients are NaN at steps that have none. `weight_update` is there if each measured step was measured by
        `step`.

        **Raises:** `InputError` where nothing was measured.
        """
        import xarray

        if not self.results and self.not_finite:
            step, layer = min(self.not_finite.items())
            raise InputError(f"tokens are infinite or undefined at every measured step: at step {step} from {layer} on")
        if not self.results:
            raise InputError("nothing was measured yet: call measure(model, step), or wait for the first step")
        steps = sorted(self.results)
        measured = [self.results[step].data for step in steps]
        names = [*MEASURES, *KNOWN.values(), "weight_gradient", "tokens"]
        examples = {name: one[name] for one in reversed(measured) for name in names if name in one}
        whole = [_filled(one, examples) for one in measured]
        data = xarray.concat(whole, "step").assign_coords(step=steps)
        if self._updates and all(step in self._updates for step in steps):
            names = list(self._updates[steps[0]])
            values = [[self._updates[step][name] for name in names] for step in steps]
            data = data.assign_coords(matrix=names).assign(weight_update=(("step", "matrix"), values))
        return data

    def save(self, path: str | Path) -> None:
        """Save the measurements as a zarr store, whole or not at all.

        **Raises:** `StorageError` where it cannot be written.
        """
        settings = {"not_finite": {str(step): layer for step, layer in self.not_finite.items()}}
        write(self.data, settings | {"settings": self._settings()}, KIND, path)

    @staticmethod
    def load(path: str | Path) -> tuple["xarray.Dataset", Mapping[str, Any]]:
        """Return the measurements that `save` wrote, and their settings.

        **Raises:** `StorageError` where there is no such store.
        """
        return read(KIND, path)

    def resume(self, path: str | Path) -> None:
        """Take up the measurements that `save` wrote, of a training that was interrupted; later ones replace them.

        **Raises:** `StorageError` where there is no such store.
        """
        data, settings = self.load(path)
        for step in map(int, data.step.values):
            one = data.sel(step=step, drop=True)
            if "weight_update" in one:
                self._updates[step] = dict(
                    zip(map(str, one.matrix.values), one.weight_update.values.tolist(), strict=True)
                )
                one = one.drop_dims("matrix")
            self.results[step] = ProbeResult(one, settings["settings"])
        self.not_finite |= {int(step): layer for step, layer in settings["not_finite"].items()}

    def _settings(self) -> Any:
        """Return the settings of the first measurement."""
        return json.loads(json.dumps(dict(self.results[min(self.results)].settings)))


def _filled(data: "xarray.Dataset", examples: Mapping[str, "xarray.DataArray"]) -> "xarray.Dataset":
    """Return the variables of `examples`, NaN, or false for what is known, where the step lacks them."""
    import xarray

    lacking = {
        name: xarray.full_like(one, False if one.dtype == bool else float("nan"))
        for name, one in examples.items()
        if name not in data
    }
    return data.assign(lacking)[list(examples)]


def weights_of(model: nn.Module, *, copy: bool = True) -> dict[str, Any]:
    """Return the real weight matrices of a model by name; by default copies."""
    real = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and not isinstance(parameter, WeightlessTensor)
    }
    return {name: weight.clone() for name, weight in real.items()} if copy else real


def _change(before: Any, after: Any) -> float:
    """Return ‖after − before‖/‖before‖, 0 where before is 0."""
    size = torch.linalg.vector_norm(before, dtype=torch.float64)
    moved = torch.linalg.vector_norm(after - before, dtype=torch.float64)
    return float(moved / size) if float(size) > 0 else 0.0


def callback(batch: Any, *, every: int = 100, out: str | Path | None = None, **options: Any) -> Any:
    """Return a callback for Hugging Face's `Trainer` that probes the model during training (extra `hf`).

    It measures the first step, every so many steps, and the weights' updates in these steps. A training that resumes
    from a checkpoint takes up what is in `out`.

    ```python
    import torch
    callback = st.probe.callback({"input_ids": torch.tensor([[1, 5, 9, 5]])}, every=50, out="probe.zarr")
    print(type(callback.history).__name__)  # trainer = Trainer(…, callbacks=[callback])
    ```

    **Arguments:**

    - `batch`: what is measured, a dictionary of what the model takes.
    - `every`: steps between two measurements, default 100.
    - `out`: zarr store that is written after each measurement; default none.
    - `options`: as in `run`.

    **Returns:** a `TrainerCallback`; its `history` is a `History`.
    """
    from transformers import TrainerCallback

    check_count(every, "every")

    class Probe(TrainerCallback):
        """Measures before the first and every so many steps of the optimiser."""

        def __init__(self) -> None:
            self.history = History(batch, **options)
            self._step = ExitStack()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Take up the measurements of an interrupted training."""
            if out is not None and state.global_step > 0 and state.is_world_process_zero and Path(out).exists():
                self.history.resume(out)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            """Measure, and keep the weights until the step is made."""
            if state.global_step % every == 0 and state.is_world_process_zero:
                self._step.enter_context(self.history.step(model, state.global_step))

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Measure the update."""
            self._step.close()
            due = state.global_step % every == 0 and state.is_world_process_zero
            if due and out is not None and self.history.results:
                self.history.save(out)

    return Probe()


def _moved(batch: Any, model: nn.Module) -> Any:
    """Return a batch on the device of a model."""
    device = next((parameter.device for parameter in model.parameters()), None)
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
    return batch
