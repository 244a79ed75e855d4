"""Which modules of a model are observed: its residual stream, or what the user names."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ..errors import InputError


def find_blocks(model: nn.Module, layers: str | Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the modules whose outputs are the layers of the stream, by name, in the model's order.

    **Arguments:**

    - `model`: any module.
    - `layers`: a glob such as `"encoder.layer.*"`, matched with names of modules part by part, or several of them;
      default the blocks of the outermost lists of modules (`torch.nn.ModuleList`) whose entries are of one class.

    **Raises:** `InputError` where nothing is found.
    """
    if layers is None:
        found = _stacks(model)
        if not found:
            raise InputError(
                "no list of blocks was found in the model: name the modules whose outputs are its layers, such as "
                f'layers="encoder.layer.*"; the modules are {_some(model)}'
            )
        return found
    globs = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, (list, tuple, set)) else []
    if not globs or not all(isinstance(glob, str) for glob in globs):
        raise InputError(
            f'layers must be a glob of names such as "encoder.layer.*", or a list of them (got {layers!r})'
        )
    found = {name: one for name, one in model.named_modules() if name and any(matches(name, glob) for glob in globs)}
    if not found:
        raise InputError(f"no module is named {' or '.join(map(repr, globs))}: the modules are {_some(model)}")
    return found


def matches(name: str, glob: str) -> bool:
    """Whether a dotted name matches a glob; `*` matches within one part of the name."""
    parts, wanted = name.split("."), glob.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _stacks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the entries of the outermost lists of modules of one class, of those with most parameters by far."""
    lists = {
        name: one
        for name, one in model.named_modules()
        if isinstance(one, nn.ModuleList) and len(one) and len({type(entry) for entry in one}) == 1
    }
    outer = {
        name: one
        for name, one in lists.items()
        if not any(name.startswith(other + ".") for other in lists if other != name)
    }
    sizes = {name: sum(p.numel() for p in one.parameters()) for name, one in outer.items()}
    least = 0.05 * max(sizes.values(), default=0)
    entries = {f"{name}.{i}": one for name, of in outer.items() if sizes[name] >= least for i, one in enumerate(of)}
    firsts = {id(one): name for name, one in reversed(entries.items())}  # of a block that is several times in a list
    return {name: one for name, one in entries.items() if firsts[id(one)] == name}


def _some(model: nn.Module, count: int = 12) -> str:
    """Return the first names of modules, with * for numbers, for a message."""
    names = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name, _ in model.named_modules() if name))
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
