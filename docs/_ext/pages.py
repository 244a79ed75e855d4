"""Pages of the site: those that are files outside docs/, links to files outside it, and the navigation.

Pages are plain Markdown, so that they can be read in the repository too. Links between all pages work on the site as
they do there; a link to a file that is not a page, such as one of the sources, becomes plain text. The navigation has
the links of `docs/index.md` under "All pages", and those of the table in `docs/api/index.md`.
"""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "benchmarks/README.md": "docs/benchmarks.md",
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "SECURITY.md": "docs/reporting.md",
}
"""Files outside docs/ that the site shows, and the pages that stand for them."""
SHOWN = {**ELSEWHERE, "README.md": "docs/index.md"}
"""Where links to files outside docs/ lead."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.DOTALL | re.MULTILINE)


def setup(app: "Sphinx") -> dict[str, bool]:
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_page(app: "Sphinx", docname: str, content: list[str]) -> None:
    """Replace a page by the file that it stands for, rewrite its links, and append the navigation."""
    page = f"docs/{docname}.md"
    source = next((file for file, shown in ELSEWHERE.items() if shown == page), page)
    if source != page:
        content[0] = (ROOT / source).read_text(encoding="utf-8")
        app.env.note_dependency(str(ROOT / source))
    content[0] = rewrite_links(content[0], source, page)
    if docname in ("index", "api/index"):
        content[0] += navigation(content[0])


def rewrite_links(text: str, source: str, page: str) -> str:
    """Return a file's text with its links as they are on the site.

    **Arguments:**

    - `text`: Markdown.
    - `source`: the file, relative to the repository.
    - `page`: the page in docs/ that shows it, likewise.
    """
    out, start = [], 0
    for fence in FENCE.finditer(text):
        out += [LINK.sub(lambda m: _link(m, source, page), text[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*out, LINK.sub(lambda m: _link(m, source, page), text[start:])])


def _link(match: re.Match[str], source: str, page: str) -> str:
    image, text, target = match.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return match[0]
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    file = SHOWN.get(file, file)
    if not file.startswith("docs/") or not (image or file.endswith(".md")):
        return str(text)
    there = posixpath.relpath(file, posixpath.dirname(page))
    return f"{image}[{text}]({there}{'#' + anchor if anchor else ''})"


def navigation(text: str) -> str:
    """Return the hidden tables of contents that a page's lists or table of pages stand for."""
    _, _, pages = text.rpartition("\n## All pages\n")
    out = ""
    for part in re.split(r"^### ", "\n" + pages, flags=re.MULTILINE):
        caption = part.partition("\n")[0]
        entries = re.findall(r"^(?:- |\| )\[([^\]]+)\]\(([^)]+)\.md\)", part, flags=re.MULTILINE)
        if entries:
            options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
            lines = [*options, "", *(f"{title} <{page}>" for title, page in entries)]
            out += "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"
    return out
