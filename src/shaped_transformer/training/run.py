"""Training runs: from a recipe to a folder, with Hugging Face's Trainer.

An interrupted run resumes from its last checkpoint.
"""

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.utils import logging

from ..errors import InputError, StorageError
from ..io.files import reading, replacing
from ..io.lock import locked
from ..nn import advance
from . import report
from .divergence import Diverged, Spikes, averaged_steps, locate_divergence
from .folder import (
    COMPLETE_MARKER,
    OUTCOME_FILE,
    Interrupted,
    Outcome,
    check_owner,
    claim,
    last_checkpoint,
    read_outcome,
    step_of,
)
from .log import Log
from .optimiser import build_optimiser
from .processes import check_devices, is_first_process, process_count, wait_for_all
from .recipe import Recipe
from .sample import Sample, generate_sample
from .task import Task, build, in_words, prepare, translate_out_of_memory
from .variants import VARIANTS
from .watch import gradient_norm, watch_blocks

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Names that the Trainer gives to the recipe's schedules."""


def train(recipe: Recipe, out: str | Path, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Train a recipe's network and write the results into a folder; an interrupted run resumes.

    ```python
    from tempfile import TemporaryDirectory

    recipe = st.training.read("quick.yaml", {"steps": 2, "depth": 2, "held_out": 16})
    with TemporaryDirectory() as folder:
        outcome = st.training.train(recipe, folder)
    outcome.loss  # held-out loss in nats
    ```

    **Arguments:**

    - `recipe`: all settings.
    - `out`: the run's folder. If it holds checkpoints of the same recipe, the run resumes from the last one; if it
      holds the finished run, nothing is trained. A recipe that differs only in having more `steps` continues the run,
      if its schedule is constant.
    - `say`: called with messages: how many data and parameters there are, each evaluation, and where the run resumes;
      default: silent.

    **Returns:** the outcome. The folder holds `recipe.json`, `metrics.jsonl`, `watch.jsonl`, `tensorboard/`, `model/`
    (for the Auto classes), `curves.png`, `curves.svg`, `report.md`, `outcome.json` and in `checkpoints/` the last one.

    **Raises:** `InputError` if another recipe owns the folder, another process uses it, the data do not fit, or one
    process sees several GPUs; `StorageError` if the folder cannot be written or the data are missing; `Diverged` if
    training diverges, and the report describes how; `MemoryError` if the network does not fit; `Interrupted`, a
    `KeyboardInterrupt` that says what is kept.
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"give a Recipe, as training.read returns it (got {type(recipe).__name__})")
    if recipe.batch % (processes := process_count()):
        raise InputError(f"batch: a multiple of the {processes} processes is expected (got {recipe.batch})")
    check_devices()
    out, task = Path(out), prepare(recipe)
    model = build(recipe, task)  # before anything is written, because the network may not fit
    check_owner(out)
    with locked(out) if is_first_process() else nullcontext():
        try:
            claim(out, recipe, task)
            return _train_and_report(recipe, task, model, out, say if is_first_process() else lambda _: None)
        except KeyboardInterrupt:
            raise Interrupted(out) from None


def _train_and_report(recipe: Recipe, task: Task, model: Any, out: Path, say: Callable[[str], None]) -> Outcome:
    """Train and write the report and the outcome; of a finished run only what is missing is written."""
    size = f"{task.size}, {in_words(model.num_parameters(), 'parameter')}"
    if (done := read_outcome(out)) is not None and done.steps == recipe.steps:
        say(f"{out} is finished: {done.steps} steps, held-out loss {done.loss:.4g}")
        if is_first_process() and not (out / "report.md").exists():
            report.write(out, recipe, task, size, sample=_sample(recipe, task, out))
        return done
    say(size)
    try:
        outcome = fit(recipe, task, model, out, say=say)
    except Diverged as error:
        if is_first_process():
            report.write(out, recipe, task, size, diverged=str(error))
            with suppress(OSError):
                (out / "checkpoints").rmdir()  # if nothing was saved
        wait_for_all()  # or the launcher ends the process that writes when another one has ended
        raise
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
    if is_first_process():
        report.write(out, recipe, task, size, sample=_sample(recipe, task, out))
        with replacing(out / OUTCOME_FILE) as temporary:
            temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        _keep_last_checkpoint(out)
    return outcome


def _keep_last_checkpoint(out: Path) -> None:
    """Remove all checkpoints but the last, from which the run can be continued."""
    last, folder = last_checkpoint(out), out / "checkpoints"
    for path in [folder] if last is None else folder.iterdir():
        if path != last:
            shutil.rmtree(path, ignore_errors=True)


def _sample(recipe: Recipe, task: Task, out: Path) -> Sample | None:
    """A sample of text from the model in a run's folder; `None` unless it is a causal language model."""
    if recipe.task != "causal-lm":
        return None
    with _isolated_rng(), _hidden_progress_bars(), translate_out_of_memory(), reading(out / "model"):
        model = task.model.from_pretrained(out / "model")
        return generate_sample(model, task.processor, task.held_out[0]["input_ids"], recipe.seed)


def fit(recipe: Recipe, task: Task, model: Any, out: Path, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Train a new network, from the last complete checkpoint in the folder if there is one.

    **Arguments:**

    - `recipe`, `task`: the settings and their data.
    - `model`: the network that `build` made; it is trained in place.
    - `out`: a folder that belongs to the recipe.
    - `say`: called with messages; default: silent.

    **Returns:** the outcome.

    **Raises:** `Diverged` if training diverges; `MemoryError` if memory runs out; `InputError` if one process sees
    several GPUs; `StorageError` if the checkpoint is damaged, or could run code.
    """
    check_devices()
    first, checkpoint = is_first_process(), last_checkpoint(out)
    start = 0 if checkpoint is None else step_of(checkpoint)
    if start:
        say(f"resuming after step {start}")
    with _isolated_rng(), _hidden_progress_bars(), translate_out_of_memory():
        log = Log(out, start, recipe.steps, recipe.batch * task.tokens, say, writes=first)
        compared = {} if checkpoint is None else json.loads((checkpoint / COMPLETE_MARKER).read_text(encoding="utf-8"))
        spikes = Spikes(recipe.spike, averaged_steps(recipe.batch), **compared)
        trainer = _Trainer(recipe, task, model, log, spikes, out)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            validation = None
            if task.validation is not None:
                validation = trainer.evaluate(task.validation, metric_key_prefix="validation")["validation_loss"]
        except (UnpicklingError, SafetensorError):  # the Trainer reads its files without running code in them
            raise StorageError(
                f"{checkpoint} cannot be read: it is damaged, or holds more than numbers; remove it, and the run "
                "resumes from the one before"
            ) from None
        finally:
            log.close()
        if trainer.is_fsdp_enabled:
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        with replacing(out / "model") if first else nullcontext(out / "model") as folder:
            trainer.save_model(str(folder))  # all processes take part, for each may hold a shard; the first one writes
    final = next(line for line in reversed(trainer.state.log_history) if "eval_loss" in line)
    return Outcome(
        final["eval_loss"], final.get("eval_accuracy"), recipe.steps, round(log.seconds, 3), str(out), validation
    )


class _Trainer(Trainer):
    """The Trainer with learning rates per parameter group, watched blocks, and a stop when training diverges."""

    def __init__(self, recipe: Recipe, task: Task, model: Any, log: Log, spikes: Spikes, out: Path) -> None:
        self.recipe, self.run_log, self.spikes = recipe, log, spikes
        super().__init__(
            model,
            _training_arguments(recipe, out),
            data_collator=default_data_collator,
            train_dataset=task.train,
            eval_dataset=task.held_out,
            processing_class=task.processor,
            compute_metrics=_accuracy if task.accuracy else None,
            callbacks=[log, _Intervals(recipe, spikes)],
        )
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise InputError(
                "FSDP version 1 hides the names of parameters, which set their learning rates: set fsdp_version to 2"
            )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = build_optimiser(self.model if model is None else model, self.recipe)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        step, every = self.state.global_step + 1, self.recipe.watch
        if every and ((step - 1) % every == 0 or step == self.recipe.steps):
            with watch_blocks(self.accelerator.unwrap_model(model), inputs.get("attention_mask")) as watched:
                loss = super().training_step(model, inputs, num_items_in_batch)
            self.run_log.watch(step, watched)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.inputs = inputs
        self._stop_if_diverged(step, float(self.accelerator.gather(loss).mean()), float(gradient_norm(model)))
        return loss

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        metrics = super().evaluate(*arguments, **options)
        part = options.get("metric_key_prefix", "eval")
        if not math.isfinite(loss := metrics[f"{part}_loss"]):
            step, name = self.state.global_step, "held-out" if part == "eval" else part
            self._raise_diverged(step, f"the {name} loss is {loss}", updates=step)
        return metrics

    def _stop_if_diverged(self, step: int, loss: float, gradient: float) -> None:
        """Stop a diverging run before the update; all processes stop together, since they compare the same numbers."""
        reason = self.spikes.message(loss)
        if not math.isfinite(loss):
            reason = f"the loss is {loss}"
        if not math.isfinite(gradient):
            reason = f"the norm of the gradient is {gradient}"
        if reason:
            self._raise_diverged(step, reason, updates=step - 1)

    def _raise_diverged(self, step: int, reason: str, *, updates: int) -> NoReturn:
        location = locate_divergence(self.accelerator.unwrap_model(self.model), self._prepare_inputs(self.inputs))
        recipe, variant = self.recipe, VARIANTS[self.recipe.variant]
        gamma = f", a gamma below {recipe.branch_scale:.3g}" if variant.branches else ""
        advice = f"Try an lr below {recipe.lr:g}{gamma}, or a longer warmup"
        if updates <= bool(recipe.warmup):  # the first update of a warmup has learning rate 0
            advice = f"It diverges at initialisation: try fewer blocks{gamma}, or another variant"
        raise Diverged(step, reason, location, advice)


class _Intervals(TrainerCallback):
    """Decides after each step whether to log, evaluate and save, and marks complete checkpoints."""

    def __init__(self, recipe: Recipe, spikes: Spikes) -> None:
        self.recipe, self.spikes = recipe, spikes

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step, r = state.global_step, self.recipe
        advance(model)
        last = step == r.steps
        control.should_evaluate = last or bool(r.evaluate and step % r.evaluate == 0)
        control.should_save = bool(r.save) and (last or step % r.save == 0)
        control.should_log = step == 1 or last or control.should_save or step % r.log == 0

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            compared = {"begin": self.spikes.begin, "recent": list(self.spikes.recent)}
            with replacing(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARKER) as temporary:
                temporary.write_text(json.dumps(compared), encoding="utf-8")


def _training_arguments(recipe: Recipe, out: Path) -> TrainingArguments:
    per_process = max(1, recipe.batch // process_count())
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=per_process,
        per_device_eval_batch_size=per_process,
        learning_rate=recipe.lr,
        lr_scheduler_type=SCHEDULES[recipe.schedule],
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        use_cpu=not torch.accelerator.is_available(),  # explicit, so that several processes on CPUs find each other
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.steps + 1,  # _Intervals decides when to save
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def _accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


@contextmanager
def _isolated_rng() -> Iterator[None]:
    """Restore the states of all random generators, which the Trainer seeds."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the Trainer seeds it
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _hidden_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers."""
    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()
