"""What a run writes while it goes: JSON lines, TensorBoard, a progress bar, a line at each evaluation."""

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from ..io.files import replacing
from ..io.progress import progress

METRICS, WATCH = "metrics.jsonl", "watch.jsonl"


class Log(TrainerCallback):
    """Writes metrics and what was watched; goes on after the steps that are there.

    **Arguments:** `out`: the folder; `start`: the step from which training goes on, later lines being dropped; `steps`:
    all of them; `tokens`: in a step, over all processes; `say`: is told of evaluations; `writes`: whether this process
    is the one that writes.
    """

    def __init__(
        self, out: Path, start: int, steps: int, tokens: int, say: Callable[[str], None], *, writes: bool
    ) -> None:
        self.out, self.start, self.steps, self.tokens, self.say, self.writes = out, start, steps, tokens, say, writes
        self.stack = ExitStack()
        self.begun, self.done = 0.0, 0
        earlier = [line for line in read(out / METRICS) if line["step"] <= start]
        self.seconds: float = max((line["seconds"] for line in earlier), default=0.0)
        if writes:
            for name in (METRICS, WATCH):
                _keep(out / name, start)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.writes:
            folder = str(self.out / "tensorboard")
            self.board = self.stack.enter_context(SummaryWriter(folder, purge_step=self.start + 1))
            left = (self.steps - self.start) * self.tokens
            self.advance = self.stack.enter_context(progress("training", left, unit="tokens"))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds += time.perf_counter() - self.begun
        self.done += 1
        if self.writes:
            self.advance(self.tokens)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given["logs"]
        line: dict[str, Any] = {"step": state.global_step, "seconds": round(self.seconds, 3)}
        if "eval_loss" in logs:
            if not math.isfinite(logs["eval_loss"]):
                return  # the run stops for it
            line["held_out_loss"] = logs["eval_loss"]
            if "eval_accuracy" in logs:
                line["held_out_accuracy"] = logs["eval_accuracy"]
            told = ", ".join(f"{name.replace('_', ' ')} {line[name]:.4g}" for name in list(line)[2:])
            self.say(f"step {state.global_step} of {self.steps}: {told}, {self._speed():,.0f} tokens/s")
        elif "loss" in logs:
            scheduled = logs["learning_rate"] / given["lr_scheduler"].base_lrs[0]  # of the first group, as of all
            line |= {"loss": logs["loss"], "gradient": logs["grad_norm"], "rate": args.learning_rate * scheduled}
            line["tokens_per_second"] = round(self._speed(), 1)
        else:
            return
        self._write(METRICS, line)

    def watch(self, step: int, seen: dict[str, Any]) -> None:
        """Write what was watched in a step."""
        self._write(WATCH, {"step": step, "seconds": round(self.seconds, 3)} | seen)

    def close(self) -> None:
        """Close the bar and TensorBoard."""
        self.stack.close()

    def _speed(self) -> float:
        return self.tokens * (self.start + self.done) / self.seconds if self.seconds else 0.0

    def _write(self, name: str, line: dict[str, Any]) -> None:
        if not self.writes:
            return
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for key, value in line.items():
            if key in ("step", "covariance") or value is None:
                continue
            if isinstance(value, list):
                for place, block in {"first": 0, "middle": len(value) // 2, "last": -1}.items():
                    if value[block] is not None:
                        self.board.add_scalar(f"{key}/{place} block", value[block], line["step"])
            else:
                self.board.add_scalar(key, value, line["step"])


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON lines; none where there is no file, and without a last line that was cut."""
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


def _keep(path: Path, step: int) -> None:
    """Drop the lines after a step, which training will write again."""
    kept = [line for line in read(path) if line["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
