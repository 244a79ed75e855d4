"""`rehearse --widths … --depths …`: what it prints and writes, and how it ends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.cli.sizes import parse_factors

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
SHAPED = {
    "model_type": "shaped_transformer",
    "architectures": ["ShapedTransformerForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
}
SHORT = ("--tokens", "8", "--steps", "2")


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """The file of a tiny configuration."""
    path = tmp_path / "llama.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    return str(path)


def test_the_table_says_what_fans(run: Any, llama: str) -> None:
    code, out, err = run("rehearse", llama, "--widths", "0.5,1,2", "--lr", "1e-3", *SHORT)
    assert code == 0, err
    assert "LlamaForCausalLM, the model's own initialisation, one rate." in out
    assert "AdamW, rate 0.001, 3 networks of each size" in out
    assert "Verdict: Fanning over width × 0.5 to 2 at step 2: update of " in out
    row = next(line.split() for line in out.splitlines() if line.startswith("outputs "))
    assert row[-1] == "fanning"
    assert float(row[4]) > 0.3
    assert "by depth" not in out


def test_mup_and_depths_and_results(run: Any, llama: str, tmp_path: Path) -> None:
    sizes = ("--widths", "1,2", "--depths", "0.5,1", "--parametrisation", "mup", "--draws", "2")
    code, out, err = run("rehearse", llama, *sizes, *SHORT, "--json", "--out", "results")
    assert code == 0, err
    report = json.loads(out)
    assert report == json.loads((tmp_path / "results" / "run.json").read_text())
    assert report["kind"] == "coordinate check"
    assert report["settings"]["parametrisation"] == "mup"
    assert report["settings"]["draws"] == 2
    assert {(row["axis"], row["quantity"]) for row in report["slopes"]} >= {("width", "outputs"), ("depth", "stream")}
    check = st.rehearse.CoordinateCheck.load(tmp_path / "results" / "dataset.zarr")
    assert check.sentence == report["sentence"]
    np.testing.assert_allclose(np.array(report["values"]["mean"]), check.data["value"].mean("draw").values)
    assert (tmp_path / "results" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results" / "figure.svg").exists()


def test_check_ends_with_a_status(run: Any, llama: str) -> None:
    sizes = ("--widths", "1,4", "--lr", "1e-3", "--check", *SHORT)
    assert run("rehearse", llama, *sizes)[0] == 1
    code, out, _ = run("rehearse", llama, *sizes, "--parametrisation", "mup")
    assert (code, "fanning" in out) == (0, False), out


def test_rates_by_groups_are_ours(run: Any, tmp_path: Path) -> None:
    (tmp_path / "shaped.json").write_text(json.dumps(SHAPED))
    code, out, err = run("rehearse", "shaped.json", "--widths", "1,2", "--groups", "shaped", "--draws", "2", *SHORT)
    assert code == 0, err
    assert "ShapedTransformerForCausalLM, rates by groups" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--widths", "0.5;1"), "--widths must be factors such as 0.25,0.5,1,2 (got '0.5;1')"),
        (("--depths", ""), "--depths must be factors such as 0.25,0.5,1,2 (got '')"),
        (("--widths", "1"), "widths must be at least two different positive factors"),
        (("--widths", "0.3,1"), "width 0.3 turns hidden_size 64 into 19.2"),
        (("--widths", "1,2", "--parametrisation", "ntp"), "parametrisation must be 'standard', 'mup'"),
        (("--widths", "1,2", "--groups", "shaped"), "has no ShapedBlock"),
        (("--parametrisation", "mup"), "give --widths or --depths too"),
        (("--widths", "1,2", "--groups", "shaped", "--parametrisation", "mup"), "set different rates: give one"),
        (("--widths", "1,2", "--lr", "1e30"), "numbers become infinite or undefined"),
    ],
)
def test_bad_input_is_one_line(run: Any, llama: str, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    code, out, err = run("rehearse", llama, *options, *SHORT, "--out", "results")
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("sizes", [1, 2])
def test_an_interrupt_shows_what_is_known(
    run: Any, llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: int
) -> None:
    calls, measure = [], st.rehearse.run

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        calls.append(arguments)
        if len(calls) > sizes:
            raise KeyboardInterrupt
        return measure(*arguments, **settings)

    monkeypatch.setattr("shaped_transformer.rehearse.coordinates.run", interrupted)
    code, out, _ = run("rehearse", llama, "--widths", "0.5,1,2", "--draws", "2", *SHORT, "--out", "results")
    assert code == 130
    if sizes < 2:
        assert out == ""
        assert not (tmp_path / "results").exists()
        return
    assert "Not all sizes: it was interrupted after 2 of 3 sizes." in out
    assert "over width × 0.5 to 1 " in out
    check = st.rehearse.CoordinateCheck.load(tmp_path / "results" / "dataset.zarr")
    assert check.data["factor"].values.tolist() == [0.5, 1.0]


def test_a_function_is_refused(run: Any) -> None:
    code, _, err = run("rehearse", "torch.nn:Identity", "--widths", "1,2", "--input-width", "4")
    assert code == 2
    assert "Traceback" not in err


def test_results_of_a_rehearsal_are_not_replaced(run: Any, llama: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text('{"kind": "rehearsal"}')
    code, _, err = run("rehearse", llama, "--widths", "1,2", "--draws", "1", *SHORT, "--out", "results")
    assert code == 2
    assert "'coordinate check' replaces only its own results" in err


def test_no_factors_are_none() -> None:
    assert parse_factors(None, "--widths") == ()
    assert parse_factors("0.5, 1,2", "--widths") == (0.5, 1.0, 2.0)
