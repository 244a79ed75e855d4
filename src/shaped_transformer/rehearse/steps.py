"""The first steps of an optimiser, measured: `run`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import weightless
from ..checks import check_count, check_seed
from ..errors import InputError, counted
from ..io.progress import progress
from ..numerics.arrays import Floats
from ..probe.attention import eager
from ..probe.expectation import source_of
from ..probe.layers import find_blocks
from ..probe.observation import observed
from ..probe.passes import call, check_batch, clear, loss_of, unchanged
from ..probe.tokens import Tokens, first_tensor, padding_masks
from ..weightless.matrices.factor import NotFiniteError
from ..weightless.network import network_of
from .cost import check_memory, streamed_entries
from .optimisers import Groups, Plan
from .pace import Pace
from .rehearsal import Course, Rehearsal, dataset
from .rounding import rounded
from .trainer import Trainer
from .watching import Pass, Watch

TOKENS = 512
"""Number of tokens of a sequence above which a sample of them is watched."""


def run(
    model: Any,
    batches: Any,
    optimiser: str | Callable[[Any], Any] = "adamw",
    *,
    lr: float,
    steps: int = 3,
    groups: Groups | None = None,
    warmup: int = 0,
    clip: float | None = None,
    weight_decay: float = 0.1,
    options: Mapping[str, Any] | None = None,
    layers: str | Sequence[str] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    draws: int = 1,
    seed: int = 0,
    real: bool = False,
    rounding: str | None = None,
    cls: Any = None,
    approximate: bool = False,
    memory: float | None = None,
    partial: bool = False,
) -> Rehearsal:
    """Return what the first steps of an optimiser do to a model from its initialisation, without its weights.

    Losses, streams and updates have exactly the distribution of real training from the same initialisation (theory §7).
    Dropout is off.

    ```python
    factory = lambda: st.nn.ShapedTransformer(width=1024, depth=4, heads=8)
    result = st.rehearse.run(factory, torch.randn(1, 8, 1024), lr=2e-3, groups=st.nn.parameter_groups)
    result.data["stream_change"].sel(step=3)
    ```

    **Arguments:**

    - `model`: a Hugging Face configuration (its folder or JSON file too), or a function that builds a module.
    - `batches`: what the model takes: one batch, that every step trains on, or a list of them, new tokens each step,
      from the first again when they are used up. A batch is a tensor or a dictionary of keyword arguments. With a list,
      changes are measured on the tokens of its first batch.
    - `optimiser`: `"adamw"` (default), `"muon"` for the matrices in the blocks with AdamW for the rest, `"sgd"`, or a
      function model → optimiser of `st.weightless`, or a list of them.
    - `lr`: learning rate. Muon's is scaled to that of AdamW (`adjust_lr_fn="match_rms_adamw"`). A function has its own,
      and its own weight decay.
    - `steps`: number of steps, default 3.
    - `groups`: function (model, lr) → groups of parameters, such as `st.nn.parameter_groups`; default: one rate for
      all, and no decay of biases and gains.
    - `warmup`: steps of linear warm-up, default none: the rate of step s is lr·min(1, s/warmup).
    - `clip`: largest global norm of the gradient, default none.
    - `weight_decay`: λ, default 0.1.
    - `options`: further arguments of the optimiser, such as `{"betas": (0.9, 0.95)}`.
    - `layers`, `loss`: as in `st.probe.run`.
    - `draws`: number of networks, default 1.
    - `seed`: of the networks; the first draws stay the same when there are more.
    - `real`: whether to train real weights with PyTorch's optimisers, for comparison; default no.
    - `rounding`: `"bfloat16"` rounds what each module returns, and its gradient, as training in that format would, an
      approximation; default none.
    - `cls`, `approximate`, `memory`: as in `st.weightless.from_config`.
    - `partial`: whether an interrupt returns what is known by then, of the networks that are complete if there is one.
      Default no: it is raised.

    **Returns:** the measurements; where numbers become infinite or undefined, up to the step before.

    **Raises:** `InputError` for settings that do not fit, a model that cannot be simulated, a batch that it does not
    take, more tokens than memory holds, or numbers that are infinite before the first step.
    """
    plan = Plan(optimiser, lr, groups, warmup, clip, weight_decay, {} if options is None else options)
    check_count(steps, "steps")
    check_count(draws, "draws")
    check_seed(seed)
    if rounding not in (None, "bfloat16"):
        raise InputError(f'rounding must be None or "bfloat16" (got {rounding!r})')
    given = batches if isinstance(batches, (list, tuple)) else [batches]
    if not given:
        raise InputError("batches must hold at least one batch (got an empty list)")
    for batch in given:
        check_batch(batch)
    build = _builder(model, cls, real=real, approximate=approximate, memory=memory)
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(draws)]
    courses: list[Course] = []
    ends: list[tuple[int, str]] = []
    interrupted, names, about = None, [], {}
    with progress("Rehearsing", draws * (steps + 1)) as advance:
        for one in seeds:
            course = Course()
            try:
                module = build(one)
                if not real:
                    check_memory(module, given, steps, memory)
                pace = Pace(advance, 0 if real else streamed_entries(module), steps)
                if not real:
                    network_of(module).ledger.report = pace.made
                steps_of = Steps(module, given, plan, layers, loss, rounding)
                for _ in steps_of.walk(course, steps):
                    pace.finish_step()
            except KeyboardInterrupt:
                if not partial or not (courses or course.passes):
                    raise
                if courses:  # which are complete, and say more without this one
                    interrupted = f"it was interrupted after {counted(len(courses), 'network')}"
                    break
                interrupted = f"it was interrupted after step {len(course.passes) - 1}"
            courses.append(course)
            names, about = steps_of.layers, steps_of.about()
            if steps_of.ended is not None:
                ends.append((len(course.passes), steps_of.ended))
            if not course.passes:
                raise InputError(f"before the first step {steps_of.ended}: look at the model and the batch")
            if interrupted is not None:
                break
    settings = {
        **about,
        "optimiser": optimiser if isinstance(optimiser, str) else getattr(optimiser, "__name__", "a function"),
        "lr": lr,
        "warmup": warmup,
        "clip": clip,
        "weight_decay": weight_decay,
        "groups": None if groups is None else getattr(groups, "__name__", "a function"),
        "steps": steps,
        "draws": len(courses),
        "seed": seed,
        "real": real,
        "rounding": rounding,
        "tokens": "the same in every step" if len(given) == 1 else f"{len(given)} batches in turn",
        "ended": min(ends)[1] if ends else interrupted,  # what all networks have is known up to the first end
    }
    return Rehearsal(dataset(courses, names), settings)


def _builder(
    model: Any, cls: Any, *, real: bool, approximate: bool, memory: float | None
) -> Callable[[int], nn.Module]:
    """Return a function seed → module, real or weightless."""
    source, chosen = source_of(model, cls)

    def build(seed: int) -> nn.Module:
        if real:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return real_model(source, chosen)
        given: dict[str, Any] = {"seed": seed, "approximate": approximate, "memory": memory, "history": True}
        made: nn.Module = (
            weightless.build(source, **given) if chosen is None else weightless.from_config(source, cls=chosen, **given)
        )
        network_of(made).ledger.whole = False  # the updates of all matrices are known then
        return made

    return build


def real_model(source: Any, cls: Any) -> nn.Module:
    """Return a model with weights, of a configuration or a function."""
    made: nn.Module = source() if cls is None else getattr(cls, "from_config", cls)(source)
    return made.float()


class Steps:
    """The training of one network.

    **Arguments:**

    - `model`: real or weightless, at initialisation.
    - `batches`: what it is trained on in turn.
    - `plan`: how.
    - `layers`, `loss`, `rounding`: as in `run`.

    **Attributes:**

    - `layers`: names of the layers, after the first pass.
    - `ended`: what stopped it before the last step, as a sentence, or `None`.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        plan: Plan,
        layers: str | Sequence[str] | None,
        loss: Callable[[Any], Tensor] | None,
        rounding: str | None,
    ) -> None:
        self._model, self._batches, self._plan, self._loss = model, batches, plan, loss
        self._rounding, self._blocks = rounding, find_blocks(model, layers)
        self._first: Pass | None = None
        self.layers: list[str] = []
        self.ended: str | None = None

    def about(self) -> dict[str, Any]:
        """Return what the model is, for the settings."""
        count = sum(parameter.numel() for parameter in self._model.parameters())
        return {"model": type(self._model).__name__, "parameters": count}

    def walk(self, course: Course, steps: int) -> Iterator[int]:
        """Make steps and add what is measured to the course; yield the number of each step once it is measured."""
        trainer = Trainer(self._model, self._plan)
        with ExitStack() as stack:
            stack.enter_context(unchanged(self._model))
            stack.enter_context(eager(self._model))
            if self._rounding is not None:
                stack.enter_context(rounded(self._model, self._rounding))
            for step in range(steps + 1):
                try:
                    broken = self._measure(course) if step == steps else self._train(course, trainer, step)
                except NotFiniteError as error:
                    broken = f": {error}"
                if broken is not None:
                    self.ended = f"numbers become infinite or undefined at step {step}{broken}"
                    return
                yield step

    def _measure(self, course: Course) -> str | None:
        """Measure the model on the first batch; return where numbers are not finite, if anywhere."""
        with torch.no_grad():
            return self._add(course, self._forward(self._batches[0])[2])

    def _train(self, course: Course, trainer: Trainer, step: int) -> str | None:
        """Measure the model and make a step; return where numbers are not finite, if anywhere."""
        batch = self._batches[step % len(self._batches)]
        if batch is not self._batches[0] and (broken := self._measure(course)):
            return broken
        with trainer.watching():
            watch, value, seen = self._forward(batch)
        if batch is self._batches[0] and (broken := self._add(course, seen)):
            return broken
        with clear("the backward pass fails"):
            value.backward()
        del value
        gradients = {name: watch.layers[name].gradient for name in self.layers if name in watch.layers}
        if broken := infinite(gradients):
            return f", in the gradient of {broken}"
        course.add_gradients({name: gradients.get(name, []) for name in self.layers})
        return trainer.step(course, step)

    def _add(self, course: Course, seen: Pass) -> str | None:
        """Add a pass on the first batch to the course, unless it has numbers that are not finite; return where."""
        self._first = self._first or seen
        self.layers = list(self._first.streams)
        if seen.broken is not None:
            return f", in the forward pass, first at {seen.broken}"
        course.add_pass(seen, self._first)
        return None

    def _forward(self, batch: Any) -> tuple[Watch, Tensor, Pass]:
        """Return what is watched, the loss, and what the forward pass shows."""
        decoder = bool(getattr(getattr(self._model, "config", None), "is_encoder_decoder", False))
        tokens = Tokens(padding_masks(batch), TOKENS, 0, batch_first=True, decoder=decoder)
        with observed(self._model, self._blocks, Watch(tokens), attention=True) as watch:
            with clear("the model does not take this batch"):
                output = call(self._model, batch)
            watch.end_forward()
        if not watch.layers:
            raise InputError("no observed layer was called: choose other layers with layers=")
        with clear("no loss can be computed from the model's output"):
            value = loss_of(output, self._loss)
        outputs = first_output(output)
        seen = Pass(float(value.detach()), watch.layers, watch.streams, watch.attention, outputs)
        return watch, value, seen


def infinite(gradients: Mapping[str, list[Floats]]) -> str | None:
    """Return the last layer, the first of the backward pass, with a gradient that is not finite, or `None`."""
    broken = [name for name, some in gradients.items() if not all(np.isfinite(one).all() for one in some)]
    return broken[-1] if broken else None


def first_output(output: Any) -> Tensor:
    """Return the logits of a model, or its first output, (tokens, outputs)."""
    logits = getattr(output, "logits", None)
    found = logits if isinstance(logits, Tensor) else first_tensor(output)
    if found is None:
        raise InputError("the model returns no floating-point tensor: give a model whose first output is one")
    return found.detach().reshape(-1, found.shape[-1] if found.dim() else 1)
