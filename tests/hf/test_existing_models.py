"""Shaped attention in existing models: the definition, files, caches, masks, and the models that are refused."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

import shaped_transformer as st
from shaped_transformer import hf
from shaped_transformer.hf import registration
from shaped_transformer.nn.functional import shaped_attention_weights

COMMON = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = ("vocab_size", "bos_token_id", "eos_token_id")
CAUSAL = transformers.AutoModelForCausalLM
FAMILIES: dict[str, Any] = {
    "gpt2": (
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=60, bos_token_id=1, eos_token_id=2),
        CAUSAL,
    ),
    "llama": (transformers.LlamaConfig(num_key_value_heads=2, **COMMON), CAUSAL),
    "gpt_neox": (transformers.GPTNeoXConfig(**COMMON), CAUSAL),
    "bert": (transformers.BertConfig(**COMMON), transformers.AutoModelForMaskedLM),
    "vit": (
        transformers.ViTConfig(image_size=16, patch_size=4, **{k: COMMON[k] for k in list(COMMON)[1:5]}),
        transformers.AutoModelForImageClassification,
    ),
}
DECODERS = ("gpt2", "llama", "gpt_neox")


@pytest.fixture(autouse=True)
def _registered() -> None:
    hf.register()


def plain(family: str) -> Any:
    """Return a small model of a family, unshaped."""
    torch.manual_seed(0)
    config, auto = FAMILIES[family]
    config = type(config).from_dict(config.to_dict() | {"initializer_range": 0.3})  # no two tokens are equally likely
    return auto.from_config(config).eval()


def inputs(family: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    return {"input_ids": torch.randint(3, 60, (2, 7), generator=generator)}


@pytest.mark.parametrize("family", FAMILIES)
def test_shaping_changes_the_output_in_place(family: str) -> None:
    model, given = plain(family), inputs(family)
    before = model(**given)[0]
    assert hf.shape_(model, tau0=0.7, uniform_gain=0.9) is model
    assert (model(**given)[0] - before).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_shaping_changes_no_weight(family: str) -> None:
    model = plain(family)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    hf.shape_(model, tau0=0.7, uniform_gain=0.9)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_shaped_when_loaded(family: str, tmp_path: Path) -> None:
    model, given = hf.shape_(plain(family), tau0=0.7, uniform_gain=0.9), inputs(family)
    expected = model(**given)[0]
    auto = FAMILIES[family][1]
    for place in ("once", "twice"):  # a loaded model must be saved as shaped, too
        model.save_pretrained(tmp_path / place)
        model = auto.from_pretrained(tmp_path / place).eval()
        assert (model.config.tau0, model.config.uniform_gain) == (0.7, 0.9)
        torch.testing.assert_close(model(**given)[0], expected, rtol=0, atol=0)


def test_the_name_of_the_attention_alone_is_not_saved(tmp_path: Path) -> None:
    """The reason for configuration classes of shaped forms."""
    config = FAMILIES["gpt2"][0]
    model = CAUSAL.from_config(type(config).from_dict(config.to_dict()), attn_implementation="shaped")
    model.save_pretrained(tmp_path)
    assert registration.attention_of(model.config) == "shaped"
    assert registration.attention_of(CAUSAL.from_pretrained(tmp_path).config) != "shaped"


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_the_first_layer_computes_the_definition(family: str) -> None:
    """With the values, scale and mask that reach the attention, padding included."""
    model = hf.shape_(plain(family), tau0=0.5)
    given = inputs(family)["input_ids"]
    mask = torch.ones_like(given)
    mask[0, 5:] = 0
    calls: list[Any] = []

    def spy(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        out = registration.shaped_attention_forward(module, query, key, value, attention_mask, **options)
        calls.append((query, key, value, out[0]))
        return out

    transformers.AttentionInterface.register("shaped", spy)
    model(given, attention_mask=mask)
    query, key, value, out = calls[0]
    allowed = mask[:, None, None, :].bool().expand(-1, -1, 7, -1)
    if family != "bert":
        allowed = allowed & torch.ones(7, 7, dtype=torch.bool).tril()
    scale = 8**-0.5 / (0.5 * 32**0.5)
    dense = shaped_attention_weights(query, key, scale=scale, attn_mask=allowed)
    dense = dense @ value.repeat_interleave(4 // value.shape[1], 1)
    torch.testing.assert_close(out[0, :5], dense.transpose(1, 2)[0, :5], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out[1], dense.transpose(1, 2)[1], atol=1e-5, rtol=1e-4)


def test_an_attention_without_a_registered_mask_gets_none() -> None:
    """The reason why `register` registers the mask too."""
    masks: list[Any] = []

    def spy(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        masks.append(attention_mask)
        return registration.shaped_attention_forward(module, query, key, value, attention_mask, **options)

    transformers.AttentionInterface.register("half-registered", spy)
    transformers.AttentionInterface.register("shaped", spy)
    given = inputs("llama")["input_ids"]
    mask = torch.ones_like(given)
    mask[0, 5:] = 0
    for name in ("half-registered", "shaped"):
        model = plain("llama")
        model.set_attn_implementation(name)
        model(given, attention_mask=mask)
    assert masks[0] is None
    assert masks[-1].shape == (2, 1, 7, 7)


GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
@pytest.mark.parametrize("family", DECODERS)
def test_shaped_decoders_generate_the_same_with_every_cache(family: str, cache: dict[str, Any]) -> None:
    model: Any = hf.shape_(plain(family), tau0=0.7)
    given = inputs(family)["input_ids"]
    expected = model.generate(given, use_cache=False, **GREEDY)
    assert model.generate(given, **cache, **GREEDY).tolist() == expected.tolist()


@pytest.mark.parametrize("family", DECODERS)
def test_shaped_decoders_generate_the_same_with_padding(family: str) -> None:
    model: Any = hf.shape_(plain(family), tau0=0.7)
    given = inputs(family)["input_ids"]
    expected = model.generate(given, use_cache=False, **GREEDY)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), given], 1)
    left = model.generate(padded, attention_mask=(padded != 0).long(), **GREEDY)
    assert left[:, 10:].tolist() == expected[:, 7:].tolist()


@pytest.mark.parametrize("name", ["Bloom", "Falcon", "GPTJ", "Mpt"])
def test_models_that_do_not_call_the_attention_are_refused_and_unchanged(name: str) -> None:
    options: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4, "num_hidden_layers": 2}
    options |= {"num_attention_heads": 4, "n_embd": 32, "d_model": 32, "n_heads": 4, "n_layers": 2, "rotary_dim": 4}
    model = CAUSAL.from_config(getattr(transformers, f"{name}Config")(**options))
    kind, config = type(model), dict(vars(model.config))
    with pytest.raises(st.InputError, match=f"^{kind.__name__} calls .* 0 of 2 layers: it does not honour the"):
        hf.shape_(model)
    assert type(model) is kind
    assert vars(model.config) == config


def test_encoder_decoders_are_refused() -> None:
    bart = transformers.AutoModelForSeq2SeqLM.from_config(
        transformers.BartConfig(
            vocab_size=60, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4
        )
    )
    with pytest.raises(st.InputError, match="cross-attention"):
        hf.shape_(bart)


def test_decoders_with_cross_attention_are_refused() -> None:
    decoder = plain("bert")
    decoder.config.add_cross_attention = True
    with pytest.raises(st.InputError, match="cross-attention"):
        hf.shape_(decoder)


def test_models_made_of_other_models_are_refused() -> None:
    tiny = {"vision_config": FAMILIES["vit"][0].to_dict(), "text_config": FAMILIES["bert"][0].to_dict()}
    pair = transformers.VisionTextDualEncoderModel(transformers.VisionTextDualEncoderConfig(projection_dim=8, **tiny))
    with pytest.raises(st.InputError, match="composed of several models"):
        hf.shape_(pair)


def call(**changes: Any) -> Any:
    query, key, value = torch.randn(3, 2, 4, 5, 8).unbind(0)
    given: dict[str, Any] = {"query": query, "key": key, "value": value, "attention_mask": None} | changes
    return registration.shaped_attention_forward(torch.nn.Module(), **given)


UNKNOWN = pytest.mark.parametrize("name", ["position_bias", "softcap", "s_aux", "something_new"])


@UNKNOWN
def test_unknown_arguments_of_the_attention_may_be_none(name: str) -> None:
    assert call(**{name: None, "position_ids": 1})[0].shape == (2, 5, 4, 8)


@UNKNOWN
def test_arguments_that_may_change_the_scores_are_refused(name: str) -> None:
    with pytest.raises(st.InputError, match=name):
        call(**{name: torch.ones(1)})


def test_more_keys_than_queries_without_a_mask_is_cross_attention() -> None:
    with pytest.raises(st.InputError, match="5 queries and 6 keys"):
        call(key=torch.randn(2, 4, 6, 8), value=torch.randn(2, 4, 6, 8))


@pytest.mark.parametrize("tau0", [0.0, -1.0])
def test_temperatures_that_are_not_positive_are_refused(tau0: float) -> None:
    with pytest.raises(st.InputError, match="tau0 must be positive"):
        hf.shape_(plain("gpt2"), tau0=tau0)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(st.InputError, match="knows no model type 'gpt-17'"):
        hf.register("gpt-17")
