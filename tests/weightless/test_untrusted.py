"""A configuration in a file cannot choose an implementation for which transformers downloads compiled code."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.probe.configurations import read_configuration
from shaped_transformer.weightless.untrusted import without_kernels

SIZES = {"model_type": "gpt2", "vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2}
KERNEL = "kernels-community/flash-attn2"


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("value", [KERNEL, "flash_attention_2", {"": KERNEL}])
def test_a_file_cannot_name_a_kernel_of_the_hub(key: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SIZES | {key: value}), encoding="utf-8")
    assert read_configuration(file)._attn_implementation is None
    model: Any = st.weightless.from_config(file, seed=0)
    assert model.config._attn_implementation in ("eager", "sdpa")


def test_nor_can_the_configurations_inside_it() -> None:
    inner = {"hidden_size": 8, "attn_implementation": KERNEL, "experts_implementation": "somebody/moe"}
    kept = {"text_config": {"hidden_size": 8}, "parts": [{"hidden_size": 8}]}
    assert without_kernels({"text_config": inner, "parts": [inner]}) == kept


def test_plain_attention_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SIZES | {"attn_implementation": "eager"}), encoding="utf-8")
    assert read_configuration(file)._attn_implementation == "eager"
