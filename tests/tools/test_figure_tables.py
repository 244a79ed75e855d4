"""The tables of docs/figures.md are those of the reports, and a table that is not is found."""

import json
from pathlib import Path
from typing import Any

import figure_tables
import pytest

from shaped_transformer.figures import catalogue

ROOT = Path(__file__).parents[2]
PAGE = """# Figures

<!-- numbers: masks -->

<!-- end -->

Text between.

<!-- numbers: training -->

<!-- end -->

The end.
"""
TABLE = """<!-- numbers: masks -->

The command prints:

| number | value | 95 % interval |
| --- | --- | --- |
| median \\|ρ\\| | 0.123 | [-0.00282, 7.08e+15] |

<!-- end -->
"""


def report(name: str, value: float = 0.12345) -> dict[str, Any]:
    number = {"name": "median |ρ|", "value": value, "low": -0.00282, "high": 7.0812e15}
    command = f"python -m shaped_transformer figure --all --out /elsewhere/{name}"
    return {"figure": name, "command": command, "settings": {}, "numbers": [number]}


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two figures, with empty tables."""
    write(tmp_path / "docs" / "results" / "figures" / "masks.json", report("masks"))
    write(tmp_path / "docs" / "results" / "training" / "run.json", report("training"))
    (tmp_path / "docs" / "figures.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def page(root: Path) -> str:
    return (root / "docs" / "figures.md").read_text(encoding="utf-8")


def test_the_page_of_the_repository_is_up_to_date() -> None:
    assert figure_tables.main(["--check"]) == 0


@pytest.mark.parametrize("name", [name for name in catalogue.FIGURES if name not in figure_tables.LONG_RUNS])
def test_the_reports_of_the_repository_are_of_full_runs(name: str) -> None:
    kept = figure_tables.load_reports(ROOT)[name]
    assert kept["settings"] == json.loads(json.dumps(catalogue.settings(name, quick=False)))
    assert kept["command"] == f"shaped-transformer figure {name}"
    assert kept["seconds"] > 0
    assert kept["version"]


def test_every_figure_has_a_report() -> None:
    assert figure_tables.load_reports(ROOT).keys() == set(catalogue.FIGURES)


def test_a_table_holds_the_numbers_with_three_digits_and_escaped_pipes(root: Path) -> None:
    assert figure_tables.main([], root) == 0
    assert TABLE in page(root)


def test_text_outside_the_markers_stays(root: Path) -> None:
    figure_tables.main([], root)
    assert page(root).startswith("# Figures\n\n<!-- numbers: masks -->\n")
    assert "<!-- end -->\n\nText between.\n\n<!-- numbers: training -->\n" in page(root)
    assert page(root).endswith("<!-- end -->\n\nThe end.\n")


def test_training_names_its_intervals(root: Path) -> None:
    figure_tables.main([], root)
    assert "| number | value | range over seeds |" in page(root)


def test_a_written_page_passes_the_check_and_is_not_changed_again(root: Path) -> None:
    figure_tables.main([], root)
    written = page(root)
    assert figure_tables.main(["--check"], root) == 0
    assert figure_tables.main([], root) == 0
    assert page(root) == written


def test_a_changed_number_fails_the_check(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure_tables.main([], root)
    written = page(root)
    write(root / "docs" / "results" / "figures" / "masks.json", report("masks", value=0.125))
    assert figure_tables.main(["--check"], root) == 1
    assert "run python tools/figure_tables.py" in capsys.readouterr().err
    assert page(root) == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<!-- numbers: masks -->", ""), "expected the lines '<!-- numbers: masks -->' and '<!-- end -->' once"),
        (("Text between.", "<!-- numbers: masks -->\n\n<!-- end -->"), "the first is there 2 times"),
        (("<!-- end -->\n\nText", "Text"), "expected a line '<!-- end -->' after '<!-- numbers: masks -->'"),
        (("Text between.", "<!-- numbers: density -->\n\n<!-- end -->"), "no report of 'density'"),
    ],
)
def test_wrong_markers_are_one_clear_line(
    root: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    changed = PAGE.replace(*change)
    (root / "docs" / "figures.md").write_text(changed, encoding="utf-8")
    assert figure_tables.main([], root) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert page(root) == changed


@pytest.mark.parametrize("content", ["", "[]", '{"figure": "masks"}'])
def test_a_damaged_report_is_one_clear_line(root: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (root / "docs" / "results" / "figures" / "masks.json").write_text(content, encoding="utf-8")
    assert figure_tables.main(["--check"], root) == 2
    error = capsys.readouterr().err
    assert "masks.json: expected the report of a figure" in error
    assert error.count("\n") == 1


def test_new_runs_are_kept_with_the_command_of_the_figure_alone(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "runs" / "masks" / "run.json", report("masks", value=0.5))
    assert figure_tables.main(["--from", str(tmp_path / "runs")], root) == 0
    kept = json.loads((root / "docs" / "results" / "figures" / "masks.json").read_text(encoding="utf-8"))
    assert kept == report("masks", value=0.5) | {"command": "shaped-transformer figure masks"}
    assert "| 0.5 |" in page(root)


def test_a_folder_without_runs_is_one_clear_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figure_tables.main(["--from", str(root / "nowhere")], root) == 2
    assert "expected FIGURE/run.json" in capsys.readouterr().err


def test_check_and_from_exclude_each_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        figure_tables.main(["--check", "--from", str(root)], root)
    assert "--check changes nothing" in capsys.readouterr().err
