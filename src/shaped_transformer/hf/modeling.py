"""Models of Hugging Face whose blocks are those of `nn`."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
    initialization,
)
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..errors import InputError
from ..nn.activation import ShapedReLU
from ..nn.attention import BranchOutput
from ..nn.block import ShapedBlock
from ..nn.model import POSITION_STD
from ..nn.shaping import Shaping
from ..nn.skipinit import SkipInitAttention
from .config import ShapedTransformerConfig


class LayerCacheView:
    """One layer of a cache of Hugging Face, as the attention modules ask for it; running means are not kept there."""

    def __init__(self, cache: Any, layer: int) -> None:
        self.cache, self.layer = cache, layer

    @property
    def length(self) -> Any:
        """How many tokens were seen."""
        return self.cache.get_seq_length(self.layer)

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        """Add new keys and values; return all of them."""
        return *self.cache.update(keys, values, self.layer), None


class ShapedTransformerLayer(GradientCheckpointingLayer):
    """A block as Hugging Face calls it."""

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


class ShapedTransformerPreTrainedModel(PreTrainedModel):
    """What all models share: names, capabilities, initialisation."""

    config_class = ShapedTransformerConfig
    config: ShapedTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ShapedTransformerLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ShapedTransformerLayer}  # noqa: RUF012

    def __init__(self, config: ShapedTransformerConfig) -> None:
        if not isinstance(config, ShapedTransformerConfig):
            raise InputError(
                f"a ShapedTransformerConfig is expected (got {type(config).__name__}): models of other configurations "
                "become shaped by st.hf.shape_"
            )
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights N(0, 1/fan-in), tokens of unit variance (theory §2), positions small beside them.

        With `initializer_range` the usual way of normalised Transformers instead.
        """
        usual = self.config.initializer_range
        if isinstance(module, nn.Linear):
            scaled = math.sqrt(2 * self.config.num_hidden_layers) if isinstance(module, BranchOutput) else 1.0
            initialization.normal_(module.weight, std=usual / scaled if usual else module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            positions = module is getattr(getattr(self, "model", self), "positions", None)
            chosen = self.config.position_std if positions else None
            initialization.normal_(module.weight, std=chosen or usual or (POSITION_STD if positions else 1.0))
        elif isinstance(module, SkipInitAttention):
            initialization.ones_(module.identity_gain)
            initialization.zeros_(module.softmax_gain)
        elif isinstance(module, nn.RMSNorm | nn.LayerNorm):
            initialization.ones_(module.weight)
            if isinstance(module, nn.LayerNorm) and module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, Shaping):
            initialization.ones_(module.identity_gain)
            initialization.ones_(module.uniform_gain)
            initialization.zeros_(module.step)
        elif isinstance(module, ShapedReLU):
            root = self.config.hidden_size**-0.5
            initialization.constant_(module.slope_plus, 1 + self.config.c_plus * root)
            initialization.constant_(module.slope_minus, 1 + self.config.c_minus * root)


class ShapedTransformerModel(ShapedTransformerPreTrainedModel):
    """Token embeddings, shaped blocks, and a norm at the end if the configuration says so."""

    def __init__(self, config: ShapedTransformerConfig) -> None:
        super().__init__(config)
        n = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, n)
        learned = config.position_embedding == "learned"
        self.positions = nn.Embedding(config.max_position_embeddings, n) if learned else None
        self.layers = nn.ModuleList(ShapedTransformerLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(n, eps=1e-6) if config.final_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.embeddings

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the token embeddings."""
        self.embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states after the last block; arguments as in all models of Hugging Face."""
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give input_ids or inputs_embeds, and only one of them")
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        causal = self.config.causal
        if use_cache and causal and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past_key_values = past_key_values if causal else None
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(x.shape[1], device=x.device) + seen)[None]
        if self.positions is not None:
            x = x + self.positions(position_ids)
        if causal:
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=x,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
        else:
            mask = create_bidirectional_mask(config=self.config, inputs_embeds=x, attention_mask=attention_mask)
        for layer in self.layers:
            x = layer(
                x,
                attention_mask=mask,
                positions=position_ids,
                past_key_values=past_key_values,
                is_causal=causal and mask is None,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)


class ShapedTransformerForCausalLM(ShapedTransformerPreTrainedModel, GenerationMixin):
    """A causal language model: its `config` is a copy of what it is given, with `causal` set."""

    _tied_weights_keys = {"head.weight": "model.embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ShapedTransformerConfig) -> None:
        if isinstance(config, ShapedTransformerConfig):
            config = copy.deepcopy(config)  # the caller may build other models of it
            config.causal = True
        super().__init__(config)
        self.model = ShapedTransformerModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.head = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits of the next tokens, and their loss if `labels` are given."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )


class ShapedTransformerForMaskedLM(ShapedTransformerPreTrainedModel):
    """A masked language model."""

    _tied_weights_keys = {"head.weight": "model.embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ShapedTransformerConfig) -> None:
        super().__init__(config)
        self.model = ShapedTransformerModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.head = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Return logits of the tokens, and the loss where `labels` are not −100."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class ShapedTransformerForSequenceClassification(ShapedTransformerPreTrainedModel):
    """A classifier of sequences, by the mean of the hidden states of their tokens, padding left out."""

    accepts_loss_kwargs = False
    """The loss is a mean over the batch, not over what the Trainer counts in all processes."""

    def __init__(self, config: ShapedTransformerConfig) -> None:
        super().__init__(config)
        self.model = ShapedTransformerModel(config)
        self.score = nn.Linear(config.hidden_size, int(config.num_labels or 0), bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Return a logit for each label, and the loss if `labels` are given."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        hidden = outputs.last_hidden_state
        if attention_mask is None:
            pooled = hidden.mean(1)
        else:
            weights = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        logits = self.score(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


AutoConfig.register("shaped_transformer", ShapedTransformerConfig, exist_ok=True)
for _auto, _model in (
    (AutoModel, ShapedTransformerModel),
    (AutoModelForCausalLM, ShapedTransformerForCausalLM),
    (AutoModelForMaskedLM, ShapedTransformerForMaskedLM),
    (AutoModelForSequenceClassification, ShapedTransformerForSequenceClassification),
):
    _auto.register(ShapedTransformerConfig, _model, exist_ok=True)
