"""What commands that take a model have in common."""

import sys
from pathlib import Path


def find_functions_here(model: str | None) -> None:
    """Let Python find modules of the current folder if a model is named as `package.module:function`.

    No code in this folder is run otherwise.

    **Arguments:**

    - `model`: as the user gave it.
    """
    from ..probe.loading import names_function

    if names_function(model) and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
