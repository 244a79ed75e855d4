"""Logs of a run in progress: JSON lines, TensorBoard, a progress bar, and a message at each evaluation."""

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from ..io.files import replacing
from ..io.progress import progress

METRICS, WATCH = "metrics.jsonl", "watch.jsonl"


class Log(TrainerCallback):
    """Writes metrics and the watched quantities of blocks; a resumed run continues the files.

    **Arguments:**

    - `out`: the run's folder.
    - `start`: the step after which training resumes, 0 for a new run. Lines of later steps are dropped.
    - `steps`: number of steps of the whole run.
    - `tokens`: tokens in a step, over all processes.
    - `say`: called with a message at each evaluation.
    - `writes`: whether this process writes; of several, only the first does.
    """

    def __init__(
        self, out: Path, start: int, steps: int, tokens: int, say: Callable[[str], None], *, writes: bool
    ) -> None:
        self.out, self.start, self.steps, self.tokens, self.say, self.writes = out, start, steps, tokens, say, writes
        self.stack = ExitStack()
        self.step_started, self.steps_done = 0.0, 0
        earlier = [line for line in read(out / METRICS) if line["step"] <= start]
        self.seconds: float = max((line["seconds"] for line in earlier), default=0.0)
        if writes:
            for name in (METRICS, WATCH):
                _drop_lines_after(out / name, start)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.writes:
            folder = str(self.out / "tensorboard")
            self.board = self.stack.enter_context(SummaryWriter(folder, purge_step=self.start + 1))
            remaining = (self.steps - self.start) * self.tokens
            self.advance = self.stack.enter_context(progress("training", remaining, unit="tokens"))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # or the update, which is still being computed, would not count
        self.seconds += time.perf_counter() - self.step_started
        self.steps_done += 1
        if self.writes:
            self.advance(self.tokens)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given["logs"]
        line: dict[str, Any] = {"step": state.global_step, "seconds": round(self.seconds, 3)}
        if not all(math.isfinite(logs[key]) for key in ("eval_loss", "validation_loss") if key in logs):
            return  # the trainer stops the run
        if "eval_loss" in logs:
            line["held_out_loss"] = logs["eval_loss"]
            if "eval_accuracy" in logs:
                line["held_out_accuracy"] = logs["eval_accuracy"]
            measured = ", ".join(
                f"{name.replace('held_out_', 'held-out ')} {line[name]:.4g}" for name in list(line)[2:]
            )
            self.say(f"step {state.global_step} of {self.steps}: {measured}, {self._tokens_per_second():,.0f} tokens/s")
        elif "validation_loss" in logs:
            line["validation_loss"] = logs["validation_loss"]
            self.say(f"step {state.global_step} of {self.steps}: validation loss {line['validation_loss']:.4g}")
        elif "loss" in logs:
            scheduled = logs["learning_rate"] / given["lr_scheduler"].base_lrs[0]  # the same in all groups
            line |= {"loss": logs["loss"], "gradient": logs["grad_norm"], "rate": args.learning_rate * scheduled}
            line["tokens_per_second"] = round(self._tokens_per_second(), 1)
        else:
            return
        self._write(METRICS, line)

    def watch(self, step: int, watched: dict[str, Any]) -> None:
        """Write the watched quantities of a step."""
        self._write(WATCH, {"step": step, "seconds": round(self.seconds, 3)} | watched)

    def close(self) -> None:
        """Close the progress bar and TensorBoard."""
        self.stack.close()

    def _tokens_per_second(self) -> float:
        return self.tokens * (self.start + self.steps_done) / self.seconds if self.seconds else 0.0

    def _write(self, name: str, line: dict[str, Any]) -> None:
        if not self.writes:
            return
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for key, value in line.items():
            if key in ("step", "covariance") or value is None:
                continue
            if isinstance(value, list):
                for position, block in {"first": 0, "middle": len(value) // 2, "last": -1}.items():
                    if value[block] is not None:
                        self.board.add_scalar(f"{key}/{position} block", value[block], line["step"])
            else:
                self.board.add_scalar(key, value, line["step"])


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of JSON lines, up to the first incomplete line; none if there is no file."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _drop_lines_after(path: Path, step: int) -> None:
    """Drop the lines after a step, which the resumed training writes again."""
    kept = [line for line in read(path) if line["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
