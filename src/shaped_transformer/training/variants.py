"""What can be trained: shaped Transformers and their baselines, each by one name.

All variants of one width and depth have matrices of the same shapes; they differ in attention, activation, residual
layers, norms, initialisation, and in whether one rate serves all parameters.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A network by name.

    **Arguments:** `title`: for readers; `options`: of `hf.ShapedTransformerConfig`, beside width, depth and heads;
    `branches`: whether γ applies; `groups`: whether rates go by `nn.parameter_groups`, else one rate is for all;
    `recovers`: whether the gains fall to 0 over the first half of training.
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
USUAL = PLAIN | {"skip": 1.0, "initializer_range": 0.02}
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
    "pre-norm": Variant("pre-norm", USUAL | {"norm": "pre"}, branches=False, groups=False),
    "pre-norm-groups": Variant("pre-norm, rates by group", USUAL | {"norm": "pre"}, branches=False),
    "post-norm": Variant("post-norm", USUAL | {"norm": "post"}, branches=False, groups=False),
    "skipless": Variant("skipless, no norm", PLAIN | {"skip": 0.0}, branches=False, groups=False),
    "unit-skips": Variant("unit skips, no norm", PLAIN | {"skip": 1.0}, branches=False, groups=False),
    "unit-skips-small": Variant("unit skips, no norm, initialised as pre-norm", USUAL, branches=False, groups=False),
}
"""By name. The usual initialisation is GPT-2's: standard deviation 0.02, the last map of each branch over √(2d)."""
