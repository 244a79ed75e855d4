"""Layers and models: initialisation, shaping modes, positions, caches, checkpointing, compilation, bad input."""

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


@pytest.mark.parametrize("name", ["query", "key", "value", "output"])
def test_weights_of_attention_have_the_theorys_scale(name: str) -> None:
    torch.manual_seed(0)
    part: Any = getattr(nn.ShapedAttention(512, 8), name)
    assert part.weight.std().item() == pytest.approx(512**-0.5, rel=0.02)


def test_logits_have_the_theorys_scale() -> None:
    assert nn.ShapedAttention(512, 8).scale == pytest.approx(1 / (512 * 64) ** 0.5)


def test_weights_of_the_mlp_have_the_theorys_scale() -> None:
    torch.manual_seed(0)
    mlp: Any = nn.ShapedMLP(512, 2048)
    assert mlp.output.weight.std().item() == pytest.approx(2048**-0.5, rel=0.02)


@pytest.fixture
def mlp() -> Any:
    """Return an MLP whose slopes are trained."""
    torch.manual_seed(0)
    return nn.ShapedMLP(256, activation=nn.ShapedReLU(256, 0.0, -8.0, learnable=True))


def test_the_mlp_keeps_unit_variance(mlp: Any) -> None:
    assert mlp(torch.randn(4000, 256)).square().mean().item() == pytest.approx(1, rel=0.15)


def test_the_mlp_keeps_unit_variance_when_its_slopes_change(mlp: Any) -> None:
    with torch.no_grad():
        mlp.activation.slope_plus.fill_(3.0)
    assert mlp(torch.randn(4000, 256)).square().mean().item() == pytest.approx(1, rel=0.15)


def test_the_slopes_of_the_mlp_have_a_gradient(mlp: Any) -> None:
    with torch.no_grad():
        mlp.activation.slope_plus.fill_(3.0)
    mlp(torch.randn(4000, 256)).sum().backward()
    assert mlp.activation.slope_minus.grad.isfinite()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"rotary": True, "causal": True, "kv_heads": 2}])
@pytest.mark.parametrize("shaping", [{}, {"shaping": "learn"}, {"shaping": "recover", "recover_steps": 4}])
def test_a_model_is_restored_from_its_state_dict(options: dict[str, Any], shaping: dict[str, Any]) -> None:
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


def test_recovery_reduces_the_gains_linearly_to_0() -> None:
    layer = nn.ShapedAttention(32, 4, shaping="recover", recover_steps=10)
    gains = []
    for _ in range(12):
        a, b = layer.shaping.gains()
        gains += [float(a[0]), float(b[-1])]
        nn.advance(layer)
    assert gains == pytest.approx([max(0.0, 1 - i // 2 / 10) for i in range(24)])


def test_recovery_ends_with_plain_softmax_attention() -> None:
    torch.manual_seed(0)
    layer = nn.ShapedAttention(32, 4, shaping="recover", recover_steps=10)
    nn.advance(layer, 12)
    plain = nn.SoftmaxAttention(32, 4, logit_gain=layer.scale * 8**0.5)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "shaping" not in k})
    torch.testing.assert_close(layer(tokens()), plain(tokens()))


def test_gains_are_parameters_only_if_they_are_trained() -> None:
    assert not [name for name, _ in model().named_parameters() if "gain" in name]


def test_trained_gains_are_parameters_with_gradients() -> None:
    one = model(shaping="learn")
    one(tokens()).square().sum().backward()
    gains = [p for name, p in one.named_parameters() if "gain" in name]
    assert len(gains) == 6
    assert all(p.shape == (4,) and p.grad.abs().min() > 0 for p in gains)


@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"max_positions": 16}, {"kv_heads": 1, "norm": "pre"}])
def test_decoding_with_the_cache_equals_one_pass(options: dict[str, Any]) -> None:
    one = model(causal=True, **options).eval()
    x = tokens()
    cache = nn.Cache(3)
    with torch.no_grad():
        pieces = [one(x[:, :4], cache=cache), one(x[:, 4:6], cache=cache)]
        pieces += [one(x[:, i : i + 1], cache=cache) for i in range(6, 9)]
        whole = one(x)
    assert cache.length == 9
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def with_later_tokens_changed(x: Any) -> Any:
    """Return tokens that differ from the seventh on."""
    changed = x.clone()
    changed[:, 6:] += 1
    return changed


def test_causal_models_do_not_attend_to_later_tokens() -> None:
    one, x = model(causal=True, rotary=True).eval(), tokens()
    changed = with_later_tokens_changed(x)
    torch.testing.assert_close(one(changed)[:, :6], one(x)[:, :6])
    assert (one(changed)[:, 6:] - one(x)[:, 6:]).abs().min() > 0


def test_tokens_do_not_attend_to_padding() -> None:
    one, x = model().eval(), tokens()
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[..., 6:] = False
    torch.testing.assert_close(one(with_later_tokens_changed(x), attn_mask=mask)[:, :6], one(x[:, :6]))


def test_only_differences_of_rotary_positions_count() -> None:
    one, x = model(causal=True, rotary=True).eval(), tokens()
    torch.testing.assert_close(one(x, positions=torch.arange(9) + 100), one(x), atol=1e-4, rtol=1e-4)
    assert (one(x, positions=2 * torch.arange(9)) - one(x)).abs().max() > 1e-4


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        one = model(causal=True, shaping="learn", checkpointing=checkpointing).train()
        one(tokens()).square().mean().backward()
        gradients.append([p.grad for p in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_compiles_as_one_graph() -> None:
    one = model(causal=True, rotary=True, shaping="learn", learnable_slopes=True)
    compiled = torch.compile(one, fullgraph=True)
    torch.testing.assert_close(compiled(tokens()), one(tokens()), atol=1e-5, rtol=1e-5)
    found, expected = (
        torch.autograd.grad(form(tokens()).square().mean(), tuple(one.parameters())) for form in (compiled, one)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_models_run_under_autocast() -> None:
    one = model(causal=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = one(tokens())
    torch.testing.assert_close(out.float(), one(tokens()), atol=0.15, rtol=0.05)


def test_models_run_in_16_bits() -> None:
    assert model(causal=True).to(torch.bfloat16)(tokens().bfloat16()).dtype == torch.bfloat16


def test_parameters_have_no_attributes_of_ours() -> None:
    """Wrappers that shard or copy parameters would lose them."""
    plain = set(vars(torch.nn.Parameter(torch.zeros(1))))
    assert all(set(vars(p)) == plain for p in model(shaping="learn", learnable_slopes=True).parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.ShapedAttention(30, 4), "4 heads do not divide the width 30"),
        (lambda: nn.ShapedAttention(32, 4, kv_heads=3), "kv_heads must divide the 4 heads"),
        (lambda: nn.ShapedAttention(32, 4, output_projection=False, value_width=4), "give output_projection=True"),
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
        (lambda: model(max_positions=4)(tokens()), r"learned positions for 4 tokens \(got 9\)"),
        (lambda: nn.from_architecture(cast(Any, "shaped")), "an Architecture is expected"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        build()


def shaped_relu() -> tuple[Any, Any]:
    """Return a shaped ReLU in 64 bits, and inputs for it."""
    x = torch.randn(3, 4, 5, dtype=torch.double, requires_grad=True)
    return nn.ShapedReLU(16, c_plus=0.5, c_minus=-2.0, learnable=True).double(), x


def test_the_shaped_relu_has_two_slopes() -> None:
    sigma, x = shaped_relu()
    torch.testing.assert_close(sigma(x), torch.where(x > 0, sigma.slope_plus * x, sigma.slope_minus * x))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_the_shaped_relu_is_twice_differentiable(check: Any) -> None:
    sigma, x = shaped_relu()

    def values(x: Any, plus: Any, minus: Any) -> Any:
        return torch.func.functional_call(sigma, {"slope_plus": plus, "slope_minus": minus}, (x,))

    slopes = [s.detach().clone().requires_grad_() for s in (sigma.slope_plus, sigma.slope_minus)]
    assert check(values, (x, *slopes))


def test_gradients_of_slopes_are_summed_in_32_bits() -> None:
    """A 16-bit sum of ten thousand ones would stop at 256."""
    sigma = nn.ShapedReLU(16, learnable=True).bfloat16()
    sigma(torch.ones(10_000, dtype=torch.bfloat16)).sum().backward()
    assert sigma.slope_plus.grad is not None
    assert float(sigma.slope_plus.grad) == pytest.approx(10_000, rel=0.01)
