"""Arguments of the wrong kind: the messages of the public functions and modules."""

from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn
from shaped_transformer.design import layers
from shaped_transformer.design.definition import definition

WRONG: Any = 3


@definition
class Identity(layers.Branch):
    """A branch of a user's own, Z = X, without a module."""

    def limit_obstacle(self) -> str | None:
        return "it is only used in a test"

    def network(self, x: Any, draws: Any) -> Any:
        return x

    def chain_factor(self, factor: Any, n: int, draws: Any) -> Any:
        return factor


def test_a_branch_without_a_module_is_refused() -> None:
    own = st.Architecture(width=16, depth=1, block=(st.Residual(Identity(), scale=0.5),))
    with pytest.raises(st.InputError, match="no module is known for a branch of kind Identity: register one"):
        nn.from_architecture(own)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.advance(WRONG), r"model must be an nn\.Module \(got int\)"),
        (lambda: nn.parameter_groups(WRONG, 1e-3), r"model must be an nn\.Module \(got int\): give the model itself"),
        (lambda: nn.Cache(0), "depth must be a whole number of at least 1"),
        (lambda: nn.Cache(cast(Any, "2")), r"depth must be a whole number of at least 1 \(got '2'\)"),
        (
            lambda: nn.ShapedTransformer(32, cast(Any, 2.0)),
            r"depth must be a whole number of at least 1 \(got 2\.0\)",
        ),
        (lambda: nn.ShapedTransformer(cast(Any, "32"), 2), "width must be a whole number of at least 1"),
        (lambda: nn.ShapedTransformer(32, 2, cast(Any, 2.0)), "heads must be a whole number of at least 1"),
        (lambda: nn.ShapedAttention(32, 0), "heads must be a whole number of at least 1"),
        (lambda: nn.ShapedAttention(32, 4, kv_heads=0), "kv_heads must be a whole number of at least 1"),
        (lambda: nn.ShapedMLP(32, 0), "hidden_width must be a whole number of at least 1"),
        (lambda: nn.ShapedReLU(0), "width must be a whole number of at least 1"),
        (lambda: nn.Residual(torch.nn.Identity(), 1.5), r"scale must lie in \(0, 1\] unless skip is given"),
        (lambda: nn.ShapedTransformer(32, 1)(WRONG), r"x must be a tensor \(batch, tokens, 32\) \(got int\)"),
        (lambda: nn.functional.shaped_attention(WRONG, WRONG, WRONG, scale=1.0), "must be tensors"),
        (lambda: nn.functional.shaped_attention_weights(WRONG, WRONG, scale=1.0), "must be tensors"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(call: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        call()


@pytest.mark.parametrize(("cache", "got"), [(nn.Cache(1), "one of depth 1"), ({}, "dict")])
def test_a_cache_of_another_model_is_refused(cache: Any, got: str) -> None:
    model = nn.ShapedTransformer(32, 2, causal=True)
    with pytest.raises(
        st.InputError, match=rf"cache must be st\.nn\.Cache\(2\), one layer for each block \(got {got}\)"
    ):
        model(torch.zeros(1, 3, 32), cache=cache)
