"""Weightless models of Hugging Face's configurations."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import shaped_transformer as st
from shaped_transformer import InputError


def config() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    return transformers.LlamaConfig(vocab_size=50, **sizes)


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_as_object_folder_or_file(tmp_path: Path) -> None:
    ids = torch.arange(5)[None]
    expected = st.weightless.from_config(config(), 3)(ids).logits
    config().save_pretrained(tmp_path)
    for path in (tmp_path, str(tmp_path), tmp_path / "config.json"):
        assert torch.equal(st.weightless.from_config(path, 3)(ids).logits, expected)
    (tmp_path / "other.json").write_text(json.dumps({"model_type": "nothing"}))
    for wrong in (tmp_path / "other.json", tmp_path / "missing", tmp_path / "config.txt"):
        with pytest.raises(InputError, match="cannot be read as a configuration"):
            st.weightless.from_config(wrong)
    for other in (None, {"model_type": "gpt2"}, type(config())):
        with pytest.raises(InputError, match="config must be a Hugging Face configuration or a path to one"):
            st.weightless.from_config(other)


@pytest.mark.filterwarnings("ignore")
def test_the_configuration_is_not_changed_and_its_type_is_not_used() -> None:
    own = config()
    own.dtype = torch.bfloat16
    before = own.to_dict()
    model = st.weightless.from_config(own, dtype=torch.float64)
    assert own.to_dict() == before
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.filterwarnings("ignore")
def test_the_class_of_a_configuration() -> None:
    import transformers

    model = st.weightless.from_config(config(), cls=transformers.LlamaForSequenceClassification)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert type(st.weightless.from_config(config(), cls=transformers.AutoModel)).__name__ == "LlamaModel"
    for wrong, message in (
        (transformers.BertForMaskedLM, r"BertForMaskedLM takes a BertConfig \(got a LlamaConfig\)"),
        (transformers.AutoModelForMaskedLM, "AutoModelForMaskedLM has no model for a LlamaConfig: give another class"),
        ("LlamaForCausalLM", "cls must be a Hugging Face model class"),
        (nn.Linear, "cls must be a Hugging Face model class"),
    ):
        with pytest.raises(InputError, match=message):
            st.weightless.from_config(config(), cls=wrong)


@pytest.mark.filterwarnings("ignore")
def test_generation_is_that_of_one_network() -> None:
    model = st.weightless.from_config(config()).eval()
    ids = torch.tensor([[3, 4, 5]])
    out = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    for length in range(3, out.shape[1]):
        assert int(model(out[:, :length]).logits[0, -1].argmax()) == int(out[0, length])
