"""The command line: reports, files, one-line errors, interrupts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.analysis.advice import Search

QUICK = ["--width", "16", "--depth", "6", "--samples", "200"]
FILES = ["dataset.zarr", "figure.png", "figure.svg", "run.json"]


@pytest.fixture
def compared(run: Any) -> tuple[dict[str, Any], str]:
    """The report of a small `compare` with results in `here`, and its standard output."""
    code, out, _ = run("compare", *QUICK, "--network-samples", "50", "--out", "here")
    assert code == 0
    return json.loads(Path("here/run.json").read_text(encoding="utf-8")), out


def test_compare_reports_all_views(compared: tuple[dict[str, Any], str]) -> None:
    report, _ = compared
    assert set(report["seconds"]) == {"network", "chain", "sde"}
    assert report["speed_up_per_draw"] > 0
    assert [row["observable"] for row in report["table"]] == [
        *("mean_token_norm", "V11", "V12", "rho12", "smallest_eigenvalue", "effective_rank")
    ]
    assert set(report["table"][0]["pairs"]) == {"network-chain", "network-sde", "chain-sde"}
    assert report["command"].startswith("shaped-transformer compare --width 16")


def test_compare_prints_the_verdict_and_the_speed(compared: tuple[dict[str, Any], str]) -> None:
    _, out = compared
    assert "Verdict: stable" in out
    assert "A real network takes" not in out  # batches are drawn whole


def test_compare_writes_report_picture_and_dataset(compared: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    report, _ = compared
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == FILES
    assert json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "here" / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_the_dataset_of_compare_is_sampled_again_from_its_report(
    compared: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    import xarray as xr

    report, _ = compared
    arch = st.Architecture.from_dict(report["architecture"])
    assert arch == st.shaped_transformer(16, 6)
    with xr.open_datatree(tmp_path / "here" / "dataset.zarr", engine="zarr", consolidated=False) as data:
        median = float(data["chain"].to_dataset()["rho12"][:, -1].median())
    assert median == report["table"][3]["views"]["chain"]["median"]
    chain = st.chain.sample(arch, report["initial_covariance"], 200, report["seed"])
    assert np.median(chain.correlation()[:, -1, 0, 1]) == median


def test_the_command_in_run_json_gives_the_same_numbers(run: Any, tmp_path: Path) -> None:
    run("predict", *QUICK, "--out", "a")
    first = json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))
    run(*first["command"].split()[1:])
    again = json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))
    assert again["table"] == first["table"]
    assert again["verdict"] == first["verdict"]


def test_predict_samples_no_networks(run: Any) -> None:
    code, out, err = run("predict", *QUICK)
    assert code == 0
    assert "chain: 200 draws" in out
    assert "network:" not in out
    assert "Verdict:" not in err


@pytest.mark.parametrize("command", ["compare", "predict", "advise"])
def test_with_json_standard_output_holds_one_object_and_no_words(run: Any, command: str) -> None:
    extra = ["--network-samples", "20"] if command == "compare" else []
    code, out, err = run(command, *QUICK, *extra, "--json")
    assert code == 0
    assert json.loads(out)["kind"] == command
    assert out.count("\n") == 1
    assert "Verdict:" not in err
    assert "Advice:" not in err


def test_pipes_get_text_without_box_drawing(compared: tuple[dict[str, Any], str]) -> None:
    _, out = compared
    assert not re.search("[\u2500-\u257f]", out)


def test_predict_reports_the_stability_of_the_design(run: Any) -> None:
    code, out, _ = run("predict", *QUICK)
    assert code == 0
    report = json.loads(Path("runs/predict/run.json").read_text(encoding="utf-8"))
    want = st.stability(st.shaped_transformer(16, 6), report["initial_covariance"], samples=200)
    assert report["stability"] == json.loads(json.dumps(want.to_dict()))
    assert "healthy networks" in out
    assert "Expected drift" in out


def test_the_section_on_stability_can_be_left_out(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("predict", *QUICK, "--no-stability", "--out", "here")
    assert code == 0
    assert "Verdict: stable" in out
    assert "Expected drift" not in out
    assert "stability" not in json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8"))


def test_verdict_picture_and_dataset_are_there_when_the_section_on_stability_is_interrupted(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shaped_transformer.cli.compare.stability", interrupt)
    code, out, err = run("predict", *QUICK, "--out", "here")
    assert code == 130
    assert "Verdict: stable" in out
    assert "verdict, picture and dataset are complete" in err
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == FILES


ADVISE = ("advise", "--depth", "4", "--width", "16", "--tokens", "3", "--samples", "100", "--probability", "0.9")


def test_advise_reports_and_writes_the_advice(run: Any, tmp_path: Path) -> None:
    import xarray as xr

    code, out, _ = run(*ADVISE, "--out", "here")
    assert code == 0
    report = json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8"))
    v0 = st.inputs.from_text(max_tokens=3, embedding_width=16)
    want = st.advise(st.shaped_transformer(16, 4), v0, samples=100, criterion=st.Criterion(probability=0.9))
    assert report["gamma"] == want.gamma
    assert want.sentence in out
    assert "gamma = 0.5/sqrt(depth) = 0.25" in out
    assert "the logits are divided by tau" in out
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == FILES
    with xr.open_zarr(tmp_path / "here" / "dataset.zarr") as data:
        assert data["gamma"].to_numpy().tolist() == sorted(trial.gamma for trial in want.trials)


def test_advise_takes_definitions_and_inputs_as_predict_does(run: Any, tmp_path: Path) -> None:
    arch = st.shaped_transformer(16, 4, heads=2, mask="causal", gamma=0.3)
    (tmp_path / "arch.json").write_text(json.dumps(arch.to_dict()), encoding="utf-8")
    options = ("--architecture", "arch.json", "--correlation", "0.2", "--tokens", "3", "--samples", "100")
    code, out, err = run("advise", *options, "--json")
    assert code == 0, err
    assert json.loads(out)["gamma"] == st.advise(arch, st.inputs.equicorrelated(3, 0.2), samples=100).gamma


def test_the_frontier_is_searched_on_request(run: Any) -> None:
    code, out, _ = run(*ADVISE, "--frontier", "--json")
    assert code == 0
    assert [point["tau0"] for point in json.loads(out)["frontier"]] == [0.1, 0.2, 0.5, 1.0, 2.0]
    assert json.loads(run(*ADVISE, "--json")[1])["frontier"] == []


def test_a_frontier_without_tau0_is_refused_before_the_search(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "trials", lambda _: pytest.fail("searched"))
    code, _, err = run(*ADVISE, "--preset", "pre_norm_transformer", "--frontier")
    assert code == 2
    assert "leave out taus= (--frontier)" in err


def test_advise_succeeds_where_no_gamma_is_stable(run: Any) -> None:
    code, out, _ = run(*ADVISE, "--rank-share", "0.99999", "--out", "none")
    assert code == 0
    assert "is surely stable" in out


def test_interrupted_advice_shows_what_it_knows(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Search.trials

    def interrupted(search: Search) -> Any:
        yield from islice(trials(search), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "trials", interrupted)
    code, out, _ = run(*ADVISE, "--out", "here")
    assert code == 130
    assert "Values of gamma tried" in out
    assert re.search(r"Advice: interrupted: gamma = 0\.\d+ is probably stable; gamma = \S+ is probably not", out)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_advice_is_one_object_with_json(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Search) -> Any:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Search, "trials", interrupted)
    code, out, _ = run(*ADVISE, "--json")
    assert code == 130
    assert json.loads(out)["complete"] is False


def test_advice_for_fixed_skips_comes_with_the_advised_definition(run: Any, tmp_path: Path) -> None:
    options = ("--width", "16", "--depth", "4", "--tokens", "3", "--samples", "100")
    code, out, _ = run("advise", "--preset", "pre_norm_transformer", *options, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["training_gamma"] is None
    (tmp_path / "advised.json").write_text(json.dumps(report["advised_architecture"]), encoding="utf-8")
    code, out, _ = run(
        "predict", "--architecture", "advised.json", "--tokens", "3", "--no-stability", "--samples", "500"
    )
    assert code == 0
    assert "Verdict: stable" in out


def test_a_network_without_skips_has_no_gamma(run: Any) -> None:
    code, _, err = run("advise", "--preset", "skipless_transformer", *QUICK[:4])
    assert code == 2
    assert "this network has no skip" in err


def test_networks_that_collapse_entirely_are_plotted(run: Any) -> None:
    """An early version passed infinite values to the density."""
    options = ("--depth", "300", "--width", "16", "--gamma", "1", "--tokens", "4", "--samples", "300", "--no-stability")
    code, out, err = run("predict", *options)
    assert code == 0, err
    assert "Verdict: collapsing" in out


def test_too_few_samples_for_advice_are_refused_with_the_number_that_is_needed(run: Any) -> None:
    code, _, err = run("advise", *QUICK[:4], "--samples", "20")
    assert code == 2
    assert "draw at least 74 samples" in err


def test_a_preset_without_limit_is_compared_without_the_sde(run: Any) -> None:
    code, out, _ = run(
        "compare", "--preset", "skipless_transformer", *QUICK, "--network-samples", "20", "--tokens", "4"
    )
    assert code == 0
    assert "No SDE: layer 0 of the block has no proportional limit" in out
    assert "Verdict: collapsing" in out
    report = json.loads(Path("runs/compare/run.json").read_text(encoding="utf-8"))
    assert set(report["table"][0]["pairs"]) == {"network-chain"}


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        (("--width", "8", "--depth", "3", "--vectors", "vectors.npy", "--mask", "mask.npy"), 3),
        (("--width", "8", "--depth", "3", "--covariance", "covariance.npy", "--heads", "2", "--mask", "causal"), 2),
        (("--width", "8", "--depth", "3", "--text", "text.txt", "--tokens", "6", "--position-weight", "0"), 6),
        (("--architecture", "arch.json", "--correlation", "0.2", "--tokens", "1"), 1),
    ],
    ids=["vectors", "covariance", "text", "correlation"],
)
def test_every_kind_of_input_and_definition_is_read(
    run: Any, tmp_path: Path, options: tuple[str, ...], tokens: int
) -> None:
    np.save("vectors.npy", np.random.default_rng(0).standard_normal((3, 10)))
    np.save("covariance.npy", np.eye(2))
    np.save("mask.npy", np.tri(3))
    (tmp_path / "text.txt").write_text("to be or not to be", encoding="utf-8")
    (tmp_path / "arch.json").write_text(json.dumps(st.deep_linear(8, 3).to_dict()), encoding="utf-8")
    code, out, err = run("predict", "--samples", "20", "--json", *options)
    assert code == 0, err
    assert len(json.loads(out)["initial_covariance"]) == tokens


def test_other_files_in_the_folder_of_results_stay(run: Any, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("keep", encoding="utf-8")
    for _ in range(2):
        assert run("predict", *QUICK, "--out", "here")[0] == 0
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [
        *("dataset.zarr", "figure.png", "figure.svg", "mine.txt", "run.json")
    ]


BAD: list[tuple[str, list[str]]] = [
    ("scale (gamma) must lie in (0, 1], got 1.2", ["--gamma", "1.2"]),
    ("scale (gamma) must lie in (0, 1], got 0", ["--gamma", "0"]),
    ("tau0", ["--tau0", "-1"]),
    ("3 heads do not divide the width 16: use one of", ["--heads", "3"]),
    ("row 1 of the mask allows no token", ["--mask", "blind.npy"]),
    ("there is no file nowhere.npy", ["--mask", "nowhere.npy"]),
    ("must be symmetric", ["--covariance", "asymmetric.npy"]),
    ("positive semi-definite", ["--covariance", "indefinite.npy"]),
    ("is nan", ["--vectors", "nan.npy"]),
    ("has no words", ["--text", "empty.txt"]),
    ("unknown preset 'unheard'", ["--preset", "unheard"]),
    ("cannot read nowhere.txt: No such file", ["--text", "nowhere.txt"]),
    ("cannot read nowhere.json", ["--architecture", "nowhere.json"]),
    ("is not JSON", ["--architecture", "empty.txt"]),
    ("samples must be", ["--samples", "0"]),
    ("seed must be", ["--seed", "-3"]),
    ("steps must be", ["--steps", "1"]),
    ("cannot write empty.txt/below", ["--out", "empty.txt/below"]),
    ("cannot write empty.txt", ["--out", "empty.txt"]),
    ("correlation must lie in", ["--correlation", "1.5"]),
    ("give one input, not --text and --correlation", ["--text", "empty.txt", "--correlation", "0.1"]),
    ("--tokens does not go with --vectors", ["--vectors", "nan.npy", "--tokens", "3"]),
    ("takes no --gamma: it takes --width, --depth", ["--preset", "deep_linear", "--gamma", "0.3"]),
    ("leave out --gamma", ["--architecture", "x.json", "--gamma", "0.3"]),
    ("--tokens", ["--tokens", "many"]),
    ("so its layer cannot be normalised", ["--c-plus", "-4", "--c-minus", "-4"]),
    ("so its layer cannot be normalised", ["--c-plus", "1e200"]),
    ("so small that logits overflow", ["--tau0", "1e-200"]),
    ("above 1e+08, where paths are stopped", ["--covariance", "huge.npy"]),
    ("steps are for the SDE, and this network has none", ["--preset", "skipless_transformer", "--steps", "50"]),
    ("is an archive of arrays", ["--vectors", "several.npz"]),
    ("is an archive of arrays", ["--mask", "several.npz"]),
    ("cannot read .: Is a directory", ["--mask", "."]),
    ("depth is missing", ["--architecture", "incomplete.json"]),
    ("'kind' must be one of", ["--architecture", "odd.json"]),
    ("nested too deeply", ["--architecture", "deep.json"]),
    ("No such option", ["--nonsense"]),
]


@pytest.mark.parametrize(("message", "options"), BAD, ids=[" ".join(options) for _, options in BAD])
@pytest.mark.parametrize("command", ["compare", "predict"])
def test_bad_input_is_one_line_with_status_2(
    run: Any, tmp_path: Path, command: str, message: str, options: list[str]
) -> None:
    np.save("blind.npy", np.diag([1, 0, 1]))
    np.save("asymmetric.npy", [[1.0, 0.5], [0.2, 1.0]])
    np.save("indefinite.npy", [[1.0, 2.0], [2.0, 1.0]])
    np.save("nan.npy", [[1.0, np.nan]])
    np.save("huge.npy", 1e9 * np.eye(3))
    np.savez("several.npz", a=np.eye(2), b=np.eye(2))
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "incomplete.json").write_text('{"kind": "Architecture", "width": 8, "block": []}', encoding="utf-8")
    (tmp_path / "odd.json").write_text('{"kind": ["Architecture"]}', encoding="utf-8")
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    base = [] if "--architecture" in options or "--preset" in options else ["--width", "16", "--depth", "6"]
    if "--samples" not in options:
        base += ["--samples", "200"]
    code, out, err = run(command, *base, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("shaped-transformer: ")
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_network_samples_must_be_positive(run: Any) -> None:
    code, _, err = run("compare", *QUICK, "--network-samples", "0")
    assert code == 2
    assert "network_samples must be" in err


def test_a_text_with_too_few_tokens_is_reported(run: Any, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("three words only", encoding="utf-8")
    code, _, err = run("predict", *QUICK, "--text", "short.txt")
    assert code == 0
    assert "The text has 3 tokens, fewer than 8." in err


def test_a_folder_with_the_name_of_the_picture_is_not_replaced(run: Any, tmp_path: Path) -> None:
    (tmp_path / "here" / "figure.png").mkdir(parents=True)
    (tmp_path / "here" / "figure.png" / "mine.txt").write_text("keep", encoding="utf-8")
    code, _, err = run("predict", *QUICK, "--out", "here")
    assert code == 2
    assert "contains figure.png without a run.json of this library" in err
    assert (tmp_path / "here" / "figure.png" / "mine.txt").exists()


def test_the_version_is_printed(run: Any) -> None:
    assert run("--version")[1].strip() == st.__version__


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_lists_the_options(run: Any, option: str) -> None:
    code, out, _ = run("compare", option)
    assert code == 0
    assert "--position-weight" in out


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (signal.SIGINT, 130, "shaped-transformer: interrupted; no file is half-written\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_an_interrupt_leaves_no_files(tmp_path: Path, sent: signal.Signals, status: int, message: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "shaped_transformer", "predict", "--samples", "100000", "--out", "here"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "here").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(sent)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert err.endswith(message)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


NEEDED = "import numpy, pydantic"
"""What the library itself has to import: the measure of its own time, on a machine of any speed and load."""


def best_seconds(*arguments: str) -> float:
    """Return the shortest of five times, which is least affected by other work of the machine."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=os.environ)
        times.append(time.perf_counter() - start)
    return min(times)


def test_the_import_is_fast_and_loads_no_heavy_package() -> None:
    code = (
        "import sys, shaped_transformer;"
        "heavy = {'torch', 'matplotlib', 'numba', 'xarray', 'scipy', 'zarr', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    assert best_seconds("-c", code) < 5 * best_seconds("-c", NEEDED)


def test_the_help_is_fast() -> None:
    assert best_seconds("-m", "shaped_transformer", "--help") < 6 * best_seconds("-c", NEEDED)
