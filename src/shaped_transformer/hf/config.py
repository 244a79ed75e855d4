"""The configuration of the Hugging Face models."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from ..errors import InputError
from ..nn import BlockOptions

TAKEN = {"kv_heads": "num_key_value_heads", "hidden_width": "intermediate_size"}
"""Options of a block that go by Hugging Face's names here."""
OTHERS = {
    *GenerationConfig().to_dict(),  # older versions wrote them into config.json
    *(name for name, part in vars(PreTrainedConfig).items() if isinstance(part, property)),
    *("model_type", "attn_implementation", "experts_implementation", "per_layer_config", "quantization_config"),
    *("auto_map", "custom_pipelines", "is_decoder", "add_cross_attention", "cross_attention_hidden_size"),
    *("torchscript", "use_bfloat16", "tf_legacy_loss"),
    *("tie_encoder_decoder", "pruned_heads", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix"),
    *("sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id"),
    *("gradient_checkpointing", "loss_type", "fusion_config", "base_model_tp_plan", "base_model_pp_plan"),
} - {"rope_scaling"}
"""What Hugging Face, of this version or an older one, gives a configuration besides the fields of its class."""


class ShapedTransformerConfig(PreTrainedConfig):
    """Everything that a shaped Transformer of Hugging Face is made of.

    **Arguments:**

    - `vocab_size`, `hidden_size` (n), `num_hidden_layers` (blocks d), `num_attention_heads` (H), `num_key_value_heads`
      (default H), `intermediate_size` (of the MLP, default n), `max_position_embeddings`.
    - `position_embedding`: `"rotary"` (default), `"learned"` or `"none"`.
    - `initializer_range`: default `None`, the theory's initialisation: weights N(0, 1/fan-in), tokens of unit variance.
      A number is the usual one of normalised Transformers, for baselines: the standard deviation of all weights,
      divided by √(2d) for those of the last map of each branch.
    - `position_std`: of learned positions at initialisation; default `None`, 0.02 or `initializer_range`. Images, which
      have no other trace of their places, learn faster with 1.
    - `image_size`, `patch_size`, `num_channels`: of square images and patches, for `…ForImageClassification`.
    - `final_norm`: RMSNorm before the head, default true; the blocks have none unless `norm` says so.
    - `gamma`, `skip`, `tau0`, `c_plus`, `c_minus`, `learnable_slopes`, `attention`, `activation`, `norm`,
      `normaliser`, `shaping`, `recover_steps`, `dropout`, `causal`: as in `nn.BlockOptions`. `…ForCausalLM` sets
      `causal` in its copy.

    **Raises:** `InputError` or `DefinitionError` for values that do not fit, and for names that neither the list above
    nor Hugging Face knows.
    """

    model_type = "shaped_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - the base class's way

    vocab_size: int = 32_000
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 2048
    position_embedding: str = "rotary"
    final_norm: bool = True
    initializer_range: float | None = None
    position_std: float | None = None
    image_size: int | None = None
    patch_size: int | None = None
    num_channels: int = 1
    gamma: float = 0.5
    skip: float | None = None
    tau0: float = 1.0
    c_plus: float = 0.0
    c_minus: float = -1.0
    learnable_slopes: bool = False
    attention: str = "shaped"
    activation: str = "shaped"
    norm: str = "none"
    normaliser: str = "rms"
    shaping: str = "fixed"
    recover_steps: int | None = None
    dropout: float = 0.0
    causal: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = [key for key in kwargs if key not in OTHERS and not key.startswith("_")]
        if unknown:
            raise InputError(_unknown(unknown[0], [field.name for field in fields(self)]))
        super().__post_init__(**kwargs)
        if self.position_embedding not in ("rotary", "learned", "none"):
            raise InputError(
                f"position_embedding must be 'rotary', 'learned' or 'none' (got {self.position_embedding!r})"
            )
        if self.initializer_range is not None and not self.initializer_range > 0:
            raise InputError(f"initializer_range must be positive, or None (got {self.initializer_range})")
        self.block_options()

    def block_options(self) -> dict[str, Any]:
        """Return the options of a block, checked."""
        own: dict[str, Any] = {
            field.name: getattr(self, TAKEN.get(field.name, field.name), None) for field in fields(BlockOptions)
        }
        own["rotary"] = self.position_embedding == "rotary"
        BlockOptions(**own)
        return own


def _unknown(key: str, known: list[str]) -> str:
    """What to say of a name that nobody knows."""
    own = [name for name in known if name not in {field.name for field in fields(PreTrainedConfig)}]
    near = [TAKEN[key]] if key in TAKEN else get_close_matches(key, known)
    way_out = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(own)}, and those of all models"
    return f"ShapedTransformerConfig has no {key!r}: {way_out}"
