"""A recipe: all settings of a training run, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..design.architecture import default_gamma
from ..design.definition import Count, Definition, PositiveFloat, PositiveInt, definition
from ..errors import DefinitionError, InputError, StorageError
from ..io.yaml import read_yaml
from .variants import VARIANTS

RECIPES_FOLDER = Path(__file__).parent / "recipes"
"""The recipes that come with the library."""
LANGUAGE = ("causal-lm", "masked-lm", "classification")
"""The tasks that read text."""
IMAGE_SIZE = 28
"""Side of the images that can be read, in pixels."""
FOLDERS = ("data", "initial")
"""The keys that name a folder, which may move: what it holds counts."""
TASKS_OF_KEY = {"vocabulary": LANGUAGE, "tokens": LANGUAGE, "masking": ("masked-lm",), "patch": ("images",)}
"""The keys that only some tasks read, and these tasks."""


@definition
class Recipe(Definition):
    """All settings of a training run.

    ```python
    recipe = st.training.Recipe(task="causal-lm", depth=12, steps=1000)
    recipe.branch_scale  # γ = 0.5/√12 = 0.144
    ```

    **Arguments:**

    - `task`: `"causal-lm"`, `"masked-lm"`, `"classification"` (the era of a paragraph) or `"images"`.
    - `variant`: the network and how its learning rates are set, a name in `VARIANTS`. Default `"shaped-learn"`.
    - `data`: a folder to read: `.txt` files, or images as MNIST stores them. Default `None`, the packaged data.
    - `initial`: folder of a saved model whose weights training starts from: that of a run, or one that
      `save_pretrained` wrote. Its sizes must be those of the recipe, and its tokenizer is used. Default `None`, new
      random weights.
    - `vocabulary`: size of the byte-pair vocabulary, default 1,024: small, so that a short run learns something.
    - `tokens`: length of a sequence, default 64.
    - `patch`: side of an image's patches in pixels, default 4.
    - `masking`: share of the tokens to predict, for masked language models, default 0.3.
    - `width`: n, default 64.
    - `depth`: number of blocks d, default 6.
    - `heads`: H, default 4; n/H must be even, for rotary positions.
    - `hidden`: width of the MLP, default 4n.
    - `gamma`: γ of the variants that have it, in (0, 1]; default 0.5/√d, so that γ²d is the same at all depths.
    - `tau0`: temperature constant of shaped attention, default 1.
    - `lr`: the learning rate, which `nn.parameter_groups` turns into one per group; baselines without shaped
      initialisation use it for all parameters. Default 0.002.
    - `steps`: number of updates, default 200.
    - `batch`: sequences in each update, over all processes, default 16.
    - `warmup`: steps over which the learning rates grow to their values, default 10.
    - `schedule`: the learning rates after the warmup: `"constant"` (default), or `"linear"` or `"cosine"` to 0.
    - `weight_decay`: of AdamW, on matrices, default 0.01.
    - `clip`: largest norm of the gradient, default 1.
    - `log`: steps between two losses in `metrics.jsonl`, default 10.
    - `evaluate`: steps between two evaluations, default 50; 0 evaluates only at the end.
    - `save`: steps between two checkpoints, default 50; 0 saves none.
    - `watch`: steps between two records of each block's covariance, default 50; 0 records none. Otherwise the last
      step is recorded too.
    - `held_out`: number of held-out sequences, default 256, or all if there are fewer; rounded to whole batches, so
      that several processes measure what one does.
    - `validation`: number of sequences of a third split, of language models; rounded as `held_out` is. Their loss is
      measured once, at the end: choose settings by it, and report the held-out loss. Documents whose year ends in 5 are
      set apart for it, and not trained on. Default 0: no such split.
    - `spike`: training stops when the loss exceeds this many times its first value, default 1.5. Both are means over
      the steps that 16 sequences take.
    - `seed`: of weights and data, default 0.

    **Raises:** `DefinitionError` naming the field that is wrong.
    """

    task: Literal["causal-lm", "masked-lm", "classification", "images"]
    variant: str = "shaped-learn"
    data: str | None = None
    initial: str | None = None
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
    validation: Count = 0
    spike: Annotated[float, Field(gt=1)] = 1.5
    seed: Count = 0

    @field_validator("variant")
    @classmethod
    def _check_variant(cls, name: str) -> str:
        if name not in VARIANTS:
            raise ValueError(f"expected one of {', '.join(VARIANTS)} (got {name!r})")
        return name

    @model_validator(mode="after")
    def _check_combinations(self) -> "Recipe":
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
        if self.validation and self.task not in ("causal-lm", "masked-lm"):
            raise DefinitionError("validation: only language models have this split, leave it out")
        smallest = 256 + 3  # all bytes, and the special tokens
        if self.vocabulary < smallest and self.task != "images":
            raise DefinitionError(f"vocabulary: at least {smallest}, all bytes, is expected (got {self.vocabulary})")
        return self

    def used(self) -> dict[str, Any]:
        """Return the values that this task uses, by key; keys without a value are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v for k, v in values.items() if v is not None and self.task in TASKS_OF_KEY.get(k, (self.task,))}

    @property
    def branch_scale(self) -> float:
        """γ, or its default 0.5/√d."""
        return self.gamma or default_gamma(self.depth)


def read(name: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a YAML file.

    ```python
    recipe = st.training.read("quick.yaml", {"steps": 100})
    ```

    **Arguments:**

    - `name`: a path, or the name of a packaged recipe, with or without `.yaml`.
    - `changes`: values that replace those of the file; default none. The folders `data` and `initial` are relative to
      the file if the file names them, and to the current folder if `changes` does.

    **Returns:** the recipe.

    **Raises:** `StorageError` if there is no such file; `InputError` or `DefinitionError` naming the key that is wrong.
    """
    path = Path(name)
    if not path.is_file():
        found = [known for known in packaged_recipes() if str(name) in (known, known.removesuffix(".yaml"))]
        if not found:
            raise StorageError(f"unknown recipe {name}: give a YAML file, or one of {', '.join(packaged_recipes())}")
        path = RECIPES_FOLDER / found[0]
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of keys to values (got {type(values).__name__})")
    known = [field.name for field in fields(Recipe)]
    for key in FOLDERS:
        if isinstance(values.get(key), str):
            values[key] = str(path.parent / values[key])
    values = values | dict(changes or {})
    for key in values:
        if key not in known:
            raise InputError(f"a recipe has no key {key!r}: choose from {', '.join(known)}")
    return Recipe(**values)


def packaged_recipes() -> list[str]:
    """Return the names of the recipes that come with the library."""
    return sorted(path.name for path in RECIPES_FOLDER.glob("*.yaml"))


def describe_recipes() -> dict[str, str]:
    """Return one line about each recipe that comes with the library: the comment in its first line."""
    texts = {name: (RECIPES_FOLDER / name).read_text(encoding="utf-8") for name in packaged_recipes()}
    return {name: text.partition("\n")[0].removeprefix("# ") for name, text in texts.items()}
