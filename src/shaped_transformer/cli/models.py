"""What commands that take a model have in common."""

import sys
from pathlib import Path
from typing import Annotated

import typer

TextFile = Annotated[
    Path | None,
    typer.Option("--text", help="Text file to read the tokens from. Default: a packaged text."),
]

InputWidth = Annotated[
    int | None,
    typer.Option(help="For a module that takes vectors: their number of coordinates. The vectors are standard normal."),
]

Layers = Annotated[
    list[str] | None,
    typer.Option(
        help='Layers to look at, as a glob of module names such as "encoder.layer.*"; may be repeated. '
        "Default: the blocks of the residual stream."
    ),
]

Approximate = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Replace weights that are not Gaussian, such as PyTorch's uniform default, by Gaussian ones of equal "
        "variance.",
    ),
]

Check = Annotated[
    bool, typer.Option("--check", help="Exit with status 1 if the verdict is bad, for continuous integration.")
]


def find_functions_here(model: str | None) -> None:
    """Let Python find modules of the current folder if a model is named as `package.module:function`.

    No code in this folder is run otherwise.

    **Arguments:**

    - `model`: as the user gave it.
    """
    from ..probe.loading import names_function

    if names_function(model) and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
