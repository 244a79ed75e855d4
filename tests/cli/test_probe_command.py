"""The command `probe`: what it prints and writes, and how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.cli.layer_table import choose, interval, shorten, sparkline

SIZES: dict[str, Any] = {"vocab_size": 120, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
MODULE = """
import torch
import shaped_transformer as st

class Exploding(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(50, 16)
        self.layers = torch.nn.ModuleList(Block() for _ in range(4))

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x)
        return x

class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(16))

    def forward(self, x):
        return 100 * self.gain * x

def vectors():
    return st.nn.ShapedTransformer(width=16, depth=2, heads=2)

def fails():
    raise KeyError("two\\nlines")
"""


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny GPT-2."""
    folder: Path = tmp_path_factory.mktemp("models") / "gpt2"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def probing(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The command in a folder with a module `probed`; the modules that Python finds are as before afterwards."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "probed.py").write_text(MODULE, encoding="utf-8")
    yield lambda *arguments: run("probe", *map(str, arguments))
    sys.modules.pop("probed", None)


def test_a_model_is_held_against_its_initialisation(probing: Any, gpt2: Path) -> None:
    code, out, err = probing(gpt2, "--expected", 12, "--tokens", 8)
    assert (code, err) == (0, "")
    assert "GPT2LMHeadModel" in out
    assert "4 × 8" in out
    assert "Verdict: The signal is sane" in out
    assert "as transformers initialises it, 12 weightless draws" in out
    assert "Layers of transformer.h" in out
    assert "band" in out
    row = next(line for line in out.splitlines() if line.startswith("input"))
    assert len(row.split()) == 9  # no branch: the input is no block


def test_results_are_written_and_read_back(probing: Any, gpt2: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    _, out, _ = probing(gpt2, "--expected", 3, "--tokens", 6, "--out", "here", "--json")
    report = json.loads(out)
    here = tmp_path / "here"
    names = ["dataset.zarr", "expected.zarr", "figure.png", "figure.svg", "report.html", "run.json"]
    assert sorted(one.name for one in here.iterdir()) == names
    assert json.loads((here / "run.json").read_text(encoding="utf-8")) == report
    assert (report["kind"], report["shape"], report["weightless"]) == ("probe", [4, 6], False)
    measured = st.probe.ProbeResult.load(here / "dataset.zarr")
    assert measured.mean("effective_rank").tolist() == report["measured"]["effective_rank"]
    band = measured.compare(st.probe.Expectation.load(here / "expected.zarr")).bands["effective_rank"]
    np.testing.assert_allclose(band.low, report["bands"]["effective_rank"]["low"])
    assert not probing(gpt2, "--expected", 0, "--tokens", 6, "--out", "here")[0]
    assert not (here / "expected.zarr").exists()  # it was of other draws


def test_the_command_gives_the_same_numbers_again(probing: Any, gpt2: Path) -> None:
    arguments = (gpt2, "--init", "--expected", 0, "--tokens", 6, "--json", "--seed", 3)
    first, again = (json.loads(probing(*arguments)[1]) for _ in range(2))
    assert first["weightless"]
    assert first["measured"] == again["measured"]


def test_check_fails_on_a_bad_verdict_only(probing: Any, gpt2: Path) -> None:
    assert probing(gpt2, "--expected", 0, "--tokens", 6, "--check")[0] == 0
    code, out, _ = probing("probed:Exploding", "--expected", 0, "--tokens", 6, "--check")
    assert code == 1
    assert "Verdict: The token norm grows" in out
    assert "Try: " in out
    assert probing("probed:Exploding", "--expected", 0, "--tokens", 6)[0] == 0


def test_a_module_that_takes_vectors(probing: Any) -> None:
    code, out, _ = probing("probed:vectors", "--input-width", 16, "--tokens", 4, "--expected", 3)
    assert code == 0
    assert "standard normal vectors, 4 × 4 × 16" in out
    assert "as its own code initialises it" in out


def test_code_in_the_folder_runs_only_where_a_function_is_named(probing: Any, gpt2: Path, tmp_path: Path) -> None:
    import sys

    assert probing(gpt2, "--expected", 0, "--tokens", 6)[0] == 0
    assert str(tmp_path) not in sys.path
    assert probing("probed:vectors", "--input-width", 16, "--tokens", 4, "--expected", 0)[0] == 0
    assert str(tmp_path) in sys.path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a MODEL"),
        (["nosuch/"], "no such folder"),
        (["nosuch-model"], "cannot be reached"),
        (["MODEL", "--text", "nosuch.txt"], "cannot read nosuch.txt"),
        (["MODEL", "--text", "empty.txt"], "no words"),
        (["MODEL", "--text", "binary.txt"], "UTF-8"),
        (["MODEL", "--text", "zero.txt"], "zero bytes"),
        (["MODEL", "--layers", "nosuch.*"], "no module is named 'nosuch.*'"),
        (["MODEL", "--tokens", "33"], "at most 32"),
        (["MODEL", "--expected", "2"], "at least 3"),
        (["MODEL", "--seed", "-1"], "seed"),
        (["MODEL", "--config", "nosuch.json"], "cannot read nosuch.json"),
        (["MODEL", "--out", "foreign"], "replaces only its own results"),
        (["probed.py"], "module:function"),
        (["probed:absent"], "probed has no absent"),
        (["probed:fails"], "raised KeyError"),
        (["probed:vectors"], "--input-width"),
        (["absent_module:f"], "there is no module absent_module"),
    ],
)
def test_bad_input_is_one_line(probing: Any, gpt2: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "zero.txt").write_bytes(b"a\0b")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.html").touch()
    before = sorted(tmp_path.rglob("*"))
    given = [str(gpt2) if one == "MODEL" else one for one in arguments]
    given = given if "--out" in given else [*given, "--out", "results"]
    code, out, err = probing(*given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert [one for one in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(one)] == before


def test_bars_show_the_course_of_numbers() -> None:
    assert sparkline([1.0, 10.0, 100.0], logarithmic=True) == "▁▄█"
    assert len(set(sparkline([1.0, 1.0001, 1.0], logarithmic=True))) == 1  # noise is flat
    assert len(sparkline([float(i) for i in range(1, 97)], logarithmic=True)) == 40


def test_long_tables_keep_the_ends_and_what_is_named() -> None:
    rows = choose(96, {50})
    assert (rows[0], rows[-1], 50 in rows) == (0, 95, True)
    assert len(rows) <= 41
    assert choose(3, set()) == [0, 1, 2]


def test_names_and_bands_are_short() -> None:
    assert shorten(["a.h.input", "a.h.0"]) == ("a.h", ["input", "0"])
    assert shorten(["encoder.0", "decoder.0"]) == ("", ["encoder.0", "decoder.0"])
    assert shorten(["layer"]) == ("", ["layer"])
    assert (interval(9.1, 10.6), interval(1.0, 1.00001)) == ("9.1-10.6", "1")
