"""The table of licences is what the installed packages state, and nothing that users install is under the GPL."""

import re
from importlib.metadata import version
from pathlib import Path

import licences
import pytest

ROOT = Path(__file__).parents[2]
TABLE = licences.table_in((ROOT / licences.PAGE).read_text(encoding="utf-8"))
ROWS = licences.rows()


def test_every_direct_dependency_has_a_row_that_names_who_needs_it() -> None:
    told = {name: row.split("|")[3].strip() for name, row in TABLE.items()}
    assert told == {name: ", ".join(extras) for name, extras in licences.requirements().items()}


@pytest.mark.parametrize("name", ROWS)
def test_the_licence_is_that_of_the_installed_package(name: str) -> None:
    pinned = re.findall(rf"^{name}==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if pinned != [version(name).partition("+")[0]]:
        pytest.skip("another version than that of the table")
    assert TABLE[name] == ROWS[name]


def test_nothing_that_users_install_is_under_the_gpl() -> None:
    found = {one.metadata["Name"]: licences.licence(one) for one in licences.needed_by_users()}
    assert len(found) > 12
    assert [name for name, stated in found.items() if re.search(r"GPL|General Public", stated)] == []


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(licences.PageError, match="needs a table"):
        licences.table_in("no table")
