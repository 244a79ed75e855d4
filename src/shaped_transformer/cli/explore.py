"""`explore`: a page in the browser, on which designs are changed by sliders and seen at once."""

import webbrowser
from typing import Annotated

import typer

from .options import Json
from .output import Screen, say


def explore_command(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1. Default: 0, any free one.", show_default=False)] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Whether to open the page in the browser.")] = True,
    as_json: Json = False,
) -> None:
    """Explore designs in the browser: sliders on the left, verdict and pictures on the right, on this machine only.

    The command prints the address of the page; its random part keeps others out. Ctrl-C ends it.
    """
    from ..explore import start

    screen = Screen(as_json)
    server = start(port)
    screen.line(server.url)
    screen.json({"kind": "explore", "url": server.url})
    say("The page is served on this machine only. Ctrl-C ends it.")
    if open_:
        webbrowser.open(server.url)
    server.run()
