"""The documentation is whole: every public name and page has its place, and every link leads somewhere."""

import ast
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import command_reference
import pytest

import shaped_transformer as st

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = Path(st.__file__).parent
PARTS = {
    "": "__init__.py",
    "inputs": "inputs.py",
    "statistics": "statistics.py",
    **{f"{view}": f"views/{view}.py" for view in ("chain", "network", "sde")},
    **{part: f"{part}/__init__.py" for part in st.LAZY},
}
"""Public parts, and the files with their `__all__`."""
PAGES = sorted(DOCS.rglob("*.md"))
LINKED = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md")),
]
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.DOTALL | re.MULTILINE)


def pages_extension() -> ModuleType:
    spec = spec_from_file_location("pages", DOCS / "_ext" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names(file: Path) -> list[str]:
    """Return `__all__`, or the functions and classes without underscore where there is none; nothing is imported."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def documented() -> set[str]:
    """Return the names in docs/api, beginning with the package's."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    data = re.findall(r"^\.\. py:data:: (\w+)\n +:module: ([\w.]+)", text, flags=re.MULTILINE)
    return {
        *re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, flags=re.MULTILINE),
        *(f"{module}.{name}" for name, module in data),
    }


@pytest.mark.parametrize("part", [*PARTS, "nn.functional"])
def test_every_public_name_is_in_the_reference(part: str) -> None:
    file = PACKAGE / PARTS.get(part, f"{part.replace('.', '/')}.py")
    prefix = ".".join(filter(None, ("shaped_transformer", part)))
    names = {f"{prefix}.{name}" for name in public_names(file) if not name.startswith("__")}
    parts = {f"shaped_transformer.{name}" for name in [*PARTS, "nn.functional"]}
    assert len(names) > 0
    assert names - parts <= documented()


def test_every_page_is_in_the_navigation() -> None:
    shown = set()
    for first in ("index.md", "api/index.md"):
        page = DOCS / first
        extension = pages_extension()
        text = extension.rewrite_links(page.read_text(encoding="utf-8"), f"docs/{first}", f"docs/{first}")
        for name in re.findall(r"<([^>]+)>", extension.navigation(text)):
            assert (page.parent / f"{name}.md").exists(), f"{first}: {name}"
            shown.add(page.parent / f"{name}.md")
    assert set(PAGES) - shown == {DOCS / "index.md"}


def test_links_on_the_site_lead_to_pages_or_are_text() -> None:
    rewrite = pages_extension().rewrite_links
    text = "[a](../docs/nn.md#x), [b](../src/x.py), [c](https://c.org), [d](#d), ![e](../docs/e.png), [f](../README.md)"
    expected = "[a](nn.md#x), b, [c](https://c.org), [d](#d), ![e](e.png), [f](index.md)"
    assert rewrite(text, "benchmarks/README.md", "docs/benchmarks.md") == expected
    assert rewrite("[g](../benchmarks/README.md#g)", "docs/nn.md", "docs/nn.md") == "[g](benchmarks.md#g)"
    assert rewrite("```\n[b](../src/x.py)\n```", "docs/nn.md", "docs/nn.md") == "```\n[b](../src/x.py)\n```"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the repository's site and MyST make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,3} (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, count in found.items() for number in range(count + 1)}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_resolves(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_reference_of_commands_is_current() -> None:
    try:
        assert st.training
    except st.MissingExtra as error:
        pytest.skip(str(error))
    assert command_reference.main(["--check"]) == 0


def test_a_command_reference_that_is_out_of_date_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    assert command_reference.main(["--check"], tmp_path) == 1
    assert "run python tools/command_reference.py" in capsys.readouterr().err
    assert command_reference.main([], tmp_path) == 0
    assert command_reference.main(["--check"], tmp_path) == 0
    page = tmp_path / "docs" / "commands.md"
    page.write_text(page.read_text(encoding="utf-8").replace("Default: 4096", "Default: 4097"), encoding="utf-8")
    assert command_reference.main(["--check"], tmp_path) == 1
