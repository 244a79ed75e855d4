"""Write docs/commands.md, the reference of the command line, from the commands' own help.

python tools/command_reference.py          rewrites the page (then `make wrap` wraps it)
python tools/command_reference.py --check  exits with status 1 if the page differs from the help

It needs the extra `training`, whose recipes are in the help of `train`.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import typer

from shaped_transformer.cli import app
from shaped_transformer.cli.options import Design, Input, StableIf

PAGE = Path("docs/commands.md")
INTRODUCTION = """# Commands

<!-- Written by tools/command_reference.py from the commands' own help: change it there. -->

`shaped-transformer COMMAND --help` prints what is below; `shaped-transformer --version` prints the version.

Tables and verdicts go to standard output, progress and notices to standard error. With `--json`, standard output holds
one JSON object and nothing else. Results go to the folder `--out`: pictures, datasets and `run.json`, which holds the
settings, the seed, the version and the command. Bad input is one line on standard error that says what is wrong and
what to do, with exit status 2. An interrupt is status 130; it leaves no file half-written.
"""
GUIDES = {
    "compare": "[Compare and predict](compare.md)",
    "predict": "[Compare and predict](compare.md)",
    "figure": "[Figures](figures.md)",
    "advise": "[Choosing γ and τ0](choosing.md)",
    "probe": "[Probe](probe.md)",
    "rehearse": "[Rehearse](rehearse.md)",
    "sweep": "[Sweeps](sweep.md)",
    "explore": "[Explorer](explore.md)",
    "train": "[Training](training.md)",
}
"""The guide of each command."""
SHARED: dict[type, tuple[str, str]] = {
    Design: (
        "Options of a network",
        "A preset with its parameters, or a file. An option that is left out has its default.",
    ),
    Input: ("Options of an input", "The covariance of the tokens before the first layer, from at most one source."),
    StableIf: ("Options of stability", "What counts as stable."),
}
"""Groups of options that several commands take: title and introduction."""
TYPES = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """Run the command on the repository at `root` and return its exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if the page is out of date")
    options = parser.parse_args(arguments)
    written, page = reference(), root / PAGE
    if page.exists() and written.split() == page.read_text(encoding="utf-8").split():
        return 0
    if options.check:
        sys.stderr.write(f"{PAGE} differs from the help: run python tools/command_reference.py and make wrap\n")
        return 1
    page.write_text(written, encoding="utf-8")
    return 0


def reference() -> str:
    """Return the page; paragraphs are single lines."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shared: dict[type, Any] = {}
    parts = [INTRODUCTION]
    for name, command in commands.items():
        groups = groups_of(command.callback)
        own = {field.name for group in groups for field in fields(group)}
        for group in groups:
            names = {field.name for field in fields(group)}
            shared.setdefault(group, [p for p in command.params if p.name in names])
        parts.append(section(name, command, groups, [p for p in command.params if p.name not in own]))
    parts.append("## Shared options\n")
    for group, parameters in shared.items():
        title, text = SHARED[group]
        parts += [f"### {title}\n\n{text}\n", table(parameters)]
    return "\n".join(parts)


def groups_of(callback: Any) -> list[type]:
    """Return the groups of options that a command takes."""
    hints = get_type_hints(inspect.unwrap(callback))
    return [hint for hint in hints.values() if isinstance(hint, type) and is_dataclass(hint)]


def section(name: str, command: Any, groups: list[type], parameters: list[Any]) -> str:
    """Return the section of a command: its help, how it is called, its guide and its options."""
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    words = [argument_word(p) for p in arguments]
    paragraphs = [paragraph(text) for text in (command.help or "").strip().split("\n\n")]
    call = " ".join(["shaped-transformer", name, *words, "[OPTIONS]"])
    links = [f"[{SHARED[g][0].lower()}](#{SHARED[g][0].lower().replace(' ', '-')})" for g in groups]
    takes = f" It takes the {', '.join(links[:-1])} and {links[-1]}, and these:" if links else ""
    lines = [f"## {name}", paragraphs[0], f"```\n{call}\n```", *paragraphs[1:], f"Guide: {GUIDES[name]}.{takes}"]
    return "\n\n".join(lines) + "\n\n" + table(parameters)


def argument_word(parameter: Any) -> str:
    """Return an argument as it stands in a call."""
    return parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"


def paragraph(text: str) -> str:
    """Return a paragraph of the help as Markdown; one with aligned lines becomes a block."""
    if text.startswith("\b\n"):
        title, *rows = text.removeprefix("\b\n").splitlines()
        return f"{marked(title)}\n\n```text\n" + "\n".join(rows) + "\n```"
    return marked(" ".join(text.split()))


def table(parameters: Iterable[Any]) -> str:
    """Return the table of arguments and options."""
    rows = [f"| {names_of(p)} | {meaning(p)} |" for p in parameters]
    return "\n".join(["| option | meaning |", "| --- | --- |", *rows]) + "\n"


def names_of(parameter: Any) -> str:
    """Return an argument or an option as the user types it, with the type of its value."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    if parameter.type_descriptor.annotation is bool:
        return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    word = "TEXT" if parameter.multiple else TYPES[parameter.type_descriptor.annotation]
    return f"`{parameter.opts[0]} {'KEY=VALUE' if parameter.opts[0] == '--set' else word}`"


def meaning(parameter: Any) -> str:
    """Return the help of an argument or an option, with its default."""
    text = marked(parameter.help or "")
    if "Default" in text or parameter.default is None or parameter.required or not parameter.show_default:
        return text
    if parameter.type_descriptor.annotation is bool:
        return f"{text} Default: `{parameter.opts[0]}`." if parameter.secondary_opts else text
    return f"{text} Default: {parameter.default}."


def marked(text: str) -> str:
    """Return a sentence of the help with options as code, and what Markdown would read as mark-up escaped."""
    text = re.sub(r"([|*<])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*(?: [a-z]+=[A-Z]+|[ =][A-Z]+=?[A-Z]*\b)?", lambda m: f"`{m[0]}`", text)


if __name__ == "__main__":
    sys.exit(main())
