"""The folder of results: a command replaces results of its own kind, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from shaped_transformer.cli.output import RESULTS, results_folder
from shaped_transformer.errors import InputError, StorageError

SMALL = ["--width", "8", "--depth", "2", "--samples", "20"]
SETTINGS = ("width=8", "depth=2", "samples=16", "network_samples=16", "records=2")
FIGURE = ["figure", "correlation", "--quick", *(a for change in SETTINGS for a in ("--set", change))]
COMMANDS = {
    "compare": ["compare", *SMALL, "--network-samples", "5"],
    "predict": ["predict", *SMALL],
    "advise": ["advise", "--width", "8", "--depth", "2", "--tokens", "2", "--samples", "20", "--confidence", "0.51"],
    "figure correlation": FIGURE,
}
FOREIGN: list[tuple[str, bytes, str]] = [
    ("run.json", b'{"name": "of another program"}', "contains a run.json that this library did not write"),
    ("run.json", b'{"kind": "train"}', "contains results of 'train'"),
    ("run.json", b"[1, 2]", "contains a run.json that this library did not write"),
    ("run.json", b"half a f", "contains a run.json that this library did not write"),
    ("run.json", b"\xff\xfe", "contains a run.json that this library did not write"),
    ("figure.png", b"a photograph", "contains figure.png without a run.json of this library"),
    ("figure.svg", b"a drawing", "contains figure.svg without"),
    ("dataset.zarr/0", b"my data", "contains dataset.zarr without"),
    ("run.json/0", b"a folder", "contains a run.json that this library did not write"),
]


def everything(folder: Path) -> dict[Path, Any]:
    """Return time and content of everything in a folder."""
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", COMMANDS)
def test_results_name_their_kind_and_are_replaced_by_it(run: Any, tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        code, out, err = run(*COMMANDS[kind], "--out", "here", "--json")
        assert code == 0, err
        assert json.loads(out)["kind"] == kind
        assert json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8")) == json.loads(out)


@pytest.mark.parametrize("kind", COMMANDS)
def test_results_of_another_kind_are_not_replaced(run: Any, tmp_path: Path, kind: str) -> None:
    run(*COMMANDS[kind], "--out", "here")
    for other in COMMANDS.keys() - {kind}:
        before = everything(tmp_path)
        code, _, err = run(*COMMANDS[other], "--out", "here")
        assert code == 2
        assert f"here contains results of '{kind}', and '{other}' replaces only its own results: choose another" in err
        assert err.endswith(": choose another --out\n")
        assert err.count("\n") == 1
        assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize(("name", "content", "message"), FOREIGN, ids=[f"{name} {text!r}" for name, text, _ in FOREIGN])
def test_a_file_that_is_not_a_result_is_not_replaced(
    run: Any, tmp_path: Path, kind: str, name: str, content: bytes, message: str
) -> None:
    place = tmp_path / "here" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    before = everything(tmp_path)
    code, out, err = run(*COMMANDS[kind], "--out", "here")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert everything(tmp_path) == before


def test_all_folders_are_checked_before_the_first_figure_is_made(run: Any, tmp_path: Path) -> None:
    place = tmp_path / "all" / "masks" / "run.json"
    place.parent.mkdir(parents=True)
    place.write_text("mine", encoding="utf-8")
    before = everything(tmp_path)
    code, _, err = run("figure", "--all", "--quick", "--out", "all")
    assert code == 2
    assert "and 'figure masks' replaces only its own results" in err
    assert everything(tmp_path) == before


def test_pieces_and_other_files_do_not_prevent_results(tmp_path: Path) -> None:
    (tmp_path / ".pieces-masks-0").mkdir()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with results_folder(tmp_path, "figure masks") as folder:
        (folder / "run.json").write_text('{"kind": "figure masks"}', encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pieces-masks-0", "notes.txt", "run.json"]


def test_a_broken_link_is_not_replaced(tmp_path: Path) -> None:
    for name in RESULTS:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(InputError, match="replaces only its own"), results_folder(tmp_path / name, "compare"):
            pytest.fail("the folder was taken")


def test_a_folder_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(StorageError, match=r"cannot (read|write)"), results_folder(Path("a" * 300), "compare"):
        pytest.fail("there is no such folder")
