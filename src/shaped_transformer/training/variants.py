"""Variants: the shaped Transformers and baselines that can be trained, by name.

All variants of one width and depth have matrices of the same shapes; they differ in attention, activation, residual
layers, norms, initialisation, and in whether all parameters share one learning rate.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A kind of network and how its learning rates are set.

    **Arguments:**

    - `title`: for reports and plots.
    - `options`: of `hf.ShapedTransformerConfig`, besides width, depth and heads; default none.
    - `branches`: whether γ applies, default yes.
    - `groups`: whether learning rates follow `nn.parameter_groups`, default yes; otherwise all parameters share one.
    - `recovers`: whether the gains fall to 0 over the first half of training, default no.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    branches: bool = True
    groups: bool = True
    recovers: bool = False


def _shaped(shaping: str, norm: str) -> Variant:
    title = f"shaped, {shaping}" + (", pre-norm" if norm == "pre" else ", no norm")
    options = {"shaping": shaping, "norm": norm, "learnable_slopes": shaping == "learn"}
    return Variant(title, options, recovers=shaping == "recover")


PLAIN = {"attention": "softmax", "activation": "relu", "gamma": 1.0}
GPT2 = PLAIN | {"skip": 1.0, "initializer_range": 0.02}
VARIANTS = {
    "shaped-fixed": _shaped("fixed", "none"),
    "shaped-learn": _shaped("learn", "none"),
    "shaped-recover": _shaped("recover", "none"),
    "shaped-fixed-pre": _shaped("fixed", "pre"),
    "shaped-learn-pre": _shaped("learn", "pre"),
    "shaped-recover-pre": _shaped("recover", "pre"),
    "value-skipinit": Variant(
        "Value-SkipInit attention in the shaped block", {"attention": "skipinit", "learnable_slopes": True}
    ),
    "pre-norm": Variant("pre-norm", GPT2 | {"norm": "pre"}, branches=False, groups=False),
    "pre-norm-groups": Variant("pre-norm, rates by group", GPT2 | {"norm": "pre"}, branches=False),
    "post-norm": Variant("post-norm", GPT2 | {"norm": "post"}, branches=False, groups=False),
    "skipless": Variant("skipless, no norm", PLAIN | {"skip": 0.0}, branches=False, groups=False),
    "unit-skips": Variant("unit skips, no norm", PLAIN | {"skip": 1.0}, branches=False, groups=False),
    "unit-skips-small": Variant("unit skips, no norm, initialised as pre-norm", GPT2, branches=False, groups=False),
}
"""The variants by name. With `GPT2` weights have standard deviation 0.02, over √(2d) in the last map of each branch."""
