"""The command `rehearse`: what it prints and writes, and how it ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.rehearse.cost import Estimate

GPT2: dict[str, Any] = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 120} | {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 32,
}
VIT: dict[str, Any] = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 16} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}
MODULE = """
import torch
import shaped_transformer as st

def vectors():
    return st.nn.ShapedTransformer(width=16, depth=2, heads=2)

def plain():
    return torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))

def fails():
    raise KeyError("two\\nlines")
"""
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def rehearsing(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The command in a folder with configurations and a module; what Python finds is as before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "rehearsed.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "vit.json").write_text(json.dumps(VIT), encoding="utf-8")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(GPT2), encoding="utf-8")
    yield lambda *arguments: run("rehearse", *map(str, arguments))
    sys.modules.pop("rehearsed", None)


def test_a_folder_with_nothing_but_a_configuration_is_rehearsed(rehearsing: Any) -> None:
    code, out, err = rehearsing("gpt2", "--lr", 1e-3, "--warmup", 10, "--clip", 1)
    assert (code, err) == (0, "")
    assert "Rehearsal of gpt2: GPT2LMHeadModel" in out
    assert "AdamW, rate 0.001, warm-up over 10 steps, gradient clipped to 1" in out
    assert "1 × 16, the same in every step" in out
    assert "Verdict: The first 3 steps are sane" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["layer", "step", "1", "step", "2", "step", "3"] in lines
    assert [one[0] for one in lines if one and one[0] in ("0", "1", "2", "3")] == ["0", "1", "2", "3", "0", "1"]
    roles = ("embedding", "query, key, value", "attention output", "MLP in", "MLP out")  # the head is the embedding
    assert [line for line in out.splitlines() if line.startswith(roles)] != []
    assert all(any(line.startswith(role) for line in out.splitlines()) for role in roles)


def test_results_are_written_and_read_back(rehearsing: Any, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    code, out, _ = rehearsing("gpt2", "--tokens", 6, "--steps", 2, "--draws", 2, "--out", "here", "--json")
    report = json.loads(out)
    here = tmp_path / "here"
    assert code == 0
    names = ["dataset.zarr", "figure.png", "figure.svg", "report.html", "run.json"]
    assert sorted(one.name for one in here.iterdir()) == names
    assert json.loads((here / "run.json").read_text(encoding="utf-8")) == report
    assert (report["kind"], report["shape"], report["settings"]["draws"]) == ("rehearsal", [1, 6], 2)
    measured = st.rehearse.Rehearsal.load(here / "dataset.zarr")
    change = report["measured"]["stream_change"]
    assert change["dims"] == ["step", "layer"]
    np.testing.assert_allclose(change["values"], measured.data["stream_change"].mean("draw").values)
    assert measured.data.sizes["draw"] == 2
    assert report["coordinates"]["layer"] == measured.layers
    assert rehearsing("gpt2", "--tokens", 6, "--steps", 1, "--out", "here")[0] == 0  # replaces its own results


def test_the_command_gives_the_same_numbers_again_and_others_with_another_seed(rehearsing: Any) -> None:
    arguments = ("gpt2", "--tokens", 5, "--steps", 2, "--json")
    first, again, other = (json.loads(rehearsing(*arguments, "--seed", seed)[1]) for seed in (3, 3, 4))
    assert first["measured"] == again["measured"]
    assert first["measured"]["loss"] != other["measured"]["loss"]


def test_options_reach_the_optimiser(rehearsing: Any) -> None:
    def change(*more: Any) -> float:
        out = rehearsing("gpt2", "--tokens", 6, "--steps", 1, "--json", *more)[1]
        measured = json.loads(out)["measured"]
        return float(measured["stream_change"]["values"][1][-1])

    plain = change()
    assert change("--warmup", 100) < 0.05 * plain
    assert change("--lr", 3e-6) < 0.05 * plain
    assert change("--optimizer", "sgd") != plain
    assert change("--optimizer", "muon") != plain
    assert change("--round", "bfloat16") == pytest.approx(plain, rel=0.2)
    assert change("--round", "bfloat16") != plain
    assert change("--optimizer", "sgd", "--clip", 1e-3) < 0.01 * change("--optimizer", "sgd")


def test_weight_decay_and_new_tokens(rehearsing: Any) -> None:
    def losses(*more: Any) -> tuple[list[float], str]:
        report = json.loads(rehearsing("gpt2", "--tokens", 6, "--lr", 0.01, "--json", *more)[1])
        return report["measured"]["loss"]["values"], report["settings"]["tokens"]

    plain, said = losses()
    assert said == "the same in every step"
    assert losses("--weight-decay", 10)[0] != plain
    others, said = losses("--new-tokens")
    assert said == "3 batches in turn"
    assert others[:2] == pytest.approx(plain[:2], rel=1e-4)  # the first step sees the same tokens
    assert others[2] != pytest.approx(plain[2], rel=1e-4)


def test_a_text_that_is_short_begins_again_and_words_are_numbered(rehearsing: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one two three four five six seven eight nine", encoding="utf-8")
    code, out, err = rehearsing("gpt2", "--text", "text", "--tokens", 4, "--new-tokens")
    assert code == 0
    assert err.splitlines() == [
        "gpt2 has no tokenizer: the words of text are numbered, and each has a token of its own.",
        "The text has tokens for 2 of 3 steps; after that it starts again from the beginning.",
    ]
    assert "2 batches in turn" in out


def test_check_fails_on_a_bad_verdict_only(rehearsing: Any) -> None:
    assert rehearsing("gpt2", "--warmup", 100, "--check")[0] == 0
    code, out, _ = rehearsing("gpt2", "--lr", 10, "--check")
    assert code == 1
    assert "times their size" in out
    assert "Try: Lower the rate.\n" in out  # no warm-up is long enough
    assert rehearsing("gpt2", "--lr", 10)[0] == 0
    code, out, _ = rehearsing("gpt2", "--lr", 0.1, "--check")
    assert code == 1
    assert "Try: Lower the rate, or warm up over " in out


def test_a_rate_that_overflows_is_told_with_step_and_layer(rehearsing: Any) -> None:
    code, out, _ = rehearsing("gpt2", "--lr", 1e30, "--check", "--json")
    report = json.loads(out)
    (finding,) = [one for one in report["verdict"]["findings"] if one["name"] == "not finite"]
    assert code == 1
    assert finding["layer"].startswith("transformer.h.")
    assert "at step 1" in finding["sentence"]
    assert report["coordinates"]["step"] == [0]


def test_a_module_that_takes_vectors_with_rates_by_groups(rehearsing: Any) -> None:
    code, out, _ = rehearsing("rehearsed:vectors", "--input-width", 16, "--groups", "shaped", "--lr", 2e-3)
    assert code == 0
    assert "rates by groups" in out
    assert "standard normal vectors, 1 × 16 × 16" in out


def test_a_module_without_blocks_needs_names_of_layers(rehearsing: Any) -> None:
    options = ("rehearsed:plain", "--input-width", 16, "--steps", 1)
    code, _, err = rehearsing(*options)
    assert code == 2
    assert "layers=" in err
    code, out, _ = rehearsing(*options, "--layers", "0", "--layers", "2", "--json")
    assert code == 0
    assert json.loads(out)["coordinates"]["layer"] == ["input", "0", "2"]


def test_a_model_for_images(rehearsing: Any) -> None:
    code, out, _ = rehearsing("vit.json", "--steps", 1)
    assert code == 0
    assert "standard normal images, 1 × 3 × 8 × 8" in out


def test_a_decoder_whose_configuration_names_no_first_token(rehearsing: Any, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    (tmp_path / "t5.json").write_text(json.dumps({"model_type": "t5", **sizes}), encoding="utf-8")
    code, out, _ = rehearsing("t5.json", "--tokens", 8, "--steps", 1)
    assert code == 0
    assert "Verdict" in out


def test_the_time_is_told_beforehand_if_it_is_long(rehearsing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, said in (
        (20.0, ""),
        (40.0, "This takes about 80 seconds and 2.5 GB of memory."),
        (150.0, "5 minutes"),
        (10000.0, "5.6 hours"),
    ):
        monkeypatch.setattr("shaped_transformer.rehearse.cost.estimate", lambda *_, s=seconds: Estimate(s, 2.5))
        draws = 1 if seconds < 30 else 2
        err = rehearsing("gpt2", "--tokens", 4, "--steps", 1, "--draws", draws)[2]
        assert said in err
        assert bool(err) == bool(said)


@pytest.mark.slow
@pytest.mark.usefixtures("rehearsing")
def test_an_interrupt_shows_what_is_known_by_then(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    code = (
        "import shaped_transformer.cli as cli, shaped_transformer.rehearse.steps as steps, signal\n"
        "add = steps.Course.add_update\n"
        "def and_interrupt(self, *a):\n"
        "    add(self, *a)\n"
        "    if len(self.updates) == 2: signal.raise_signal(signal.SIGINT)\n"
        "steps.Course.add_update = and_interrupt\n"
        "cli.main()\n"
    )
    arguments = ["rehearse", "gpt2", "--tokens", "4", "--steps", "50", "--out", "here"]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 128 + signal.SIGINT
    assert "It was interrupted after step 1." in process.stdout
    assert process.stderr.splitlines()[-1] == "shaped-transformer: interrupted; no file is half-written"
    assert st.rehearse.Rehearsal.load(tmp_path / "here" / "dataset.zarr").data.sizes["step"] == 2


def test_weights_beside_a_configuration_are_not_read(rehearsing: Any, tmp_path: Path) -> None:
    (tmp_path / "gpt2" / "model.safetensors").write_bytes(b"damaged")
    assert rehearsing("gpt2", "--steps", 1)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["nosuch/"], "no such folder"),
        (["nosuch-model"], "cannot be reached"),
        (["gpt2", "--optimizer", "lion"], "others do not work without weights"),
        (["gpt2", "--lr", "0"], "lr must be a positive number"),
        (["gpt2", "--lr", "nan"], "lr must be"),
        (["gpt2", "--steps", "0"], "steps must be"),
        (["gpt2", "--draws", "0"], "draws must be"),
        (["gpt2", "--warmup", "-1"], "warmup must be"),
        (["gpt2", "--clip", "0"], "clip must be positive"),
        (["gpt2", "--weight-decay", "-1"], "weight_decay must be"),
        (["gpt2", "--round", "fp8"], "--round must be bfloat16"),
        (["gpt2", "--groups", "mine"], "--groups must be shaped"),
        (["gpt2", "--groups", "shaped"], "has no ShapedBlock"),
        (["gpt2", "--text", "nosuch.txt"], "cannot read nosuch.txt"),
        (["gpt2", "--text", "empty.txt"], "no words"),
        (["gpt2", "--tokens", "33"], "at most 32"),
        (["gpt2", "--tokens", "0"], "--tokens"),
        (["gpt2", "--seed", "-1"], "seed"),
        (["gpt2", "--out", "foreign"], "replaces only its own results"),
        (["vit.json", "--tokens", "4"], "takes images"),
        (["rehearsed:absent"], "rehearsed has no absent"),
        (["rehearsed:fails"], "raised KeyError"),
        (["rehearsed:vectors"], "--input-width"),
    ],
)
def test_bad_input_is_one_line(rehearsing: Any, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.html").touch()
    before = sorted(tmp_path.rglob("*"))
    given = arguments if "--out" in arguments else [*arguments, "--out", "results"]
    code, out, err = rehearsing(*given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert [one for one in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(one)] == before


def test_too_many_tokens_are_refused_with_the_number_that_fits(
    rehearsing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shaped_transformer.rehearse.cost.machine_memory", lambda: 1e6)
    code, _, err = rehearsing("gpt2", "--tokens", 32)
    assert (code, err.count("\n")) == (2, 1)
    assert "32 tokens and 3 steps need about" in err
    most = int(err.split("at most ")[1].split(" ")[0])
    assert rehearsing("gpt2", "--tokens", most)[0] == 0
    assert rehearsing("gpt2", "--tokens", most + 1)[0] == 2


@pytest.mark.slow
def test_the_page_works_in_a_browser_and_asks_for_nothing(rehearsing: Any, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no browser")
    rehearsing("gpt2", "--tokens", 6, "--lr", 0.1, "--draws", 2, "--out", "here")
    seen: list[str] = []
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 5000})
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url) if not request.url.startswith("file:") else None)
        page.goto((tmp_path / "here" / "report.html").as_uri())
        for name in ("layers", "updates", "steps"):
            page.wait_for_selector(f"#{name} .main-svg")
        assert page.locator("#layers .subplot").count() == 3
        page.focus("#layers")
        page.keyboard.press("ArrowRight")
        reading = page.inner_text("#layers-reading")
        browser.close()
    assert seen == []
    assert reading.startswith("transformer.h.input: change of the tokens")
    assert "step 3" in reading
