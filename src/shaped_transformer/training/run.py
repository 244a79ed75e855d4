"""A training run: from a recipe to a folder, through Hugging Face's Trainer.

The same command goes on where an earlier one was interrupted.
"""

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.utils import logging

from ..errors import InputError, StorageError
from ..io.files import replacing
from ..io.lock import locked
from ..nn import advance, parameter_groups
from . import task as tasks
from .divergence import Diverged, Spikes, compared_steps, where
from .folder import COMPLETE, Outcome, claim, finished, last_checkpoint, see_whose, step_of
from .log import Log
from .processes import is_first_process, process_count, wait_for_all
from .recipe import Recipe
from .variants import VARIANTS
from .watch import gradient_norm, watched

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def train(recipe: Recipe, out: str | Path, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Train what a recipe says, and leave everything in a folder; an interrupted run goes on at its last checkpoint.

    **Arguments:** `recipe`: what to do; `out`: the folder; `say`: is told what happens, a line at a time.

    **Returns:** how it ended. The folder holds `recipe.json`, `metrics.jsonl`, `watch.jsonl`, `tensorboard/`, `model/`
    (for the Auto classes), `curves.png`, `curves.svg` and `report.md`.

    **Raises:** `InputError` if the folder is not this recipe's or in use, or the data do not fit; `StorageError` if it
    cannot be written or the data are missing; `Diverged` if training fails, and the report says how; `MemoryError` if
    the network does not fit.
    """
    told: Callable[[str], None] = say if is_first_process() else lambda _: None
    if not isinstance(recipe, Recipe):
        raise InputError(f"a Recipe is expected, as training.read returns it (got {type(recipe).__name__})")
    if recipe.batch % (processes := process_count()):
        raise InputError(f"batch: a multiple of the {processes} processes is expected (got {recipe.batch})")
    out, task = Path(out), tasks.prepare(recipe)
    model = tasks.build(recipe, task)  # before anything is written, for it may not fit
    see_whose(out)
    with locked(out) if is_first_process() else nullcontext():
        claim(out, recipe, task)
        return _carry_out(recipe, task, model, out, told)


def _carry_out(recipe: Recipe, task: tasks.Task, model: Any, out: Path, told: Callable[[str], None]) -> Outcome:
    """Train, and write what a run leaves; or see that all is there."""
    from . import report

    if (done := finished(out)) is not None:
        told(f"{out} is finished: {done.steps} steps, held-out loss {done.loss:.4g}")
        if is_first_process() and not (out / "report.md").exists():
            report.write(out, recipe, task)
        return done
    try:
        outcome = fit(recipe, task, model, out, say=told)
    except KeyboardInterrupt:
        found = last_checkpoint(out)
        told(f"the same command {'begins anew' if found is None else f'goes on after step {step_of(found)}'}")
        raise
    except Diverged as error:
        if is_first_process():
            report.write(out, recipe, task, str(error))
            with suppress(OSError):
                (out / "checkpoints").rmdir()  # where nothing was saved
        wait_for_all()  # or a launcher ends the one that writes, when another one has ended
        raise
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
    if is_first_process():
        report.write(out, recipe, task)
        with replacing(out / "outcome.json") as temporary:
            temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return outcome


def fit(
    recipe: Recipe, task: tasks.Task, model: Any, out: Path, *, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Train a new network in a folder that belongs to the recipe, from its last finished checkpoint if there is one."""
    first, checkpoint = is_first_process(), last_checkpoint(out)
    start = 0 if checkpoint is None else step_of(checkpoint)
    if start:
        say(f"going on from step {start}")
    with _apart(), tasks.memory_told():
        log = Log(out, start, recipe.steps, recipe.batch * task.tokens, say, writes=first)
        compared = {} if checkpoint is None else json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        spikes = Spikes(recipe.spike, compared_steps(recipe.batch), **compared)
        trainer = _Trainer(recipe, task, model, log, spikes, out)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            log.close()
        if trainer.is_fsdp_enabled:
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        with replacing(out / "model") if first else nullcontext(out / "model") as folder:
            trainer.save_model(str(folder))  # by all processes, for each may hold a part; the first one writes
    final = next(line for line in reversed(trainer.state.log_history) if "eval_loss" in line)
    return Outcome(final["eval_loss"], final.get("eval_accuracy"), recipe.steps, round(log.seconds, 3), str(out))


class _Trainer(Trainer):
    """The Trainer with rates by parameter group, a watch on the blocks, and an eye on what diverges."""

    def __init__(self, recipe: Recipe, task: tasks.Task, model: Any, log: Log, spikes: Spikes, out: Path) -> None:
        self.recipe, self.own_log, self.spikes = recipe, log, spikes
        super().__init__(
            model,
            _arguments(recipe, out),
            data_collator=default_data_collator,
            train_dataset=task.train,
            eval_dataset=task.held_out,
            processing_class=task.tokenizer,
            compute_metrics=_accuracy if task.accuracy else None,
            callbacks=[log, _Schedule(recipe, spikes)],
        )
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise InputError("FSDP of version 1 hides which parameter is which: set fsdp_version to 2")

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            of = self.model if model is None else model
            self.optimizer = optimiser(of, self.recipe)
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        step, every = self.state.global_step + 1, self.recipe.watch
        if every and ((step - 1) % every == 0 or step == self.recipe.steps):
            with watched(self.accelerator.unwrap_model(model), inputs.get("attention_mask")) as seen:
                loss = super().training_step(model, inputs, num_items_in_batch)
            self.own_log.watch(step, seen)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        self.inputs = inputs
        self._check(step, float(self.accelerator.gather(loss).mean()), float(gradient_norm(model)))
        return loss

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        metrics = super().evaluate(*arguments, **options)
        if not math.isfinite(metrics["eval_loss"]):
            step = self.state.global_step
            self._stop(step, f"the held-out loss is {metrics['eval_loss']}", updates=step)
        return metrics

    def _check(self, step: int, loss: float, gradient: float) -> None:
        """Stop a run that diverges, before the step is taken: all processes at once, for they know the same."""
        what = self.spikes.told(loss)
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        if not math.isfinite(gradient):
            what = f"the norm of the gradient is {gradient}"
        if what:
            self._stop(step, what, updates=step - 1)

    def _stop(self, step: int, what: str, *, updates: int) -> NoReturn:
        place = where(self.accelerator.unwrap_model(self.model), self._prepare_inputs(self.inputs))
        recipe, variant = self.recipe, VARIANTS[self.recipe.variant]
        weaker = f", a gamma below {recipe.branch_scale:.3g}" if variant.branches else ""
        way_out = f"Try an lr below {recipe.lr:g}{weaker}, or a longer warmup"
        if updates <= bool(recipe.warmup):  # the first update of a warmup has rate 0: nothing has been learnt yet
            way_out = f"It does so at initialisation: try fewer blocks{weaker}, or another variant"
        raise Diverged(step, what, place, way_out)


class _Schedule(TrainerCallback):
    """Decides after each step what is written, measured and saved, and marks what was saved whole."""

    def __init__(self, recipe: Recipe, spikes: Spikes) -> None:
        self.recipe, self.spikes = recipe, spikes

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step, r = state.global_step, self.recipe
        advance(model)
        last = step == r.steps
        control.should_evaluate = last or bool(r.evaluate and step % r.evaluate == 0)
        control.should_save = not last and bool(r.save and step % r.save == 0)
        control.should_log = step == 1 or last or control.should_save or step % r.log == 0

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            compared = {"begin": self.spikes.begin, "recent": list(self.spikes.recent)}
            with replacing(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE) as temporary:
                temporary.write_text(json.dumps(compared), encoding="utf-8")


def _arguments(recipe: Recipe, out: Path) -> TrainingArguments:
    share = max(1, recipe.batch // process_count())
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        learning_rate=recipe.lr,
        lr_scheduler_type=SCHEDULES[recipe.schedule],
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        use_cpu=not torch.accelerator.is_available(),  # said, so that several processes on CPUs find each other
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.steps + 1,  # when to save is decided by _Schedule
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def optimiser(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW with the rates of the recipe's variant: by parameter group, or one for all."""
    if VARIANTS[recipe.variant].groups:
        return torch.optim.AdamW(parameter_groups(model, recipe.lr, recipe.weight_decay))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [(matrices, recipe.weight_decay), (others, 0.0)]
    return torch.optim.AdamW([{"params": p, "lr": recipe.lr, "weight_decay": decay} for p, decay in groups if p])


def _accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


@contextmanager
def _apart() -> Iterator[None]:
    """Keep to ourselves what the Trainer does to its process: seeds of all generators, bars of the library."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the Trainer seeds it
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if bars:
                logging.enable_progress_bar()
