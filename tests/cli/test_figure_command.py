"""The command `figure`: files, numbers, plots of a saved dataset, one-line errors, interrupts."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from marks import slow

from shaped_transformer.figures import catalogue

SMALL = [
    argument
    for change in ("width=16", "depth=6", "samples=64", "network_samples=32", "records=4")
    for argument in ("--set", change)
]


FILES = ["dataset.zarr", "figure.png", "figure.svg", "run.json"]


def test_a_figure_writes_its_files_and_its_report(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("figure", "correlation", "--quick", *SMALL, "--out", "here", "--json")
    assert code == 0
    report = json.loads(out)
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == FILES
    assert report == json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8"))
    assert report["settings"]["width"] == 16


def test_a_figure_prints_its_numbers_with_intervals(run: Any) -> None:
    _, out, _ = run("figure", "correlation", "--quick", *SMALL, "--out", "here")
    first = json.loads(Path("here/run.json").read_text(encoding="utf-8"))["numbers"][0]
    assert first["name"] in out
    assert f"[{first['low']:.3g}, {first['high']:.3g}]" in out


def test_a_figure_is_plotted_again_from_its_dataset(run: Any, tmp_path: Path) -> None:
    _, out, _ = run("figure", "correlation", "--quick", *SMALL, "--out", "here", "--json")
    code, again, _ = run("figure", "correlation", "--from", "here/dataset.zarr", "--out", "again", "--json")
    assert code == 0
    assert json.loads(again)["numbers"] == json.loads(out)["numbers"]
    for picture in ("figure.png", "figure.svg"):
        assert (tmp_path / "here" / picture).read_bytes() == (tmp_path / "again" / picture).read_bytes()


def test_the_list_names_every_figure(run: Any) -> None:
    code, out, err = run("figure", "--list")
    assert code == 0
    assert err == ""
    assert all(name in out for name in catalogue.FIGURES)
    listed = json.loads(run("figure", "--list", "--json")[1])
    assert list(listed) == list(catalogue.FIGURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the name of a figure, --all or --list"),
        (["masks", "--all"], "give the name of a figure, --all or --list"),
        (["heatmap"], "unknown figure 'heatmap': choose one of collapse"),
        (["--all", "--set", "width=3"], "--from and --set go with the name of a figure"),
        (["masks", "--from", "x", "--quick"], "leave out --quick and --set"),
        (["masks", "--from", "x"], "no such store: x"),
        (["masks", "--set", "width"], "--set needs KEY=VALUE (got 'width')"),
        (["masks", "--set", "width=[1"], "the value is not YAML"),
        (["masks", "--set", "widht=3"], "no setting 'widht': choose from width"),
        (["masks", "--set", "heads=[1, 0]"], "heads.1: input should be greater than or equal to 1 (got 0)"),
        (["masks", "--quick", "--set", "heads=[3]"], "3 heads do not divide the width"),
        (["context", "--quick", "--set", "tokens=[100]"], "a covariance of rank 100"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(
    run: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run("figure", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


LONG = ["-m", "shaped_transformer", "figure", "correlation", "--quick", "--set", "network_samples=3000"]
COMMAND = [sys.executable, *LONG, "--out", "here", "--json"]


def stored_pieces(folder: Path) -> list[Path]:
    """Return the finished pieces; not by `rglob`, which fails if the command removes a folder meanwhile."""
    return [path for pieces in folder.glob("here/.pieces-*") for path in pieces.glob("[!.]*.npz")]


def interrupt(folder: Path, sent: signal.Signals) -> tuple[int, str, list[Path]]:
    """Start a figure and send a signal after its fourth piece: → exit status, standard error, finished pieces."""
    process = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(pieces := stored_pieces(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, err, pieces


@pytest.mark.parametrize("sent", slow([signal.SIGINT, signal.SIGKILL], long=[signal.SIGINT]))
def test_an_interrupted_figure_resumes_with_the_same_numbers(tmp_path: Path, sent: signal.Signals) -> None:
    status = {signal.SIGINT: 130, signal.SIGKILL: -9}[sent]
    code, err, pieces = interrupt(tmp_path, sent)
    assert code == status
    if sent == signal.SIGINT:
        assert "4 of 7 pieces are kept in here: the same command resumes from there" in err
    assert not (tmp_path / "here" / "run.json").exists()
    before = {path: path.stat().st_mtime_ns for path in pieces}
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as again:
        while again.poll() is None and len(now := stored_pieces(tmp_path)) < 5:
            time.sleep(0.01)
        assert all(path.stat().st_mtime_ns == before[path] for path in pieces if path in now and path.exists())
        out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    fresh = catalogue.settings("correlation", quick=True, changes={"network_samples": 3000})
    numbers = catalogue.load_module("correlation").headline(catalogue.compute("correlation", fresh))
    printed = {number["name"]: number["value"] for number in json.loads(out)["numbers"]}
    assert printed == {title: number.value for title, number in numbers.items()}
    assert [path.name for path in (tmp_path / "here").iterdir() if path.name.startswith(".pieces")] == []
