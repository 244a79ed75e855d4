"""Decoding with a cache equals one pass over all tokens, with every mask, and padding changes nothing."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn

TOKENS, PADDING = 9, (0, 3)
KINDS = ("shaped", "softmax", "skipinit")
PIECES = ((9,), (4, 2, 1, 1, 1), (1,) * 9, (2, 7))


def model(attention: str = "shaped", **options: Any) -> Any:
    torch.manual_seed(0)
    made = nn.ShapedTransformer(32, 3, 4, causal=True, attention=attention, **options).eval()
    for name, parameter in made.named_parameters():
        if "softmax_gain" in name:  # at its initial value 0 masks have no effect
            torch.nn.init.constant_(parameter, 0.7)
    return made


def tokens() -> Any:
    return torch.randn(2, TOKENS, 32, generator=torch.Generator().manual_seed(1))


def positions() -> Any:
    """Return positions counted from each row's first token."""
    return (torch.arange(TOKENS) - torch.tensor(PADDING)[:, None]).clamp(min=0)


def padding(kind: str = "boolean") -> Any:
    """Return the mask by which the second row is padded on the left."""
    allowed = (torch.arange(TOKENS) >= torch.tensor(PADDING)[:, None])[:, None, None]
    least = {"least": torch.finfo(torch.float32).min, "additive": -torch.inf}
    return allowed if kind == "boolean" else torch.zeros(allowed.shape).masked_fill(~allowed, least[kind])


def decode(one: Any, x: Any, pieces: tuple[int, ...], mask: Any, positions: Any = None) -> Any:
    """Return a model's output for pieces of these sizes, one after another, with a cache."""
    cache, out, start = nn.Cache(len(one.blocks)), [], 0
    with torch.no_grad():
        for size in pieces:
            end = start + size
            rows = mask if mask is None or mask.shape[-1] == 1 else mask[..., :end]
            rows = rows if rows is None or rows.shape[-2] == 1 else rows[..., start:end, :]
            own = None if positions is None else positions[:, start:end]
            out.append(one(x[:, start:end], attn_mask=rows, positions=own, cache=cache))
            start = end
    return torch.cat(out, 1)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("mask", ["boolean", "additive", "least"])
@pytest.mark.parametrize("pieces", PIECES)
def test_decoding_with_padding_equals_one_pass(attention: str, mask: str, pieces: tuple[int, ...]) -> None:
    one, x = model(attention, rotary=True, kv_heads=2), tokens()
    with torch.no_grad():
        whole = one(x, attn_mask=padding(mask), positions=positions())
    found = decode(one, x, pieces, padding(mask), positions())
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("mask", ["boolean", "additive", "least"])
@pytest.mark.parametrize("pieces", PIECES)
def test_a_padded_row_is_decoded_like_the_same_row_alone(attention: str, mask: str, pieces: tuple[int, ...]) -> None:
    one, x = model(attention, rotary=True, kv_heads=2), tokens()
    with torch.no_grad():
        alone = one(x[1:, PADDING[1] :])
    found = decode(one, x, pieces, padding(mask), positions())
    torch.testing.assert_close(found[1:, PADDING[1] :], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", KINDS)
def test_an_additive_mask_changes_the_scores_with_a_cache(attention: str) -> None:
    one, x = model(attention, rotary=True), tokens()
    terms = torch.randn(1, 4, TOKENS, TOKENS, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = one(x, attn_mask=terms)
        assert (whole - one(x)).abs().max() > 1e-3
    torch.testing.assert_close(decode(one, x, (4, 2, 1, 1, 1), terms), whole, atol=1e-5, rtol=1e-5)


@pytest.fixture(params=[nn.ShapedAttention, nn.SoftmaxAttention])
def make(request: pytest.FixtureRequest) -> Any:
    """Return a class of attention."""
    return request.param


@pytest.fixture(params=[False, True], ids=["full", "causal"])
def masked(make: Any, request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """Return an attention layer with a mask of its own, the same layer without one, and the mask.

    Each token may attend to itself and some earlier tokens.
    """
    torch.manual_seed(0)
    mask = (torch.rand(TOKENS, TOKENS) < 0.5).tril() | torch.eye(TOKENS, dtype=torch.bool)
    layer, plain = (make(32, 4, causal=own is not None and request.param, mask=own).eval() for own in (mask, None))
    plain.load_state_dict(layer.state_dict())
    return layer, plain, mask


def test_the_modules_own_mask_works_as_an_argument_does(masked: tuple[Any, Any, Any]) -> None:
    layer, plain, mask = masked
    torch.testing.assert_close(layer(tokens()), plain(tokens(), attn_mask=mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["boolean", "additive", "least"])
def test_the_modules_own_mask_is_combined_with_another(masked: tuple[Any, Any, Any], kind: str) -> None:
    layer, plain, mask = masked
    whole = layer(tokens(), attn_mask=padding(kind))
    torch.testing.assert_close(whole, plain(tokens(), attn_mask=padding() & mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["boolean", "additive", "least"])
def test_decoding_takes_the_rows_of_the_modules_own_mask(masked: tuple[Any, Any, Any], kind: str) -> None:
    layer, x = masked[0], tokens()
    (cache,) = nn.Cache(1).layers
    ends = ((0, 4), (4, 6), (6, 7), (7, 9))
    with torch.no_grad():
        pieces = [layer(x[:, a:b], attn_mask=padding(kind)[..., :b], cache=cache) for a, b in ends]
        whole = layer(x, attn_mask=padding(kind))
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def test_decoding_beyond_the_modules_own_mask_is_refused(masked: tuple[Any, Any, Any]) -> None:
    (cache,) = nn.Cache(1).layers
    with torch.no_grad():
        masked[0](tokens(), cache=cache)
        with pytest.raises(st.InputError, match=r"mask is for 9 tokens \(got 10\)"):
            masked[0](tokens()[:, :1], cache=cache)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_gradients_are_finite_with_rows_that_attend_to_no_token(attention: str, kind: str) -> None:
    one, x = model(attention), tokens().requires_grad_()
    one(x, attn_mask=padding(kind))[1, PADDING[1] :].square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in one.parameters() if p.grad is not None)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_padding_has_no_gradient(attention: str, kind: str) -> None:
    one, x = model(attention), tokens().requires_grad_()
    one(x, attn_mask=padding(kind))[1, PADDING[1] :].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[1, : PADDING[1]] == 0).all()


def test_a_token_without_a_mask_uses_the_running_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The centring then costs the same for any number of earlier tokens."""
    one, x = model(), tokens()
    seen: list[Any] = []
    mix = nn.ShapedAttention.mix

    def spy(self: Any, *inputs: Any, **options: Any) -> Any:
        seen.append((options["value_mean"], options["attn_mask"]))
        return mix(self, *inputs, **options)

    monkeypatch.setattr(nn.ShapedAttention, "mix", spy)
    decode(one, x, (8, 1), None)
    assert all(mean is not None and mean.shape[-2] == 1 and mask is None for mean, mask in seen[3:])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 1, 1, TOKENS, dtype=torch.long), "attn_mask must be boolean, or hold floats"),
        (torch.ones(2, 1, 1, 4, dtype=torch.bool), r"attn_mask of shape \(2, 1, 1, 4\) does not broadcast"),
    ],
)
@pytest.mark.parametrize("attention", KINDS)
def test_masks_that_do_not_fit_are_refused(attention: str, mask: Any, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        model(attention)(tokens(), attn_mask=mask)
