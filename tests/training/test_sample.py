"""Samples of text: seeded, without special tokens, and Markdown that shows every character."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shaped_transformer.training import train
from shaped_transformer.training.sample import SAMPLE_TOKENS, Sample, generate_sample, to_markdown
from shaped_transformer.training.task import build, prepare
from shaped_transformer.training.vocabulary import SPECIAL

from .runs import Make

pytestmark = pytest.mark.filterwarnings("ignore")


class Remembers(torch.nn.Module):
    """A model that knows what it was given; it prefers special tokens, and of the others one."""

    device = "cpu"

    def __init__(self, vocabulary: int, preferred: int) -> None:
        super().__init__()
        self.vocabulary, self.preferred, self.given = vocabulary, preferred, list[Tensor]()

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        self.given.append(input_ids)
        logits = torch.zeros(1, 1, self.vocabulary)
        logits[..., : len(SPECIAL)], logits[..., self.preferred] = 1e4, 1e3
        return type("Output", (), {"logits": logits})


@pytest.fixture(scope="module")
def task(recipe: Make) -> Any:
    return prepare(recipe())


def sample_of(model: Any, task: Any, seed: int = 0) -> Sample:
    """A sample that begins like the first held-out window."""
    return generate_sample(model, task.processor, task.held_out[0]["input_ids"], seed)


def test_the_prompt_is_half_of_a_short_window(task: Any) -> None:
    window = task.held_out[0]["input_ids"]
    assert sample_of(Remembers(300, 299), task).prompt == task.processor.decode(window[:8])


def test_special_tokens_are_never_generated(task: Any) -> None:
    model = Remembers(300, 299)
    assert sample_of(model, task).continuation == task.processor.decode([299]) * SAMPLE_TOKENS


def test_tokens_that_the_tokenizer_does_not_know_are_never_generated(task: Any) -> None:
    model = Remembers(400, 399)
    sample_of(model, task)
    assert max(int(given.max()) for given in model.given) < 300


def test_the_model_sees_at_most_one_window(task: Any) -> None:
    model = Remembers(300, 299)
    sample_of(model, task)
    assert [given.shape[1] for given in model.given] == [min(8 + i, 16) for i in range(SAMPLE_TOKENS)]


def test_the_seed_decides_the_sample(recipe: Make, task: Any) -> None:
    model = build(recipe(), task).eval()
    state = torch.random.get_rng_state()
    first = sample_of(model, task)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(7)
    assert sample_of(model, task) == first
    assert sample_of(model, task, seed=1) != first


def test_a_sample_takes_less_than_two_seconds(recipe: Make) -> None:
    """Of a network like that of the recipe quick.yaml, 0.2 s with nothing else running."""
    chosen = recipe(width=64, depth=6, heads=4, tokens=64)
    ready = prepare(chosen)
    model = build(chosen, ready).eval()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        sample_of(model, ready)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2


def quote(prompt: str, continuation: str) -> str:
    """The line that shows a sample."""
    line, empty, _ = to_markdown(Sample(prompt, continuation)).split("\n", 2)
    assert empty == ""
    return line


@pytest.mark.parametrize(
    ("prompt", "continuation", "expected"),
    [
        ("We the", " people", "> **We the** people"),
        ("We the ", "people", "> **We the** people"),
        ("We the peo", "ple", "> **We the peo**ple"),
        ("Citizens:", "the", "> **Citizens**:the"),  # after a colon and before a letter, ** does not end bold
        ("Citizens:", " the", "> **Citizens:** the"),
        ("two\n\nparagraphs", "\n- and\n# more", "> **two paragraphs** - and \\# more"),
        ("a*b_c", " <d> [e](f) `g`", "> **a\\*b\\_c** \\<d\\> \\[e\\](f) \\`g\\`"),
        ("", " - text", "> … - text"),
        ("?", "!", "> … ?!"),
    ],
)
def test_a_sample_is_a_quote_with_a_bold_prompt(prompt: str, continuation: str, expected: str) -> None:
    assert quote(prompt, continuation) == expected


def test_a_character_that_the_prompt_cuts_belongs_to_the_continuation(task: Any) -> None:
    window = torch.tensor(task.processor.encode("ab漢" + "c" * 9))
    cut = next(n for n in range(len(window)) if task.processor.decode(window[:n]).endswith("\N{REPLACEMENT CHARACTER}"))
    sample = generate_sample(Remembers(300, 299), task.processor, window[: 2 * cut], 0)
    assert sample.prompt == "ab"


def test_the_report_shows_the_same_sample_when_it_is_written_again(recipe: Make, tmp_path: Path) -> None:
    train(recipe(save=0), tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    (tmp_path / "report.md").unlink()
    train(recipe(save=0), tmp_path)
    again = (tmp_path / "report.md").read_text(encoding="utf-8")
    shown = [line for line in report.splitlines() if line.startswith("> **")]
    assert len(shown) == 1
    assert shown == [line for line in again.splitlines() if line.startswith("> **")]


@pytest.mark.parametrize("task", ["masked-lm", "classification"])
def test_other_tasks_have_no_sample(task: str, recipe: Make, tmp_path: Path) -> None:
    train(recipe(task=task, steps=1, save=0), tmp_path)
    assert "\n>" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_run_that_diverges_has_no_sample(recipe: Make, tmp_path: Path) -> None:
    from shaped_transformer.training.divergence import Diverged

    with pytest.raises(Diverged):
        train(recipe(lr=3e6, warmup=0, steps=60), tmp_path)
    assert "\n>" not in (tmp_path / "report.md").read_text(encoding="utf-8")
