"""Layers and models: initialisation, shaping modes, positions, caches, checkpointing, compilation, bad input."""

import copy
import io
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import nn


def model(**options: Any) -> Any:
    torch.manual_seed(0)
    return nn.ShapedTransformer(32, 3, 4, **options)


def tokens(length: int = 9) -> Any:
    return torch.randn(2, length, 32, generator=torch.Generator().manual_seed(1))


def test_weights_have_the_theorys_scale() -> None:
    torch.manual_seed(0)
    layer: Any = nn.ShapedAttention(512, 8)
    for part in (layer.query, layer.key, layer.value, layer.output):
        assert part.weight.std().item() == pytest.approx(512**-0.5, rel=0.02)
    assert layer.scale == pytest.approx(1 / (512 * 64) ** 0.5)
    mlp: Any = nn.ShapedMLP(512, 2048)
    assert mlp.output.weight.std().item() == pytest.approx(2048**-0.5, rel=0.02)


def test_the_mlp_keeps_unit_variance_and_its_normaliser_follows_learnt_slopes() -> None:
    torch.manual_seed(0)
    mlp: Any = nn.ShapedMLP(256, activation=nn.ShapedReLU(256, 0.0, -8.0, learnable=True))
    x = torch.randn(4000, 256)
    assert mlp(x).square().mean().item() == pytest.approx(1, rel=0.15)
    with torch.no_grad():
        mlp.activation.slope_plus.fill_(3.0)
    assert mlp(x).square().mean().item() == pytest.approx(1, rel=0.15)
    mlp(x).sum().backward()
    assert mlp.activation.slope_minus.grad.isfinite()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"rotary": True, "causal": True, "kv_heads": 2}])
@pytest.mark.parametrize("shaping", [{}, {"shaping": "learn"}, {"shaping": "recover", "recover_steps": 4}])
def test_the_state_dict_holds_everything(options: dict[str, Any], shaping: dict[str, Any]) -> None:
    one = model(**options, **shaping)
    nn.advance(one, 3)
    if shaping.get("shaping") == "learn":
        with torch.no_grad():
            one.blocks[0].attention.branch.shaping.identity_gain.mul_(1.5)
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    other = nn.ShapedTransformer(32, 3, 4, **options, **shaping)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    torch.testing.assert_close(other(tokens()), one(tokens()), rtol=0, atol=0)


def test_recovery_ends_with_plain_softmax_attention() -> None:
    torch.manual_seed(0)
    layer = nn.ShapedAttention(32, 4, shaping="recover", recover_steps=10)
    seen = []
    for _ in range(12):
        a, b = layer.shaping.gains()
        seen += [float(a[0]), float(b[-1])]
        nn.advance(layer)
    assert seen == pytest.approx([max(0.0, 1 - i // 2 / 10) for i in range(24)])
    plain = nn.SoftmaxAttention(32, 4, logit_gain=layer.scale * 8**0.5)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "shaping" not in k})
    torch.testing.assert_close(layer(tokens()), plain(tokens()))


def test_learnt_gains_are_parameters_with_gradients() -> None:
    one = model(shaping="learn")
    one(tokens()).square().sum().backward()
    gains = [p for name, p in one.named_parameters() if "gain" in name]
    assert len(gains) == 6
    assert all(p.shape == (4,) and p.grad.abs().min() > 0 for p in gains)
    assert not [name for name, _ in model().named_parameters() if "gain" in name]


@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"max_positions": 16}, {"kv_heads": 1, "norm": "pre"}])
def test_decoding_with_the_cache_equals_the_whole(options: dict[str, Any]) -> None:
    one = model(causal=True, **options).eval()
    x = tokens()
    cache = nn.Cache(3)
    with torch.no_grad():
        pieces = [one(x[:, :4], cache=cache), one(x[:, 4:6], cache=cache)]
        pieces += [one(x[:, i : i + 1], cache=cache) for i in range(6, 9)]
        whole = one(x)
    assert cache.length == 9
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def test_causal_models_do_not_look_ahead_and_padding_is_not_seen() -> None:
    one, x = model(causal=True, rotary=True).eval(), tokens()
    changed = x.clone()
    changed[:, 6:] += 1
    torch.testing.assert_close(one(changed)[:, :6], one(x)[:, :6])
    assert (one(changed)[:, 6:] - one(x)[:, 6:]).abs().min() > 0
    full, mask = model().eval(), torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[..., 6:] = False
    torch.testing.assert_close(full(changed, attn_mask=mask)[:, :6], full(x[:, :6]))


def test_rotary_positions_enter_by_differences_only() -> None:
    one, x = model(causal=True, rotary=True).eval(), tokens()
    torch.testing.assert_close(one(x, positions=torch.arange(9) + 100), one(x), atol=1e-4, rtol=1e-4)
    assert (one(x, positions=2 * torch.arange(9)) - one(x)).abs().max() > 1e-4


def test_checkpointing_changes_nothing_but_memory() -> None:
    gradients = []
    for checkpointing in (False, True):
        one = model(causal=True, shaping="learn", checkpointing=checkpointing).train()
        one(tokens()).square().mean().backward()
        gradients.append([p.grad for p in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_compiles_whole() -> None:
    one = model(causal=True, rotary=True, shaping="learn", learnable_slopes=True)
    compiled = torch.compile(one, fullgraph=True)
    torch.testing.assert_close(compiled(tokens()), one(tokens()), atol=1e-5, rtol=1e-5)
    compiled(tokens()).sum().backward()
    assert all(p.grad.isfinite().all() for p in one.parameters())


def test_autocast_and_16_bits_run() -> None:
    one = model(causal=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = one(tokens())
    torch.testing.assert_close(out.float(), one(tokens()), atol=0.15, rtol=0.05)
    assert copy.deepcopy(one).to(torch.bfloat16)(tokens().bfloat16()).dtype == torch.bfloat16


def test_no_attribute_is_hung_on_parameters() -> None:
    """Wrappers that shard or copy parameters lose them."""
    plain = set(vars(torch.nn.Parameter(torch.zeros(1))))
    assert all(set(vars(p)) == plain for p in model(shaping="learn", learnable_slopes=True).parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.ShapedAttention(30, 4), "4 heads do not divide the width 30"),
        (lambda: nn.ShapedAttention(32, 4, kv_heads=3), "kv_heads must divide the 4 heads"),
        (lambda: nn.ShapedAttention(32, 4, output_projection=False, value_width=4), "need output_projection=True"),
        (lambda: nn.ShapedAttention(12, 4, rotary=True), "even key width"),
        (lambda: nn.ShapedAttention(32, 4, tau0=0.0), "tau0 must be positive"),
        (lambda: nn.ShapedAttention(32, 4, shaping=cast(Any, "leran")), "'fixed', 'learn' or 'recover'"),
        (lambda: nn.ShapedAttention(32, 4, shaping="recover"), "recover_steps"),
        (lambda: nn.ShapedAttention(32, 4, shaping="recover", recover_steps=0), "at least 1"),
        (lambda: nn.ShapedBlock(32, 4, gamma=1.5), r"gamma must lie in \(0, 1\]"),
        (lambda: nn.ShapedBlock(32, 4, gama=0.5), "gama"),
        (lambda: nn.ShapedBlock(32, 4, dropout=1.0), "dropout must lie"),
        (lambda: nn.ShapedTransformer(32, 0), "depth must be a whole number of at least 1"),
        (lambda: model()(torch.zeros(2, 9, 31)), r"x must be a tensor \(batch, tokens, 32\)"),
        (lambda: model(max_positions=4)(tokens()), "9 tokens, but positions were learned for 4"),
        (lambda: nn.from_architecture(cast(Any, "shaped")), "an Architecture is expected"),
    ],
)
def test_what_does_not_fit_is_told(build: Any, message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        build()


def test_slopes_are_differentiated_twice() -> None:
    sigma = st.nn.ShapedReLU(16, c_plus=0.5, c_minus=-2.0, learnable=True).double()
    x = torch.randn(3, 4, 5, dtype=torch.double, requires_grad=True)
    plus, minus = sigma.slope_plus, sigma.slope_minus
    torch.testing.assert_close(sigma(x), torch.where(x > 0, plus * x, minus * x))

    def values(x: Any, plus: Any, minus: Any) -> Any:
        return torch.func.functional_call(sigma, {"slope_plus": plus, "slope_minus": minus}, (x,))

    slopes = [s.detach().clone().requires_grad_() for s in (plus, minus)]
    assert torch.autograd.gradcheck(values, (x, *slopes))
    assert torch.autograd.gradgradcheck(values, (x, *slopes))


def test_gradients_of_slopes_are_summed_in_32_bits() -> None:
    """Sixteen-bit sums of ten thousand ones would stop at 256."""
    sigma = st.nn.ShapedReLU(16, learnable=True).bfloat16()
    sigma(torch.ones(10_000, dtype=torch.bfloat16)).sum().backward()
    assert sigma.slope_plus.grad is not None
    assert float(sigma.slope_plus.grad) == pytest.approx(10_000, rel=0.01)
