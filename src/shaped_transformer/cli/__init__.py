"""The command line: each command calls one public function, prints its result and writes it to a folder."""

import signal
import sys
from typing import Annotated, NoReturn

import typer

from ..errors import ShapedTransformerError
from ..version import __version__
from .advise import advise_command
from .compare import compare_command, predict_command
from .ending import exit_process
from .explore import explore_command
from .figure import figure_command
from .output import say
from .probe import probe_command
from .rehearse import rehearse_command
from .sweep import sweep_command
from .train import train_command

app = typer.Typer(
    name="shaped-transformer",
    help="See what a deep Transformer does to its tokens, at initialisation and in training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compare")(compare_command)
app.command("predict")(predict_command)
app.command("figure")(figure_command)
app.command("advise")(advise_command)
app.command("probe")(probe_command)
app.command("rehearse")(rehearse_command)
app.command("sweep")(sweep_command)
app.command("explore")(explore_command)
app.command("train")(train_command)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


INTERRUPTED = 130
"""Exit status after an interrupt."""
TERMINATED = 143
"""Exit status after SIGTERM."""


def main() -> None:
    """Run the command line. Bad input is one line on standard error and exit status 2; an interrupt is status 130."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # an exit removes temporary files
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        describe = getattr(error, "format_message", error.__str__)  # of a usage error, only this names the option
        _fail(describe(), 2)
    except ShapedTransformerError as error:
        _fail(str(error), 2)
    except MemoryError:
        _fail("not enough memory: choose a smaller width, batch or vocabulary, fewer tokens or fewer samples", 2)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # Typer turns an interrupt inside a command into this status
        _fail("interrupted; no file is half-written", INTERRUPTED)
    exit_process(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    """Print an error in one line, and exit."""
    if message:  # it is empty if the help was printed because no command was given
        say("shaped-transformer: " + " ".join(message.split()))
    exit_process(status)
