"""Tiny models to be probed: Hugging Face ones and modules of every habit."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.utils import logging

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # tiny vocabularies lack the usual special tokens

IDS = torch.tensor([[5, 17, 5, 200, 17, 42], [7, 42, 9, 5, 11, 3]])
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
OFF: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)


def gpt2(**options: Any) -> Any:
    sizes: dict[str, Any] = {"vocab_size": 300, "n_positions": 32, "n_embd": 32, "n_layer": 3, "n_head": 4} | options
    return seeded(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**OFF, **sizes)))


def bert() -> Any:
    return seeded(lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)))


def llama() -> Any:
    return seeded(lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2)))


def albert() -> Any:
    return seeded(lambda: transformers.AlbertModel(transformers.AlbertConfig(**SIZES, embedding_size=16)))


def t5() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    sizes |= {"num_decoder_layers": 3, "decoder_start_token_id": 0}
    config = transformers.T5Config(**sizes)
    return seeded(lambda: transformers.T5ForConditionalGeneration(config))


def seeded(build: Any) -> Any:
    """Return a model whose weights are always the same, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def vectors(batch: int = 2, tokens: int = 5, width: int = 8) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    """A residual block that returns its tokens in a way of its own."""

    def __init__(self, wrap: Any = lambda x: x, width: int = 8) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(width, width), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x + torch.tanh(self.linear(x)))


class Overwriting(Block):
    """A residual block that adds to its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(torch.tanh(self.linear(x.clone())))


class Stack(nn.Module):
    """Blocks in a list, after an embedding.

    - `unwrap`: gets the tokens out of what a block returns.
    - `after`: done with the tokens between blocks.
    """

    def __init__(
        self, block: Any = Block, depth: int = 3, unwrap: Any = lambda y: y, after: Any = lambda x: x, width: int = 8
    ) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.layers = nn.ModuleList(block() for _ in range(depth))
        self.unwrap, self.after = unwrap, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = self.after(self.unwrap(layer(x)))
        return x


class Checkpointed(Stack):
    """Blocks that run again in the backward pass."""

    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return x


class Direct(nn.Module):
    """Blocks that are given the batch itself."""

    def __init__(self, block: Any = Block) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
