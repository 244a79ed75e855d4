"""A block of the shaped Transformer in the form that Hugging Face calls."""

from typing import Any

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from ..nn.block import ShapedBlock
from .config import ShapedTransformerConfig


class LayerCacheView:
    """One layer of a cache of Hugging Face, in the form that the attention modules use; it has no running means."""

    def __init__(self, cache: Any, layer: int) -> None:
        self.cache, self.layer = cache, layer

    @property
    def length(self) -> Any:
        """Number of tokens in the cache."""
        return self.cache.get_seq_length(self.layer)

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        """Add new keys and values; return all of them, and no running means."""
        return *self.cache.update(keys, values, self.layer), None


class ShapedTransformerLayer(GradientCheckpointingLayer):
    """A block of `nn` with the arguments of Hugging Face."""

    def __init__(self, config: ShapedTransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.block = ShapedBlock(config.hidden_size, config.num_attention_heads, **config.block_options())

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        past_key_values: Any = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return the hidden states after the block."""
        out: Tensor = self.block.mlp(
            self.block.attention(
                hidden_states,
                attn_mask=attention_mask,
                is_causal=is_causal,
                positions=positions,
                cache=None if past_key_values is None else LayerCacheView(past_key_values, self.layer),
            )
        )
        return out
