"""Whose folder it is: a command replaces its own results, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from shaped_transformer.cli.output import NAMES, results
from shaped_transformer.errors import InputError, StorageError

SMALL = ["--width", "8", "--depth", "2", "--samples", "20"]
SETTINGS = ("width=8", "depth=2", "samples=16", "network_samples=16", "records=2")
FIGURE = ["figure", "correlation", "--quick", *(a for change in SETTINGS for a in ("--set", change))]
COMMANDS = {
    "compare": ["compare", *SMALL, "--network-samples", "5"],
    "predict": ["predict", *SMALL],
    "advise": ["advise", "--width", "8", "--depth", "2", "--tokens", "2", "--samples", "20", "--confidence", "0.5"],
    "figure correlation": FIGURE,
}
FOREIGN: list[tuple[str, bytes, str]] = [
    ("run.json", b'{"name": "of another program"}', "got a run.json that is not ours"),
    ("run.json", b'{"kind": "train"}', "got results of 'train'"),
    ("run.json", b"[1, 2]", "got a run.json that is not ours"),
    ("run.json", b"half a f", "got a run.json that is not ours"),
    ("run.json", b"\xff\xfe", "got a run.json that is not ours"),
    ("figure.png", b"a photograph", "got figure.png without a run.json of ours"),
    ("figure.svg", b"a drawing", "got figure.svg without"),
    ("dataset.zarr/0", b"my data", "got dataset.zarr without"),
    ("run.json/0", b"a folder", "got a run.json that is not ours"),
]


def everything(folder: Path) -> dict[Path, Any]:
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", COMMANDS)
def test_results_say_what_they_are_and_are_replaced_by_their_own_kind(run: Any, tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        code, out, err = run(*COMMANDS[kind], "--out", "here", "--json")
        assert code == 0, err
        assert json.loads(out)["kind"] == kind
        assert json.loads((tmp_path / "here" / "run.json").read_text(encoding="utf-8")) == json.loads(out)
    for other in COMMANDS.keys() - {kind}:
        before = everything(tmp_path)
        code, out, err = run(*COMMANDS[other], "--out", "here")
        assert code == 2
        assert f"here must be free, or hold results of '{other}' to be replaced (got results of '{kind}')" in err
        assert err.endswith(": choose another --out\n")
        assert err.count("\n") == 1
        assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize(("name", "content", "message"), FOREIGN, ids=[f"{name} {text!r}" for name, text, _ in FOREIGN])
def test_what_is_not_the_commands_own_is_left_alone(
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


def test_all_figures_look_before_the_first_is_made(run: Any, tmp_path: Path) -> None:
    place = tmp_path / "all" / "masks" / "run.json"
    place.parent.mkdir(parents=True)
    place.write_text("mine", encoding="utf-8")
    before = everything(tmp_path)
    code, _, err = run("figure", "--all", "--quick", "--out", "all")
    assert code == 2
    assert "all/masks must be free, or hold results of 'figure masks'" in err
    assert everything(tmp_path) == before


def test_kept_pieces_and_other_files_do_not_make_a_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / ".pieces-masks-0").mkdir()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with results(tmp_path, "figure masks") as folder:
        (folder / "run.json").write_text('{"kind": "figure masks"}', encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pieces-masks-0", "notes.txt", "run.json"]


def test_links_that_lead_nowhere_are_somebodys(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(InputError, match="must be free"), results(tmp_path / name, "compare"):
            pytest.fail("it is not free")


def test_a_folder_that_cannot_be_read_is_told() -> None:
    with pytest.raises(StorageError, match=r"cannot (read|write)"), results(Path("a" * 300), "compare"):
        pytest.fail("there is no such place")
