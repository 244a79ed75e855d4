"""A recipe: everything that a training run is made of, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..design.definition import Count, Definition, PositiveFloat, PositiveInt, definition
from ..errors import DefinitionError, InputError, StorageError
from ..io.yaml import read_yaml
from .variants import VARIANTS

PACKAGED = Path(__file__).parent / "recipes"
"""Recipes that come with the library."""
LANGUAGE = ("causal-lm", "masked-lm", "classification")
"""Tasks that read text."""
IMAGE_SIZE = 28
"""Of the images that can be read, in pixels."""
ONLY = {"vocabulary": LANGUAGE, "tokens": LANGUAGE, "masking": ("masked-lm",), "patch": ("images",)}
"""Keys that only some tasks read."""
GAMMA_ROOT_DEPTH = 0.5
"""γ√d where a recipe is silent: it keeps γ²d, the strength of the noise, at a quarter for all depths."""


@definition
class Recipe(Definition):
    """What to train, on what, and how.

    **Arguments:**

    - `task`: `"causal-lm"`, `"masked-lm"`, `"classification"` (the era of a paragraph) or `"images"`.
    - `variant`: the network and how its rates are set, a name in `VARIANTS`. Default `"shaped-learn"`.
    - `data`: a folder to read instead of the packaged data; for the language models, any `.txt` files.
    - `vocabulary`: size of the byte-pair vocabulary, default 1,024: small, so that a short run learns something.
    - `tokens`: length of a sequence, default 64. `patch`: side of an image's patches in pixels, default 4.
    - `masking`: share of tokens to be guessed, masked LM only, default 0.3.
    - `width`, `depth`, `heads`, `hidden`: n, blocks d, H, and the MLP's width (default 4n). Default 64, 6, 4.
    - `gamma`: γ of the variants that have it, in (0, 1]; default 0.5/√d, so that γ²d is the same at all depths.
    - `tau0`: temperature constant of shaped attention, default 1.
    - `lr`: the one rate, see `nn.parameter_groups`; baselines without shaped initialisation use it for all parameters.
    - `steps`, `batch`: updates, and sequences in each over all processes. `warmup`: steps over which rates grow to
      their values, default 10; `schedule`: what follows, `"constant"` (default), `"linear"` or `"cosine"` to 0.
    - `weight_decay`: of AdamW, on matrices, default 0.01. `clip`: largest norm of the gradient, default 1.
    - `log`, `evaluate`, `save`, `watch`: every how many steps the loss is written, the held-out loss measured, the
      state saved, the covariance watched; all but `log` may be 0, never. Default 10, 50, 50, 50. The end is always
      evaluated, and watched where anything is.
    - `held_out`: how many held-out sequences are measured, default 256, or what there is; rounded to whole
      batches, so that several processes measure what one does.
    - `spike`: training stops when the loss exceeds this many times its first value, default 1.5; both are means over
      as many steps as 16 sequences take.
    - `seed`: of weights and data, default 0.

    **Raises:** `DefinitionError` naming the field that is wrong.
    """

    task: Literal["causal-lm", "masked-lm", "classification", "images"]
    variant: str = "shaped-learn"
    data: str | None = None
    vocabulary: PositiveInt = 1024
    tokens: Annotated[PositiveInt, Field(ge=2)] = 64
    patch: PositiveInt = 4
    masking: PositiveFloat = 0.3
    width: PositiveInt = 64
    depth: PositiveInt = 6
    heads: PositiveInt = 4
    hidden: PositiveInt | None = None
    gamma: PositiveFloat | None = None
    tau0: PositiveFloat = 1.0
    lr: PositiveFloat = 2e-3
    steps: PositiveInt = 200
    batch: PositiveInt = 16
    warmup: Count = 10
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: PositiveFloat = 1.0
    log: PositiveInt = 10
    evaluate: Count = 50
    save: Count = 50
    watch: Count = 50
    held_out: PositiveInt = 256
    spike: Annotated[float, Field(gt=1)] = 1.5
    seed: Count = 0

    @field_validator("variant")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in VARIANTS:
            raise ValueError(f"expected one of {', '.join(VARIANTS)} (got {name!r})")
        return name

    @model_validator(mode="after")
    def _fit_together(self) -> "Recipe":
        if self.width % self.heads or self.width // self.heads % 2:
            raise DefinitionError(
                f"heads: width / heads must be an even whole number (got {self.width} / {self.heads})"
            )
        if self.masking >= 1:
            raise DefinitionError(f"masking: a share below 1 is expected (got {self.masking:g})")
        if self.gamma is not None and not VARIANTS[self.variant].branches:
            raise DefinitionError(f"gamma: the variant {self.variant} has none, leave it out")
        if self.gamma is not None and self.gamma > 1:
            raise DefinitionError(f"gamma: a number in (0, 1] is expected (got {self.gamma:g})")
        if self.task == "images" and IMAGE_SIZE % self.patch:
            raise DefinitionError(f"patch: a divisor of {IMAGE_SIZE} is expected (got {self.patch})")
        smallest = 256 + 3  # bytes, and the special tokens
        if self.vocabulary < smallest and self.task != "images":
            raise DefinitionError(f"vocabulary: at least {smallest}, all bytes, is expected (got {self.vocabulary})")
        return self

    def used(self) -> dict[str, Any]:
        """Return what this run depends on, and was given or has a default, by key."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v for k, v in values.items() if v is not None and self.task in ONLY.get(k, (self.task,))}

    @property
    def branch_scale(self) -> float:
        """γ, given or by the rule."""
        return self.gamma or GAMMA_ROOT_DEPTH / self.depth**0.5


def read(name: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a YAML file.

    **Arguments:** `name`: a path, or the name of a packaged recipe, with or without `.yaml`; `changes`: values that
    replace the file's. A folder of `data` in the file is relative to the file, one in `changes` to the present folder.

    **Raises:** `StorageError` if there is no such file; `InputError` or `DefinitionError` naming the key that is wrong.
    """
    path = Path(name)
    if not path.is_file():
        found = [known for known in packaged() if str(name) in (known, known.removesuffix(".yaml"))]
        if not found:
            raise StorageError(f"no recipe {name}: give a YAML file, or one of {', '.join(packaged())}")
        path = PACKAGED / found[0]
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of keys to values (got {type(values).__name__})")
    known = [field.name for field in fields(Recipe)]
    if isinstance(values.get("data"), str):
        values["data"] = str(path.parent / values["data"])
    values = values | dict(changes or {})
    for key in values:
        if key not in known:
            raise InputError(f"a recipe has no key {key!r}: choose from {', '.join(known)}")
    return Recipe(**values)


def packaged() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.name for path in PACKAGED.glob("*.yaml"))
