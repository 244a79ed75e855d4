"""The reference of the API: docstrings are Markdown, signatures are short, and names begin with `st.`.

A docstring has paragraphs, lists, ```python fences, code in single backticks, and sections such as `**Arguments:**`,
which hold a paragraph or a list. These become reStructuredText; nothing else of Markdown is needed.
"""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

PACKAGE = "shaped_transformer."
SECTION = re.compile(r"\*\*([A-Z][\w, ]*):?\*\*:? ?(.*)")
PAGE = re.compile(r"docs/(?P<page>[\w-]+)\.md|(?P<benchmarks>benchmarks/README\.md)|theory §[\dA-Z]+")
NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")

PLAIN = {
    "Array": "ndarray",
    "Covariance": "ndarray",
    "Floats": "ndarray",
    "Count": "int",
    "MaskLike": "str | ndarray",
    "Mask": "str | ndarray",
    "NDArray": "ndarray",
    "Number": "float",
    "PositiveFloat": "float",
    "PositiveInt": "int",
    "Window": "tuple[float, float]",
}
"""Types by the names that a reader knows."""

PREFIX = re.compile(r"\b(?!np\b|nn\b|torch\b|xarray\b|pandas\b|os\b)[a-z_]+\.(?=[A-Z])")
"""A module of this library before the name of a type."""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", convert_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_inherited)
    app.connect("doctree-read", name_as_imported)
    app.connect("missing-reference", find_object)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def convert_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into reStructuredText, in place."""
    lines[:] = converted(lines)


def converted(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText."""
    out: list[str] = []
    in_section = in_code = False
    for number, line in enumerate(lines):
        body = line.lstrip()
        if body.startswith("```"):
            in_code = not in_code
            out += ["", f".. code-block:: {body[3:] or 'text'}", ""] if in_code else [""]
            in_section = False
        elif in_code:
            out.append(f"   {line}".rstrip())
        elif match := SECTION.fullmatch(line):
            if not in_section:
                out.append("")
            out.append(f":{match[1]}: {inline(match[2])}".rstrip())
            in_section = True
        elif in_section:
            after_gap = number > 0 and not lines[number - 1].strip()
            if body and after_gap and not line.startswith((" ", "- ")):
                in_section = False
                out.append(inline(line))
            else:
                out.append(f"   {inline(line)}".rstrip())
        else:
            if line.startswith("- ") and out and out[-1].strip() and not out[-1].startswith(("- ", " ")):
                out.append("")
            out.append(inline(line))
    return [*out, ""]


def inline(line: str) -> str:
    """Return a line with its code and names marked up, and what reStructuredText would read as mark-up escaped."""
    parts = re.split(r"`([^`]+)`", line)
    out = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            text = re.sub(r"([\\|]|(?<!\*)\*(?!\*)|_(?!\w))", r"\\\1", part)
            out.append(PAGE.sub(_page, text))
            continue
        code = f":py:obj:`{part}`" if NAME.fullmatch(part) else f"``{part}``"
        before, after = parts[number - 1][-1:], parts[number + 1][:1]
        out.append(("\\ " if before.isalnum() else "") + code + ("\\ " if after.isalnum() else ""))
    return "".join(out)


def _page(match: re.Match[str]) -> str:
    """Return the link to a page that a docstring names, by its title."""
    if match["page"] or match["benchmarks"]:
        return f":doc:`/{match['page'] or 'benchmarks'}`"
    return f":doc:`{match[0]} </theory>`"


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    """Return a signature with types as they stand in the source; none for a class that the library fills itself."""
    if signature is None:
        return None
    if inspect.isclass(obj):
        text = inspect.getdoc(obj) or ""
        if "**Attributes:**" in text and "**Arguments:**" not in text:
            return "", ""
        if dataclasses.is_dataclass(obj):
            return fields_of(obj), ""
        builder = next((vars(c)["__init__"] for c in obj.__mro__ if "__init__" in vars(c)), None)
        arguments = arguments_of(builder) if ours(builder) else None
        return (arguments[0] if arguments else "", "")
    return arguments_of(obj) if ours(obj) else None


def skip_inherited(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the methods that another library gives to a class."""
    method = getattr(obj, "fget", None) or getattr(obj, "func", None) or getattr(obj, "__func__", obj)
    return None if ours(method) else True


def ours(obj: Any) -> bool:
    return str(getattr(obj, "__module__", "")).startswith(PACKAGE.rstrip("."))


def arguments_of(obj: Any) -> tuple[str, str] | None:
    """Return the arguments of a function and the type that it returns, from its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]
        parameters = list(inspect.signature(obj).parameters.values())
    except (OSError, SyntaxError, TypeError, ValueError):
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    given, names = tree.args, inspect.unwrap(obj).__globals__
    named = {a.arg: a.annotation for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]}
    for star in (given.vararg, given.kwarg):
        if star:
            named[star.arg] = star.annotation
    shown = [
        p.replace(
            annotation=_Text(type_text(note, names)) if (note := named.get(p.name)) else p.empty, default=_default(p)
        )
        for p in parameters
        if p.name in named and p.name != "self"
    ]
    return str(inspect.Signature(shown)), type_text(tree.returns, names) if tree.returns else ""


def fields_of(cls: type) -> str:
    """Return the arguments of a dataclass."""
    annotations: dict[str, ast.expr] = {}
    for base in reversed([c for c in cls.__mro__ if ours(c)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        annotations |= {
            n.target.id: n.annotation
            for n in tree.body
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
    shown = [
        p.replace(
            annotation=_Text(type_text(annotations[p.name], vars(sys.modules[cls.__module__]))), default=_default(p)
        )
        for p in inspect.signature(cls).parameters.values()
        if p.name in annotations
    ]
    return str(inspect.Signature(shown))


class _Text:
    """A text that is shown as it is in a signature."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _default(parameter: inspect.Parameter) -> Any:
    """Return a parameter's default as it is shown."""
    value = parameter.default
    if value is parameter.empty or value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple) and all(isinstance(x, int | float | str) for x in value):
        return _Text("(" + ", ".join(f"{x:g}" if isinstance(x, float) else repr(x) for x in value) + ")")
    return _Text("..." if repr(value).startswith("<") or len(repr(value)) > 40 else repr(value))


def type_text(annotation: ast.expr, names: dict[str, Any]) -> str:
    """Return a type as its source names it, without validators and modules of the library; `names`: its namespace."""
    text = ast.unparse(_Plain(names).visit(annotation))
    return PREFIX.sub("", text)


def alias_text(meant: Any) -> str:
    """Return what a name for several types or values stands for."""
    if isinstance(meant, list):
        return f"[{', '.join(map(alias_text, meant))}]"
    origin, parts = get_origin(meant), get_args(meant)
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin is Annotated:
        return alias_text(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(map(alias_text, parts))
    if origin is np.ndarray:
        return "ndarray"
    if parts:
        return f"{origin.__name__}[{', '.join(map(alias_text, parts))}]"
    return {None: "None", type(None): "None", ...: "..."}.get(meant) or str(meant.__name__)


class _Plain(ast.NodeTransformer):
    """Replaces types by those that a reader knows."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in PLAIN:
            return ast.parse(PLAIN[node.id], mode="eval").body
        meant = self.names.get(node.id)
        if node.id != "ArrayLike" and get_origin(meant) in (Annotated, Literal, Union, UnionType):
            return ast.parse(alias_text(meant), mode="eval").body
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self.visit_Name(ast.Name(node.attr)) if node.attr in PLAIN else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        head = ast.unparse(node.value)
        if head == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])
        if head == "NDArray":
            return ast.Name("ndarray")
        if head == "Literal":
            values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return ast.parse(" | ".join(map(ast.unparse, values)), mode="eval").body
        return self.generic_visit(node)


def name_as_imported(app: Sphinx, doctree: nodes.document) -> None:
    """Let the names of what is documented begin with `st.`, and arrays be arrays of any shape and type."""
    for annotation in doctree.findall(addnodes.desc_annotation):
        if annotation.astext().startswith(": ndarray["):
            annotation.clear()
            annotation += nodes.Text(": ndarray")
    for signature in doctree.findall(addnodes.desc_signature):
        full = f"{signature.get('module', '')}.{signature.get('fullname', '')}"
        inside = signature.parent.parent
        while inside is not None and not isinstance(inside, addnodes.desc):
            inside = inside.parent
        if inside is not None or not full.startswith(PACKAGE):
            continue
        prefix = "st." + full.removeprefix(PACKAGE).rpartition(".")[0]
        prefix = prefix if prefix.endswith(".") else prefix + "."
        for old in list(signature.findall(addnodes.desc_addname)):
            signature.remove(old)
        at = next(i for i, node in enumerate(signature) if isinstance(node, addnodes.desc_name))
        signature.insert(at, addnodes.desc_addname(prefix, prefix))


def find_object(app: Sphinx, env: Any, node: addnodes.pending_xref, content: Any) -> Any:
    """Return the link of a name that is short for one of the reference, such as `Ensemble` or `chain.sample`."""
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"]).removesuffix("()").removeprefix("st.").removeprefix(PACKAGE)
    known = env.domains["py"].objects
    here = f"{node.get('py:module') or 'shaped_transformer'}.{target}"
    found = [full for full in (here, PACKAGE + target) if full in known]
    if not found and ("." in target or target[:1].isupper()):
        found = [full for full in known if full.endswith(f".{target}")]
        found = found if len(found) == 1 else []
    if not found:
        return None
    entry = known[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])
