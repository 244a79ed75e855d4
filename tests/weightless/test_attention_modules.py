"""PyTorch's attention modules compute with weightless matrices what they compute with real ones."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from twins import assert_is_the_real_network, build

WIDTH = 48


def some(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Gaussian(nn.Module):
    """A module with normal matrices, as PyTorch's own are uniform, and biases that are not zero."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__()
        self.module, self.options = module, options
        for one in module.parameters():
            nn.init.normal_(one, std=0.1 if one.dim() > 1 else 0.5)

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs, **self.options)


CAUSAL = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
PADDED = torch.tensor([[False, False, True], [False, False, False]])
ATTENTION: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "self": ({"batch_first": True}, {}, 1),
    "sequence first": ({}, {"need_weights": False}, 1),
    "causal": ({"batch_first": True}, {"attn_mask": CAUSAL, "is_causal": True}, 1),
    "additive mask": ({"batch_first": True}, {"attn_mask": some(3, 3)}, 1),
    "mask for each head": ({"batch_first": True}, {"attn_mask": some(8, 3, 3) > 2}, 1),
    "padding": ({"batch_first": True}, {"key_padding_mask": PADDED}, 1),
    "no bias": ({"bias": False, "batch_first": True}, {"average_attn_weights": False}, 1),
    "cross": ({"batch_first": True}, {}, 2),
    "cross, other widths": ({"batch_first": True, "kdim": 20, "vdim": 30}, {}, 3),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention(name: str) -> None:
    options, call, different = ATTENTION[name]

    def factory() -> Any:
        return Gaussian(nn.MultiheadAttention(WIDTH, 4, **options), **call)

    shapes = [(2, 3, WIDTH), (2, 3, options.get("kdim", WIDTH)), (2, 3, options.get("vdim", WIDTH))]
    inputs = {1: (some(2, 3, WIDTH),) * 3, 2: (some(2, 3, WIDTH), *(some(2, 3, WIDTH, seed=1),) * 2)}
    given = inputs.get(different, tuple(some(*shape, seed=seed) for seed, shape in enumerate(shapes)))
    model = build(factory)
    assert_is_the_real_network(model, factory, given)
    x = tuple(one.detach() for one in given)
    with torch.no_grad():
        weights = model(*x)[1]
        again = model(*x)[1]
    assert weights is again or torch.allclose(weights, again, atol=1e-12)


def test_attention_without_a_batch_and_its_weights() -> None:
    def factory() -> Any:
        return Gaussian(nn.MultiheadAttention(WIDTH, 4), attn_mask=CAUSAL)

    model = build(factory)
    assert_is_the_real_network(model, factory, (some(3, WIDTH),) * 3)
    x = some(3, WIDTH)
    out, weights = model(x, x, x)
    assert out.shape == (3, WIDTH)
    assert weights.shape == (3, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))
    assert weights[0, 1].item() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer(*, norm_first: bool, training: bool) -> None:
    def factory() -> Any:
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 96, 0.0, norm_first=norm_first, batch_first=True)
        return Gaussian(layer, src_mask=CAUSAL).train(training)

    assert_is_the_real_network(build(factory), factory, (some(2, 3, WIDTH),))


def test_a_decoder_layer() -> None:
    def factory() -> Any:
        return Gaussian(nn.TransformerDecoderLayer(WIDTH, 4, 96, 0.0, batch_first=True), tgt_mask=CAUSAL)

    assert_is_the_real_network(build(factory), factory, (some(2, 3, WIDTH), some(2, 5, WIDTH, seed=1)))


def test_inference_of_an_encoder() -> None:
    def factory() -> Any:
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 96, 0.0, batch_first=True)
        return Gaussian(nn.TransformerEncoder(layer, 1)).eval()

    model, x = build(factory), some(2, 3, WIDTH)
    with torch.no_grad():
        first = model(x)
    torch.testing.assert_close(model(x).detach(), first, rtol=1e-12, atol=1e-12)
    assert_is_the_real_network(model, factory, (x,))


def test_a_drawn_output_projection_after_weightless_ones() -> None:
    def factory() -> Any:
        attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        nn.init.normal_(attention.in_proj_weight, std=0.1)
        return attention

    assert_is_the_real_network(build(factory), factory, (some(2, 3, WIDTH),) * 3)


def test_weightless_output_projection_after_drawn_ones() -> None:
    def factory() -> Any:
        attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        nn.init.normal_(attention.out_proj.weight, std=0.1)
        return attention

    assert_is_the_real_network(build(factory), factory, (some(2, 3, WIDTH), *(some(2, 3, WIDTH, seed=1),) * 2))


def test_gaussian_attention_stands_for_pytorchs_own() -> None:
    def factory() -> Any:
        return nn.TransformerEncoderLayer(160, 4, 600, 0.0, batch_first=True)

    model = build(factory, approximate=True)
    assert_is_the_real_network(model, factory, (some(1, 3, 160),))
