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
    - `summary`: one line for the help of the command.
    - `options`: of `hf.ShapedTransformerConfig`, besides width, depth and heads; default none.
    - `branches`: whether γ applies, default yes.
    - `groups`: whether learning rates follow `nn.parameter_groups`, default yes; otherwise all parameters share one.
    - `alpha`: exponent α of CompleteP, which sets initialisation, branches and rates; default `None`, not CompleteP.
    - `recovers`: whether the gains fall to 0 over the first half of training, default no.
    """

    title: str
    summary: str
    options: dict[str, Any] = field(default_factory=dict)
    branches: bool = True
    groups: bool = True
    alpha: float | None = None
    recovers: bool = False


GAINS = {
    "fixed": "gains stay fixed",
    "learn": "gains and slopes are trained",
    "recover": "gains fall to 0 by half-time",
}
"""What the shaping of a variant does to its gains."""


def _shaped(shaping: str, norm: str) -> Variant:
    title = f"shaped, {shaping}" + (", pre-norm" if norm == "pre" else ", no norm")
    summary = f"shaped, {'pre-norm' if norm == 'pre' else 'no norm'}; {GAINS[shaping]}"
    options = {"shaping": shaping, "norm": norm, "learnable_slopes": shaping == "learn"}
    return Variant(title, summary, options, recovers=shaping == "recover")


def _baseline(
    title: str, summary: str, options: dict[str, Any], *, groups: bool = False, alpha: float | None = None
) -> Variant:
    return Variant(title, summary, options, branches=False, groups=groups, alpha=alpha)


PLAIN = {"attention": "softmax", "activation": "relu", "gamma": 1.0}
GPT2 = PLAIN | {"skip": 1.0, "initializer_range": 0.02}
PRE_NORM = GPT2 | {"norm": "pre"}
VARIANTS = {
    "shaped-fixed": _shaped("fixed", "none"),
    "shaped-learn": _shaped("learn", "none"),
    "shaped-recover": _shaped("recover", "none"),
    "shaped-fixed-pre": _shaped("fixed", "pre"),
    "shaped-learn-pre": _shaped("learn", "pre"),
    "shaped-recover-pre": _shaped("recover", "pre"),
    "value-skipinit": Variant(
        "Value-SkipInit attention in the shaped block",
        "Value-SkipInit attention, shaped ReLU, no norm",
        {"attention": "skipinit", "learnable_slopes": True},
    ),
    "pre-norm": _baseline("pre-norm", "softmax attention, ReLU, norm before each branch", PRE_NORM),
    "pre-norm-groups": _baseline(
        "pre-norm, rates by group",
        "pre-norm with learning rates by group, as shaped ones have",
        PRE_NORM,
        groups=True,
    ),
    "pre-norm-completep": _baseline(
        "pre-norm, CompleteP", "pre-norm with CompleteP's initialisation and rates", PRE_NORM, alpha=1.0
    ),
    "pre-norm-sqrt": _baseline(
        "pre-norm, CompleteP's rules with α = ½",
        "pre-norm-completep with branches of strength 1/√depth",
        PRE_NORM,
        alpha=0.5,
    ),
    "post-norm": _baseline(
        "post-norm", "softmax attention, ReLU, norm after each residual layer", GPT2 | {"norm": "post"}
    ),
    "skipless": _baseline(
        "skipless, no norm", "softmax attention, ReLU, neither skips nor norm", PLAIN | {"skip": 0.0}
    ),
    "unit-skips": _baseline(
        "unit skips, no norm", "softmax attention, ReLU, unit skips, no norm", PLAIN | {"skip": 1.0}
    ),
    "unit-skips-small": _baseline(
        "unit skips, no norm, initialised as pre-norm", "unit-skips with the initialisation of pre-norm", GPT2
    ),
}
"""The variants by name. With `GPT2` weights have standard deviation 0.02, over √(2d) in the last map of each branch."""
