"""Families of models for tests of weightless laws: tiny, with large initial weights, so that nonlinearities matter."""

from typing import Any

import torch
import transformers
from torch import nn
from weightless_laws import Family, hugging_face, module

import shaped_transformer as st

IDS = torch.tensor([[5, 17, 5, 200, 17, 42]])
TWO = torch.tensor([[5, 17, 5, 200, 17, 42], [7, 42, 9, 5, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
TARGETS = torch.tensor([[11, 17, 250, 200, 3, 42]])
IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
VECTORS = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(2))
VECTORS[0, 3] = VECTORS[0, 1]
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
SHALLOW: dict[str, Any] = {**SIZES, "num_hidden_layers": 1}
IMAGE_SIZES: dict[str, Any] = {"image_size": 12, "patch_size": 4, "num_labels": 10} | {
    key: size for key, size in SHALLOW.items() if key != "vocab_size"
}
T5_SIZES: dict[str, Any] = {"vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 1, "num_heads": 4}
T5_SIZES["decoder_start_token_id"] = 0
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "tie_word_embeddings": False}


def causal(model: Any) -> Any:
    return (model(input_ids=IDS, labels=IDS).loss,)


def masked(model: Any) -> Any:
    labels = torch.where(MASK.bool(), TWO.flip(0), -100)
    return (model(input_ids=TWO, attention_mask=MASK, labels=labels).loss,)


def sequence(model: Any) -> Any:
    return (model(input_ids=IDS, labels=TARGETS).loss,)


def image(model: Any) -> Any:
    return (model(pixel_values=IMAGE, labels=torch.tensor([3])).loss,)


def square(model: Any) -> Any:
    return ((model(VECTORS) - VECTORS.roll(1, 1)).square().mean(),)


class OrthogonalMLP(nn.Module):
    """Orthogonal matrices, wide, square and narrow, and Gaussian biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 64)
        for part in (self.first, self.second, self.third):
            nn.init.orthogonal_(part.weight, gain=1.5)
            nn.init.normal_(part.bias, std=0.3)

    def forward(self, x: Any) -> Any:
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))


def gpt2_config(scale: float) -> Any:
    off: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "n_positions": 16,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 96,
    }
    return transformers.GPT2Config(initializer_range=0.15 * scale, **sizes, **off)


GPT2 = Family(
    hugging_face(gpt2_config, transformers.AutoModelForCausalLM),
    causal,
    "transformer.h.1",
    "transformer.drop",
    (
        "transformer.wte.weight",
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.1.mlp.c_proj.weight",
        "transformer.h.0.mlp.c_fc.bias",
    ),
)
LLAMA_PARAMETERS = (
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.input_layernorm.weight",
)
FAMILIES: dict[str, Family] = {
    "GPT-2": GPT2,
    "Llama": Family(
        hugging_face(
            lambda scale: transformers.LlamaConfig(initializer_range=0.15 * scale, **SIZES, **GROUPED),
            transformers.AutoModelForCausalLM,
        ),
        causal,
        "model.layers.1",
        "model.layers.0",
        (*LLAMA_PARAMETERS, "model.layers.1.mlp.down_proj.weight"),
    ),
    "Mixtral": Family(
        hugging_face(
            lambda scale: transformers.MixtralConfig(
                initializer_range=0.15 * scale, num_local_experts=4, **SHALLOW, **GROUPED
            ),
            transformers.AutoModelForCausalLM,
        ),
        causal,
        "model.layers.0",
        "model.embed_tokens",
        (*LLAMA_PARAMETERS, "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.gate.weight"),
    ),
    "BERT": Family(
        hugging_face(
            lambda scale: transformers.BertConfig(initializer_range=0.15 * scale, **SHALLOW),
            transformers.BertForMaskedLM,
        ),
        masked,
        "bert.encoder.layer.0.output.dense",
        "bert.embeddings",
        (
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.attention.self.value.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.encoder.layer.0.intermediate.dense.bias",
        ),
        tokens=((0, 1), (1, 1)),
    ),
    "ALBERT": Family(
        hugging_face(
            lambda scale: transformers.AlbertConfig(initializer_range=0.15 * scale, **SIZES, embedding_size=48),
            transformers.AlbertForMaskedLM,
        ),
        sequence,
        "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output",
        "albert.encoder.embedding_hidden_mapping_in",
        (
            "albert.embeddings.word_embeddings.weight",
            "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight",
            "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight",
            "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.bias",
        ),
    ),
    "T5": Family(
        hugging_face(
            lambda scale: transformers.T5Config(initializer_factor=scale, **T5_SIZES),
            transformers.AutoModelForSeq2SeqLM,
        ),
        sequence,
        "decoder.block.0.layer.2",
        "encoder.block.0",
        (
            "shared.weight",
            "encoder.block.0.layer.0.SelfAttention.v.weight",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "decoder.block.0.layer.1.EncDecAttention.k.weight",
            "decoder.block.0.layer.2.DenseReluDense.wo.weight",
        ),
    ),
    "ViT": Family(
        hugging_face(
            lambda scale: transformers.ViTConfig(initializer_range=0.15 * scale, **IMAGE_SIZES),
            transformers.ViTForImageClassification,
        ),
        image,
        "vit.layers.0",
        "vit.embeddings",
        (
            "vit.embeddings.patch_embeddings.projection.weight",
            "vit.embeddings.position_embeddings",
            "vit.layers.0.attention.q_proj.weight",
            "vit.layers.0.mlp.fc2.weight",
            "vit.layers.0.mlp.fc1.bias",
        ),
    ),
    "shaped, Hugging Face": Family(
        hugging_face(
            lambda scale: st.hf.ShapedTransformerConfig(initializer_range=0.15 * scale, gamma=0.5, **SIZES),
            transformers.AutoModelForCausalLM,
        ),
        causal,
        "model.layers.1",
        "model.layers.0",
        (
            "model.embeddings.weight",
            "head.weight",
            "model.layers.0.block.attention.branch.query.weight",
            "model.layers.1.block.mlp.branch.output.weight",
        ),
    ),
    "shaped": Family(
        module(lambda: st.nn.ShapedTransformer(width=64, depth=2, heads=4, gamma=0.5)),
        square,
        "blocks.1",
        "blocks.0",
        ("blocks.0.attention.branch.key.weight", "blocks.0.mlp.branch.input.weight"),
    ),
    "definition": Family(
        module(lambda: st.nn.from_architecture(st.pre_norm_transformer(64, 2, heads=2))),
        square,
        "1",
        "0",
        ("0.0.branch.value.weight", "1.1.branch.output.weight"),
    ),
    "orthogonal": Family(
        module(OrthogonalMLP),
        square,
        "third",
        "first",
        ("first.weight", "second.weight", "third.weight", "first.bias"),
    ),
}
