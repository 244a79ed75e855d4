"""A model built without weights: what is recorded of each parameter is how the model's own code initialises it."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own


from records import Factory, draw, filled, law, laws, recorded

import shaped_transformer as st
from shaped_transformer import hf

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = SMALL | {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def rows(*zero: int, of: int, scale: float = 0.0) -> list[float]:
    return [scale if row in zero else 1.0 for row in range(of)]


def quarter_turned(sign: str) -> Any:
    q, r = torch.linalg.qr(torch.randn(6, 5))
    diagonal = torch.diagonal(r)
    return {
        "sign": lambda: q * diagonal.sign(),
        "ratio": lambda: 3 * (q * (diagonal / diagonal.abs())),
        "no": lambda: q,
    }[sign]()


def old_truncated(std: float, cut: float) -> Any:
    """The truncated normal of earlier versions of torch and of many models: by the inverse of the error function."""
    mass = math.erf(cut / std / math.sqrt(2))
    weight = torch.empty(7, 5).uniform_(-mass, mass).erfinv_()
    return weight.mul_(std * math.sqrt(2)).add_(0.0).clamp_(min=-cut, max=cut)


init = torch.nn.init
CASES: dict[str, tuple[Factory, str, float, float]] = {
    "normal_": (lambda: init.normal_(torch.empty(7, 5), std=0.02), "normal", 0.02, 0),
    "normal_ with a mean": (lambda: init.normal_(torch.empty(7, 5), 1.0, 0.02), "normal", 0.02, 1),
    "randn": (lambda: torch.randn(7, 5) / math.sqrt(5), "normal", 1 / math.sqrt(5), 0),
    "randn_like": (lambda: -torch.randn_like(torch.empty(7, 5)) * 2, "normal", 2, 0),
    "normal": (lambda: torch.normal(0.0, 0.3, (7, 5)), "normal", 0.3, 0),
    "a cast copy": (lambda: torch.randn(7, 5).double().t().contiguous(), "normal", 1, 0),
    "zeros, then normal_": (lambda: torch.zeros(1, 1, 5).normal_(std=0.1).mul_(2), "normal", 0.2, 0),
    "by a known number": (lambda: torch.randn(7, 5).mul_(torch.tensor(0.5)), "normal", 0.5, 0),
    "kaiming_normal_": (lambda: init.kaiming_normal_(torch.empty(7, 8)), "normal", 0.5, 0),
    "xavier_normal_": (lambda: init.xavier_normal_(torch.empty(7, 1)), "normal", 0.5, 0),
    "truncated far out": (lambda: init.trunc_normal_(torch.empty(7, 5), std=0.02), "normal", 0.02, 0),
    "truncated": (lambda: init.trunc_normal_(torch.empty(7, 5)), "truncated", 0.8796256610342398, 0),
    "truncated on one side": (
        lambda: init.trunc_normal_(torch.empty(7, 5), a=0, b=9),
        "truncated",
        0.6028102749890869,
        math.sqrt(2 / math.pi),
    ),
    "truncated, inverted": (lambda: old_truncated(0.02, 0.04), "truncated", 0.02 * 0.8796256610342398, 0),
    "truncated far out, inverted": (lambda: old_truncated(0.02, 2.0), "normal", 0.02, 0),
    "uniform_": (lambda: init.uniform_(torch.empty(7, 5), -0.1, 0.1), "uniform", 0.1 / math.sqrt(3), 0),
    "rand": (lambda: 2 * (torch.rand(7, 5) - 0.5), "uniform", 1 / math.sqrt(3), 0),
    "one minus rand": (lambda: 1 - torch.rand(7, 5), "uniform", 1 / math.sqrt(12), 0.5),
    "kaiming_uniform_": (lambda: init.kaiming_uniform_(torch.empty(7, 6)), "uniform", math.sqrt(2 / 6), 0),
    "orthogonal_": (lambda: init.orthogonal_(torch.empty(5, 5)), "orthogonal", 1, 0),
    "orthogonal_, wide": (lambda: init.orthogonal_(torch.empty(3, 5), gain=2), "orthogonal", 2, 0),
    "orthogonal_, tall": (lambda: init.orthogonal_(torch.empty(5, 3), gain=2), "orthogonal", 2, 0),
    "orthogonal_, kernel": (lambda: init.orthogonal_(torch.empty(4, 3, 2, 2)), "orthogonal", 1, 0),
    "QR with signs": (lambda: quarter_turned("sign"), "orthogonal", 1, 0),
    "QR with ratios": (lambda: quarter_turned("ratio"), "orthogonal", 3, 0),
    "QR without signs": (lambda: quarter_turned("no"), "other", math.nan, 0),
    "zeros": (lambda: torch.zeros(7, 5), "constant", 0, 0),
    "large ones": (lambda: torch.ones(300, 300) * 0.1, "constant", 0, 0.1),
    "constant_": (lambda: init.constant_(torch.empty(7), 3.0), "constant", 0, 3),
    "uninitialised": (lambda: torch.empty(7, 5), "other", math.nan, 0),
    "exponential_": (lambda: torch.empty(7, 5).exponential_(), "other", math.nan, 0),
    "eye_": (lambda: init.eye_(torch.empty(5, 5)), "other", math.nan, 0),
    "known values": (lambda: torch.empty(4, 4).copy_(torch.arange(16.0).view(4, 4)), "other", math.nan, 0),
    "sparse_": (lambda: init.sparse_(torch.empty(7, 5), 0.5), "other", math.nan, 0),
    "repeated": (lambda: torch.randn(5, 1).expand(5, 3).clone(), "other", math.nan, 0),
    "sum": (lambda: torch.randn(5, 3) + torch.randn(5, 3), "other", math.nan, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_distribution_is_read_off_the_code(name: str) -> None:
    values, kind, std, mean = CASES[name]
    found = law(values)
    assert found.kind == kind
    assert found.mean == pytest.approx(mean, rel=1e-6, abs=1e-12)
    assert found.std == pytest.approx(std, rel=1e-6, nan_ok=True)
    assert not any(scale is not None for scale in found.scales)
    assert bool(found.reason) == (kind == "other")


REGIONS: dict[str, tuple[Factory, int, list[float]]] = {
    "a padding row": (lambda: filled((4, 3), lambda w: w.normal_(), lambda w: w[2].zero_()), 0, rows(2, of=4)),
    "rows of another std": (
        lambda: filled((4, 3), lambda w: w[:3].normal_(), lambda w: w[3:].normal_(std=0.5)),
        0,
        rows(3, of=4, scale=0.5),
    ),
    "columns": (lambda: filled((3, 4), lambda w: w.normal_(), lambda w: w[:, ::2].mul_(0.5)), 1, [0.5, 1, 0.5, 1]),
    "an expert": (lambda: filled((4, 3, 2), lambda w: w.normal_(), lambda w: w[1].zero_()), 0, rows(1, of=4)),
    "part of a flat view": (
        lambda: filled((4, 3), lambda w: w.normal_(), lambda w: w.view(-1)[3:6].zero_()),
        0,
        rows(1, of=4),
    ),
    "copied rows": (
        lambda: filled((4, 3), lambda w: w.normal_(), lambda w: w[:2].copy_(torch.randn(2, 3) * 2)),
        0,
        rows(0, 1, of=4, scale=2),
    ),
    "joined": (lambda: torch.cat([torch.randn(3, 3), torch.zeros(1, 3)]), 0, rows(3, of=4)),
    "a vector of scales": (lambda: torch.randn(3, 4) * torch.arange(1.0, 5), 1, [1, 2, 3, 4]),
    "scales, transposed": (lambda: (torch.randn(3, 4) * torch.arange(1.0, 5)).t().contiguous(), 0, [1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", REGIONS)
def test_a_block_of_rows_has_its_own_scale(name: str) -> None:
    values, axis, scale = REGIONS[name]
    found = law(values)
    assert found.kind == "normal"
    assert found.std == 1
    assert [n for n, s in enumerate(found.scales) if s is not None] == [axis]
    vector = found.scales[axis]
    assert vector is not None
    assert vector.dtype == torch.float64
    assert vector.tolist() == scale


def test_blocks_that_fill_a_matrix_are_one_distribution() -> None:
    found = law(lambda: filled((6, 5), *[lambda w, n=n: w.chunk(3)[n].normal_(std=0.1) for n in range(3)]))
    assert str(found) == "N(0, 0.1²)"
    assert law(lambda: filled((6, 5), lambda w: w[:2].normal_())).reason == "never initialised in part"
    corner = law(lambda: filled((6, 5), lambda w: w.normal_(), lambda w: w[:2, :2].zero_()))
    assert corner.reason == "a block of rows and columns set apart"
    mixed = law(lambda: filled((6, 5), lambda w: w.normal_(), lambda w: w[:2].uniform_()))
    assert "another distribution" in mixed.reason


def mirrored() -> Any:
    half = torch.randn(2, 5)
    return torch.cat([half, -half])


@pytest.mark.parametrize(
    "values", [mirrored, lambda: filled((4, 5), lambda w: w.normal_(), lambda w: w[:2].copy_(w[2:]))]
)
def test_entries_used_twice_are_not_taken_as_independent(values: Factory) -> None:
    assert law(values).reason == "random entries used twice"
    drawn = draw(values)
    assert torch.equal(drawn[:2].abs(), drawn[2:].abs())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (lambda: torch.randn(7, 5) * 0.02, "N(0, 0.02²)"),
        (lambda: filled((7, 5), lambda w: w.normal_(), lambda w: w[:2].zero_()), "N(0, 1²), 2 rows zero"),
        (lambda: torch.randn(3, 4) * torch.arange(1.0, 5), "N(0, 1²), columns scaled"),
        (lambda: torch.empty(7, 5).uniform_(-0.1, 0.1), "uniform on [-0.1, 0.1]"),
        (lambda: init.orthogonal_(torch.empty(5, 5)), "orthogonal, gain 1"),
        (lambda: init.trunc_normal_(torch.empty(5, 5)), "truncated normal, mean 0, std 0.88"),
        (lambda: torch.ones(5), "1"),
        (lambda: torch.empty(5), "never initialised"),
        (lambda: torch.empty(5).exponential_(), "aten.exponential_"),
    ],
)
def test_a_distribution_has_a_short_text(values: Factory, text: str) -> None:
    assert str(law(values)) == text


def test_the_variance_is_that_of_an_entry() -> None:
    assert law(lambda: torch.randn(3, 3) * 0.5).variance == 0.25


def test_modules_of_torch() -> None:
    assert {str(found) for found in laws(lambda: torch.nn.LSTM(3, 4)).values()} == {"uniform on [-0.5, 0.5]"}
    conv = laws(lambda: torch.nn.Conv2d(4, 8, 2))
    assert conv["weight"].std == pytest.approx(0.25 / math.sqrt(3))
    assert str(laws(lambda: torch.nn.Embedding(5, 4, padding_idx=0))["weight"]) == "N(0, 1²), 1 row zero"
    layer = laws(lambda: torch.nn.TransformerEncoderLayer(8, 2, 16))
    assert str(layer["norm1.weight"]) == "1"
    assert str(layer["self_attn.in_proj_bias"]) == "0"
    assert layer["self_attn.in_proj_weight"].std == pytest.approx(math.sqrt(2 / (8 + 24)))


def test_our_own_modules() -> None:
    found = laws(lambda: st.nn.from_architecture(st.shaped_transformer(width=16, depth=2)))
    assert {str(law) for law in found.values()} == {"N(0, 0.25²)"}
    found = laws(lambda: st.nn.ShapedTransformer(width=16, depth=2, heads=4, gamma=0.3, causal=True, rotary=True))
    assert {law.kind for law in found.values()} <= {"normal", "constant"}
    config = hf.ShapedTransformerConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4)
    found = laws(lambda: hf.ShapedTransformerForCausalLM(config))
    assert {law.kind for law in found.values()} <= {"normal", "constant"}
    assert found["head.weight"].std == 0.25


def auto(name: str, config: Any) -> Factory:
    return lambda: getattr(transformers, name).from_config(config)


FAMILIES: dict[str, tuple[Factory, dict[str, str]]] = {
    "GPT-2": (
        auto(
            "AutoModelForCausalLM",
            transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, bos_token_id=1, eos_token_id=2),
        ),
        {
            "transformer.h.1.mlp.c_fc.weight": "N(0, 0.02²)",
            "transformer.h.1.mlp.c_proj.weight": "N(0, 0.01²)",
            "transformer.h.0.attn.c_proj.weight": "N(0, 0.01²)",
            "transformer.wte.weight": "N(0, 0.02²)",
            "transformer.ln_f.weight": "1",
        },
    ),
    "Llama": (
        auto("AutoModelForCausalLM", transformers.LlamaConfig(**TEXT)),
        {"model.embed_tokens.weight": "N(0, 0.02²), 1 row zero", "lm_head.weight": "N(0, 0.02²)"},
    ),
    "BERT": (
        auto("AutoModelForMaskedLM", transformers.BertConfig(**TEXT)),
        {"bert.embeddings.word_embeddings.weight": "N(0, 0.02²), 1 row zero", "cls.predictions.bias": "0"},
    ),
    "ViT": (
        auto("AutoModelForImageClassification", transformers.ViTConfig(**SMALL)),
        {"vit.embeddings.cls_token": "N(0, 0.02²)", "vit.embeddings.position_embeddings": "N(0, 0.02²)"},
    ),
    "ALBERT": (
        auto("AutoModelForMaskedLM", transformers.AlbertConfig(embedding_size=16, **TEXT)),
        {"albert.encoder.embedding_hidden_mapping_in.weight": "N(0, 0.02²)"},
    ),
    "T5": (
        auto(
            "AutoModelForSeq2SeqLM",
            transformers.T5Config(d_model=64, d_kv=4, d_ff=64, num_layers=2, num_heads=4, vocab_size=50),
        ),
        {"shared.weight": "N(0, 1²)", "encoder.block.0.layer.0.SelfAttention.q.weight": "N(0, 0.0625²)"},
    ),
    "Mixtral": (
        auto("AutoModelForCausalLM", transformers.MixtralConfig(num_local_experts=4, num_key_value_heads=2, **TEXT)),
        {"model.layers.1.mlp.experts.gate_up_proj": "N(0, 0.02²)", "model.layers.1.mlp.gate.weight": "N(0, 0.02²)"},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_models_are_recorded_in_full(family: str) -> None:
    factory, expected = FAMILIES[family]
    model, recordings = recorded(factory, torch.float32)
    found = {name: recordings[name].law(p.shape) for name, p in model.named_parameters()}
    assert {law.kind for law in found.values()} == {"normal", "constant"}
    assert {name: str(found[name]) for name in expected} == expected
    assert not any(buffer.is_meta for buffer in model.buffers())


@pytest.mark.parametrize("family", ["GPT-2", "BERT", "ViT"])
def test_the_recorded_variance_is_that_of_the_real_model(family: str) -> None:
    factory, _ = FAMILIES[family]
    _, recordings = recorded(factory, torch.float32)
    torch.manual_seed(0)
    for name, parameter in factory().named_parameters():
        found = recordings[name].law(parameter.shape)
        if found.kind == "constant":
            assert bool((parameter == found.mean).all())
        else:
            zero = found.scales and found.scales[0] is not None
            kept = parameter[found.scales[0] != 0] if zero else parameter
            assert float(kept.square().mean()) == pytest.approx(found.variance, rel=6 * math.sqrt(2 / kept.numel()))
