"""The configuration of the library's own models: what it knows, what it refuses, and that nobody changes it."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of their own parts

import shaped_transformer as st
from shaped_transformer import hf

SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OLDER: dict[str, Any] = {
    "_attn_implementation_autoset": True,
    "_name_or_path": "somewhere",
    "add_cross_attention": False,
    "architectures": ["ShapedTransformerForCausalLM"],
    "attn_implementation": "sdpa",
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "finetuning_task": None,
    "id2label": {"0": "old", "1": "middle", "2": "new"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"old": 0, "middle": 1, "new": 2},
    "max_length": 20,
    "model_type": "shaped_transformer",
    "num_beams": 1,
    "output_attentions": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "return_dict": True,
    "sep_token_id": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "torch_dtype": "float32",
    "torchscript": False,
    "transformers_version": "4.41.0",
    "use_bfloat16": False,
}
"""What transformers 4 writes into config.json."""


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("gama", "has no 'gama': did you mean gamma"),
        ("learnable_slope", "did you mean learnable_slopes"),
        ("kv_heads", "did you mean num_key_value_heads"),
        ("hidden_width", "did you mean intermediate_size"),
        ("qqq", "known are vocab_size, .*gamma, .*and those of all models"),
        ("rope_theta", "has no 'rope_theta'"),
    ],
)
def test_unknown_names_are_refused(key: str, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        hf.ShapedTransformerConfig(**(SMALL | {key: 1}))
    with pytest.raises(st.InputError, match=message):
        hf.ShapedTransformerConfig.from_dict(SMALL | {key: 1})
    with pytest.raises(st.InputError, match=message):
        transformers.AutoConfig.for_model("shaped_transformer", **SMALL, **{key: 1})


def test_what_another_version_wrote_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OLDER | SMALL | {"gamma": 0.3}))
    config: Any = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.gamma, config.num_labels, config.id2label[2], config.dtype) == (0.3, 3, "new", torch.float32)
    assert type(config) is hf.ShapedTransformerConfig
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config)
    assert model(torch.ones(1, 4, dtype=torch.long)).logits.shape == (1, 3)


def test_all_that_a_configuration_writes_it_reads(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_labels": 3, "problem_type": "multi_label_classification", "dtype": "bfloat16"}
    options |= {"output_hidden_states": True, "attn_implementation": "sdpa", "gamma": 0.3, "return_dict": True}
    config = hf.ShapedTransformerConfig(**SMALL, **options)
    config.save_pretrained(tmp_path)
    again: Any
    for again in (
        hf.ShapedTransformerConfig.from_pretrained(tmp_path),
        transformers.AutoConfig.from_pretrained(tmp_path),
        hf.ShapedTransformerConfig.from_dict(config.to_dict()),
        hf.ShapedTransformerConfig.from_dict(config.to_diff_dict()),
        hf.ShapedTransformerConfig(**config.to_dict()),
    ):
        assert (again.num_labels, again.problem_type, again.gamma) == (3, "multi_label_classification", 0.3)
        assert again.dtype == torch.bfloat16
        assert again.output_hidden_states
    more = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=5, gamma=0.2)
    assert (more.num_labels, more.gamma) == (5, 0.2)


def test_a_causal_model_leaves_the_callers_configuration_as_it_was(tmp_path: Path) -> None:
    config = hf.ShapedTransformerConfig(**SMALL)
    before = config.to_dict()
    model: Any = hf.ShapedTransformerForCausalLM(config)
    assert config.to_dict() == before
    assert not config.causal
    assert model.config.causal
    assert model.config is model.model.config
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM):
        made = auto.from_config(config)
        assert made.config.causal == (auto is transformers.AutoModelForCausalLM)
    assert config.to_dict() == before
    ids = torch.arange(1, 8)[None]
    other = ids.clone()
    other[0, -1] = 0
    masked: Any = hf.ShapedTransformerForMaskedLM(config)
    masked.eval()
    assert (masked(ids).logits[0, 0] - masked(other).logits[0, 0]).abs().max() > 1e-6  # it looks ahead
    model.eval().save_pretrained(tmp_path)
    again: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.causal
    torch.testing.assert_close(again(ids).logits, model(ids).logits)
    torch.testing.assert_close(again(ids).logits[0, 0], again(other).logits[0, 0])
    made = again.generate(ids, max_new_tokens=3, do_sample=False)
    assert made.shape == (1, 10)


@pytest.mark.parametrize(
    "make",
    [
        hf.ShapedTransformerModel,
        hf.ShapedTransformerForCausalLM,
        hf.ShapedTransformerForMaskedLM,
        hf.ShapedTransformerForSequenceClassification,
        hf.ShapedTransformerForImageClassification,
    ],
)
@pytest.mark.parametrize("wrong", [3, transformers.GPT2Config()])
def test_a_configuration_of_another_kind_is_told(make: Any, wrong: Any) -> None:
    with pytest.raises(
        st.InputError, match=f"ShapedTransformerConfig is expected .got {type(wrong).__name__}.: models"
    ):
        make(cast(Any, wrong))
