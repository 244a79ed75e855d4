"""Roles of weights, told by their names in the models of transformers, of `torch.nn` and of this library."""

import pytest

pytest.importorskip("torch")

from shaped_transformer.rehearse.roles import ROLES, block, by_role, role

NAMES = {
    "model.embed_tokens.weight": "embedding",
    "transformer.wpe.weight": "embedding",
    "gpt_neox.embed_in.weight": "embedding",
    "shared.weight": "embedding",
    "bert.embeddings.word_embeddings.weight": "embedding",
    "model.layers.0.self_attn.q_proj.weight": "query",
    "model.layers.3.self_attn.q_b_proj.weight": "query",
    "decoder.block.1.layer.1.EncDecAttention.q.weight": "query",
    "transformer.layer.0.attention.k_lin.weight": "key",
    "bert.encoder.layer.0.attention.self.key.weight": "key",
    "model.layers.11.block.attention.branch.value.weight": "value",
    "transformer.h.0.attn.c_attn.weight": "query, key, value",
    "gpt_neox.layers.0.attention.query_key_value.weight": "query, key, value",
    "encoder.layers.0.self_attn.in_proj_weight": "query, key, value",
    "layers.2.attn.Wqkv.weight": "query, key, value",
    "transformer.h.0.attn.c_proj.weight": "attention output",
    "gpt_neox.layers.0.attention.dense.weight": "attention output",
    "bert.encoder.layer.0.attention.output.dense.weight": "attention output",
    "encoder.block.0.layer.0.SelfAttention.o.weight": "attention output",
    "layers.2.attn.Wo.weight": "attention output",
    "blocks.0.attention.branch.output.weight": "attention output",
    "transformer.h.0.mlp.c_fc.weight": "MLP in",
    "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": "MLP in",
    "bert.encoder.layer.0.intermediate.dense.weight": "MLP in",
    "blocks.0.mlp.branch.input.weight": "MLP in",
    "model.layers.0.mlp.experts.gate_up_proj": "MLP in",
    "encoder.block.0.layer.1.DenseReluDense.wo.weight": "MLP out",
    "transformer.h.0.mlp.c_proj.weight": "MLP out",
    "bert.encoder.layer.0.output.dense.weight": "MLP out",
    "encoder.layers.0.linear2.weight": "MLP out",
    "model.layers.0.mlp.gate.weight": "router",
    "lm_head.weight": "head",
    "embed_out.weight": "head",
    "head.weight": "head",
    "model.layers.0.self_attn.q_norm.weight": "other",
    "transformer.h.0.attn.c_attn.bias": "other",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "other",
    "backbone.layers.0.mixer.in_proj.weight": "other",
    "model.norm.weight": "other",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_a_name_tells_the_role(name: str, expected: str) -> None:
    assert role(name) == expected


def test_every_role_has_a_name_here() -> None:
    assert set(NAMES.values()) == set(ROLES)


def test_a_block_is_the_beginning_up_to_the_first_number() -> None:
    assert block("model.layers.3.mlp.experts.5.w1.weight") == "model.layers.3"
    assert block("encoder.block.0.layer.1.DenseReluDense.wo.weight") == "encoder.block.0"
    assert block("0.weight") == "0"
    assert block("lm_head.weight") is None
    assert block("conv1d.weight") is None


def test_weights_are_sorted_by_role_and_block() -> None:
    names = ["head.weight", "h.0.mlp.up_proj.weight", "h.0.mlp.gate_proj.weight", "h.1.mlp.up_proj.weight"]
    found = by_role(names)
    assert found == {"MLP in": {"h.0": [1, 2], "h.1": [3]}, "head": {"": [0]}}
    assert list(found) == ["MLP in", "head"]
