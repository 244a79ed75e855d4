"""The configuration of the library's own models: the names it knows, its files, and that models do not change it."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

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
"""Names that transformers 4 writes into config.json."""


@pytest.mark.parametrize("field", dataclasses.fields(cast(Any, st.nn.BlockOptions)), ids=lambda field: field.name)
def test_defaults_are_those_of_the_blocks_options(field: Any) -> None:
    names = {"kv_heads": "num_key_value_heads", "hidden_width": "intermediate_size"}
    config = hf.ShapedTransformerConfig()
    if field.name == "rotary":
        assert config.position_embedding == "rotary"  # a default that differs
    elif field.name == "gamma":
        assert config.gamma == pytest.approx(0.5 / 12**0.5)  # that of a network of this depth
    else:
        assert getattr(config, names.get(field.name, field.name)) == field.default


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda config: pickle.loads(pickle.dumps(config))])
def test_copies_are_the_same_configuration(copied: Any) -> None:
    config = hf.ShapedTransformerConfig(**SMALL, gamma=0.3)
    again = copied(config)
    assert type(again) is type(config)
    assert again.to_dict() == config.to_dict()


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
@pytest.mark.parametrize(
    "build",
    [
        lambda **names: hf.ShapedTransformerConfig(**names),
        lambda **names: hf.ShapedTransformerConfig.from_dict(names),
        lambda **names: transformers.AutoConfig.for_model("shaped_transformer", **names),
    ],
    ids=["class", "from_dict", "AutoConfig"],
)
def test_unknown_names_are_refused(build: Any, key: str, message: str) -> None:
    with pytest.raises(st.InputError, match=message):
        build(**SMALL, **{key: 1})


@pytest.fixture
def older(tmp_path: Path) -> Any:
    """Return the configuration in a file of another version of transformers."""
    (tmp_path / "config.json").write_text(json.dumps(OLDER | SMALL | {"gamma": 0.3}))
    return transformers.AutoConfig.from_pretrained(tmp_path)


def test_a_file_of_another_version_is_read(older: Any) -> None:
    assert (older.gamma, older.num_labels, older.id2label[2], older.dtype) == (0.3, 3, "new", torch.float32)
    assert type(older) is hf.ShapedTransformerConfig


def test_a_model_is_built_from_a_file_of_another_version(older: Any) -> None:
    model: Any = transformers.AutoModelForSequenceClassification.from_config(older)
    assert model(torch.ones(1, 4, dtype=torch.long)).logits.shape == (1, 3)


def configuration_with_inherited_names() -> Any:
    options: dict[str, Any] = {"num_labels": 3, "problem_type": "multi_label_classification", "dtype": "bfloat16"}
    options |= {"output_hidden_states": True, "attn_implementation": "sdpa", "gamma": 0.3, "return_dict": True}
    return hf.ShapedTransformerConfig(**SMALL, **options)


@pytest.mark.parametrize(
    "read",
    [
        lambda _, folder: hf.ShapedTransformerConfig.from_pretrained(folder),
        lambda _, folder: transformers.AutoConfig.from_pretrained(folder),
        lambda config, _: hf.ShapedTransformerConfig.from_dict(config.to_dict()),
        lambda config, _: hf.ShapedTransformerConfig.from_dict(config.to_diff_dict()),
        lambda config, _: hf.ShapedTransformerConfig(**config.to_dict()),
    ],
    ids=["file", "AutoConfig", "to_dict", "to_diff_dict", "arguments"],
)
def test_a_configuration_is_read_as_it_was_written(read: Any, tmp_path: Path) -> None:
    config = configuration_with_inherited_names()
    config.save_pretrained(tmp_path)
    again = read(config, tmp_path)
    assert (again.num_labels, again.problem_type, again.gamma) == (3, "multi_label_classification", 0.3)
    assert again.dtype == torch.bfloat16
    assert again.output_hidden_states


def test_names_given_when_a_file_is_read_replace_its_own(tmp_path: Path) -> None:
    configuration_with_inherited_names().save_pretrained(tmp_path)
    changed = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=5, gamma=0.2)
    assert (changed.num_labels, changed.gamma) == (5, 0.2)


def test_a_causal_model_does_not_change_the_given_configuration() -> None:
    config = hf.ShapedTransformerConfig(**SMALL)
    before = config.to_dict()
    hf.ShapedTransformerForCausalLM(config)
    assert config.to_dict() == before
    assert not config.causal


def test_the_parts_of_a_causal_model_share_its_causal_configuration() -> None:
    model: Any = hf.ShapedTransformerForCausalLM(hf.ShapedTransformerConfig(**SMALL))
    assert model.config.causal
    assert model.config is model.model.config


def test_causal_and_masked_models_are_built_with_one_configuration() -> None:
    config = hf.ShapedTransformerConfig(**SMALL)
    before = config.to_dict()
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM):
        made = auto.from_config(config)
        assert made.config.causal == (auto is transformers.AutoModelForCausalLM)
    assert config.to_dict() == before


IDS = torch.arange(1, 8)[None]
OTHER_LAST = torch.cat([IDS[:, :-1], torch.zeros(1, 1, dtype=torch.long)], 1)
"""The same tokens but the last."""


def test_a_masked_model_attends_to_later_tokens() -> None:
    """Also where a causal model was built with the same configuration before."""
    config = hf.ShapedTransformerConfig(**SMALL)
    hf.ShapedTransformerForCausalLM(config)
    model: Any = hf.ShapedTransformerForMaskedLM(config)
    model.eval()
    assert (model(IDS).logits[0, 0] - model(OTHER_LAST).logits[0, 0]).abs().max() > 1e-6


def saved_and_loaded(folder: Path) -> tuple[Any, Any]:
    """Return a causal model, and the one that its file gives."""
    model: Any = hf.ShapedTransformerForCausalLM(hf.ShapedTransformerConfig(**SMALL))
    model.eval().save_pretrained(folder)
    return model, transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_a_causal_model_is_causal_when_loaded(tmp_path: Path) -> None:
    model, again = saved_and_loaded(tmp_path)
    assert again.config.causal
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits)
    torch.testing.assert_close(again(IDS).logits[0, 0], again(OTHER_LAST).logits[0, 0])


def test_a_causal_model_generates_when_loaded(tmp_path: Path) -> None:
    _, again = saved_and_loaded(tmp_path)
    assert again.generate(IDS, max_new_tokens=3, do_sample=False).shape == (1, 10)


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
def test_a_configuration_of_another_kind_is_refused(make: Any, wrong: Any) -> None:
    with pytest.raises(
        st.InputError, match=f"ShapedTransformerConfig is expected .got {type(wrong).__name__}.: shape models"
    ):
        make(cast(Any, wrong))
