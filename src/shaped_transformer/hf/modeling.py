"""The models for Hugging Face, made of the blocks of `nn`."""

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
from ..nn.model import POSITION_STD
from ..nn.rates import head_std
from ..nn.shaping import Shaping
from ..nn.skipinit import SkipInitAttention
from .config import ShapedTransformerConfig
from .layer import ShapedTransformerLayer


class ShapedTransformerPreTrainedModel(PreTrainedModel):
    """Base class of the models: names, capabilities and initialisation."""

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
                f"a ShapedTransformerConfig is expected (got {type(config).__name__}): shape models of other "
                "configurations with st.hf.shape_"
            )
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise weights as N(0, 1/fan-in), tokens with unit variance (theory §2), and positions small beside them.

        A head starts with `nn.head_std`, which is smaller in models wider than 64. With `initializer_range` the
        initialisation is that of normalised Transformers instead.
        """
        usual = self.config.initializer_range
        if isinstance(module, nn.Linear):
            scaled = math.sqrt(2 * self.config.num_hidden_layers) if isinstance(module, BranchOutput) else 1.0
            own = head_std(module.in_features) if self._is_head(module) else module.in_features**-0.5
            initialization.normal_(module.weight, std=usual / scaled if usual else own)
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

    def _is_head(self, module: nn.Module) -> bool:
        """Return whether a module makes the outputs, as logits or as scores of labels."""
        return module in (getattr(self, "head", None), getattr(self, "score", None))


class ShapedTransformerModel(ShapedTransformerPreTrainedModel):
    """The shaped Transformer without a head: token embeddings, shaped blocks, and by default a final norm.

    ```python
    config = st.hf.ShapedTransformerConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2)
    model = st.hf.ShapedTransformerModel(config)
    model(torch.randint(100, (2, 9))).last_hidden_state  # (2, 9, 32)
    ```

    **Arguments:**

    - `config`: a `ShapedTransformerConfig`.

    **Raises:** `InputError` for another configuration.
    """

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
        """Return the hidden states after the last block.

        **Arguments:** as in all models of Hugging Face.

        - `input_ids`: whole numbers, (batch, T); or `inputs_embeds`: token vectors, (batch, T, n).
        - `attention_mask`: (batch, keys), 1 for tokens and 0 for padding; default no padding.
        - `position_ids`: (batch, T); by default they count the tokens from 0, without padding.
        - `past_key_values`: a cache, to which a causal model adds the new tokens; default none.
        - `use_cache`: whether a causal model makes a cache if there is none; default the configuration's.

        **Returns:** `last_hidden_state`, (batch, T, n), and `past_key_values`.

        **Raises:** `InputError` unless exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give input_ids or inputs_embeds, and only one of them")
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        causal = self.config.causal
        if use_cache and causal and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past_key_values = past_key_values if causal else None
        if position_ids is None:
            start = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = _count_tokens(attention_mask, int(start), x)
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


def _count_tokens(attention_mask: Tensor | None, start: int, x: Tensor) -> Tensor:
    """Return the positions of the tokens after the first `start`, which count the tokens of a mask, (batch, keys)."""
    stop = start + x.shape[1]
    if attention_mask is None or attention_mask.dim() != 2 or attention_mask.shape[1] < stop:
        return torch.arange(start, stop, device=x.device)[None]
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, start:stop]


class ShapedTransformerLanguageModel(ShapedTransformerPreTrainedModel):
    """Base class of the language models: the model without a head, and a head with a logit for each token."""

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


class ShapedTransformerForCausalLM(ShapedTransformerLanguageModel, GenerationMixin):
    """A causal language model. Its configuration is a copy of the given one, with `causal` set.

    ```python
    config = st.hf.ShapedTransformerConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, gamma=0.3)
    model = st.hf.ShapedTransformerForCausalLM(config)
    ids = torch.randint(100, (2, 9))
    model(ids, labels=ids).loss.backward()
    ```

    **Arguments:**

    - `config`: a `ShapedTransformerConfig`.

    **Raises:** `InputError` for another configuration.
    """

    def __init__(self, config: ShapedTransformerConfig) -> None:
        if isinstance(config, ShapedTransformerConfig):
            config = copy.deepcopy(config)  # the caller may build other models with it
            config.causal = True
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,  # in the signature, because `generate` counts positions only where it is
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits of the next tokens, and the loss if `labels` are given.

        **Arguments:** as in `ShapedTransformerModel.forward`, and

        - `labels`: the tokens themselves, (batch, T), −100 where there is no loss; default none.
        - `logits_to_keep`: number of last tokens whose logits are computed, or their indices; default 0, all tokens.

        **Returns:** `logits`, (batch, T, vocabulary), `loss` and `past_key_values`.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )


class ShapedTransformerForMaskedLM(ShapedTransformerLanguageModel):
    """A masked language model, which attends to earlier and later tokens.

    ```python
    config = st.hf.ShapedTransformerConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2)
    model = st.hf.ShapedTransformerForMaskedLM(config)
    model(torch.randint(100, (2, 9))).logits  # (2, 9, 100)
    ```

    **Arguments:**

    - `config`: a `ShapedTransformerConfig`.

    **Raises:** `InputError` for another configuration.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Return the logits of the tokens, and the loss if `labels` are given.

        **Arguments:** as in `ShapedTransformerModel.forward`, and

        - `labels`: the true tokens, (batch, T), −100 where there is no loss; default none.

        **Returns:** `logits`, (batch, T, vocabulary), and `loss`.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class ShapedTransformerForSequenceClassification(ShapedTransformerPreTrainedModel):
    """A classifier of sequences, by the mean of the hidden states of their tokens without padding.

    ```python
    config = st.hf.ShapedTransformerConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_labels=3)
    model = st.hf.ShapedTransformerForSequenceClassification(config)
    model(torch.randint(100, (2, 9))).logits  # (2, 3)
    ```

    **Arguments:**

    - `config`: a `ShapedTransformerConfig`, with `num_labels`.

    **Raises:** `InputError` for another configuration.
    """

    accepts_loss_kwargs = False
    """The loss is a mean over the batch, not over the items that the Trainer counts in all processes."""

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
        """Return a logit for each label, and the loss if `labels` are given.

        **Arguments:** as in `ShapedTransformerModel.forward`, and

        - `labels`: one for each sequence, (batch,); default none.

        **Returns:** `logits`, (batch, labels), and `loss`.
        """
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
