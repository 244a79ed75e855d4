"""Models and families that can be shaped, and the messages for those that cannot."""

from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

import shaped_transformer as st
from shaped_transformer import hf
from shaped_transformer.nn.functional import shaped_attention

SHAPEABLE = ("gpt2", "mistral", "mixtral", "vit", "wav2vec2")


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("t5", "'t5' has no shaped form: T5Config has cross-attention"),
        ("bart", "cross-attention"),
        ("encoder-decoder", "cross-attention"),
        ("gemma2", "'gemma2' has no shaped form: Gemma2Attention passes softcap"),
        ("gpt_oss", "passes s_aux"),
        ("bloom", "0 of 2 layers: it does not honour the attention interface"),
        ("mpt", "does not honour the attention interface"),
        ("clip", "composed of several models"),
        ("gpt-17", "knows no model type 'gpt-17'"),
        (3, "knows no model type 3"),
        (["mistral"], r"knows no model type \['mistral'\]"),
    ],
)
def test_families_that_cannot_be_shaped_are_refused_with_the_reason(family: Any, reason: str) -> None:
    with pytest.raises(st.InputError, match=reason):
        hf.register(family)


@pytest.mark.parametrize("family", SHAPEABLE)
def test_families_that_can_be_shaped_or_are_not_decided_pass(family: str) -> None:
    hf.register(family)


@pytest.mark.parametrize("family", SHAPEABLE)
def test_families_have_a_shaped_model_type(family: str) -> None:
    assert transformers.AutoConfig.for_model(f"shaped-{family}").model_type == f"shaped-{family}"


@pytest.mark.parametrize("wrong", [3, torch.nn.Linear(2, 2), "gpt2"])
def test_anything_but_a_model_of_hugging_face_is_refused(wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(st.InputError, match=f"a PreTrainedModel of Hugging Face is expected .got {kind}.: use st.nn"):
        hf.shape_(cast(Any, wrong))


def refused() -> Any:
    """Return a model that cannot be shaped, in training mode."""
    return transformers.AutoModelForCausalLM.from_config(
        transformers.Gemma2Config(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).train()


def test_a_model_that_is_refused_keeps_its_configuration() -> None:
    model = refused()
    config, fields = model.config, dict(vars(model.config))
    with pytest.raises(st.InputError, match="softcap"):
        hf.shape_(model)
    assert model.config is model.model.config is config
    assert vars(config) == fields


def test_a_model_that_is_refused_keeps_its_class_and_mode() -> None:
    model = refused()
    kind = type(model)
    with pytest.raises(st.InputError, match="softcap"):
        hf.shape_(model)
    assert type(model) is kind
    assert model.training


def test_a_model_of_unknown_inputs_needs_an_example() -> None:
    model = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, conv_dim=(8,) * 7
        )
    )
    with pytest.raises(st.InputError, match="Wav2Vec2Model takes input_values, for which there is no default example"):
        hf.shape_(model)


def test_attention_runs_on_the_meta_device() -> None:
    query, key, value = torch.empty(3, 2, 4, 5, 8, device="meta").unbind(0)
    assert shaped_attention(query, key, value, scale=1.0).shape == (2, 4, 5, 8)
