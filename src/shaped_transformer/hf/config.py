"""The configuration of the Hugging Face models."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from ..checks import check_counts
from ..design.architecture import default_gamma
from ..design.heads import heads_problem
from ..design.named import NAMED
from ..errors import InputError
from ..nn import BlockOptions

HUGGING_FACE_NAMES = {"kv_heads": "num_key_value_heads", "hidden_width": "intermediate_size"}
"""Options of a block that have Hugging Face's names here."""
INHERITED_NAMES = {
    *GenerationConfig().to_dict(),  # older versions write them into config.json
    *(name for name, part in vars(PreTrainedConfig).items() if isinstance(part, property)),
    *("model_type", "attn_implementation", "experts_implementation", "per_layer_config", "quantization_config"),
    *("auto_map", "custom_pipelines", "is_decoder", "add_cross_attention", "cross_attention_hidden_size"),
    *("torchscript", "use_bfloat16", "tf_legacy_loss"),
    *("tie_encoder_decoder", "pruned_heads", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix"),
    *("sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id"),
    *("gradient_checkpointing", "loss_type", "fusion_config", "base_model_tp_plan", "base_model_pp_plan"),
} - {"rope_scaling"}
"""Names besides its fields that this or an older version of Hugging Face gives a configuration."""


class ShapedTransformerConfig(PreTrainedConfig):
    """The configuration of the shaped Transformer's models for Hugging Face.

    ```python
    config = st.hf.ShapedTransformerConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, gamma=0.3)
    config.save_pretrained("my-model")
    st.hf.ShapedTransformerConfig.from_pretrained("my-model").gamma  # 0.3
    ```

    **Arguments:**

    - `vocab_size`: number of tokens of the vocabulary, default 32,000.
    - `hidden_size`: n, the number of coordinates of a token, default 256.
    - `num_hidden_layers`: d, the number of blocks, default 12.
    - `num_attention_heads`: H, default 4.
    - `num_key_value_heads`: number of heads of keys and values, a divisor of H; default H.
    - `intermediate_size`: hidden width of the MLP, default n.
    - `key_width`, `value_width`: coordinates of the keys and of the values of one head, default n // H.
    - `output_projection`: whether the heads' outputs are multiplied by a matrix; default exactly when H > 1.
    - `max_position_embeddings`: number of learned positions, default 2048.
    - `position_embedding`: `"rotary"` (default), `"learned"` or `"none"`.
    - `final_norm`: whether an RMSNorm precedes the head, default yes; the blocks have norms only by `norm`.
    - `initializer_range`: default `None`, the theory's initialisation: weights N(0, 1/fan-in), tokens of unit variance,
      a head of standard deviation `st.nn.head_std(n)`. A number is the initialisation of normalised Transformers, for
      baselines: the standard deviation of all weights, divided by √(2d) for the last map of each branch.
    - `position_std`: standard deviation of learned positions at initialisation; default `None`, which is
      `initializer_range` or else 0.02. Images, whose patches have no other mark of their place, learn faster with 1.
    - `image_size`, `patch_size`, `num_channels`: of square images and patches, for `…ForImageClassification`; default
      no images, one channel.
    - `gamma`: γ of the branches, in (0, 1] unless `skip` is given; default 0.5/√num_hidden_layers.
    - `skip`, `tau0`, `c_plus`, `c_minus`, `learnable_slopes`, `attention`, `norm`, `normaliser`, `shaping`,
      `recover_steps`, `dropout`, `causal`: as in `nn.BlockOptions`, with its defaults. `…ForCausalLM` sets `causal` in
      its copy.
    - `activation`: one of the names in `nn.BlockOptions`, such as `"gelu"` or `"shaped-tanh"`; default `"shaped"`.
    - `use_cache`, `tie_word_embeddings`, `pad_token_id`, `bos_token_id`, `eos_token_id` and further ones: as in all
      configurations of Hugging Face.

    **Raises:** `InputError` or `DefinitionError` for values that do not fit, and `InputError` for names that are
    neither above nor Hugging Face's.
    """

    model_type = "shaped_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - as in the base class

    vocab_size: int = 32_000
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    key_width: int | None = BlockOptions.key_width
    value_width: int | None = BlockOptions.value_width
    output_projection: bool | None = BlockOptions.output_projection
    max_position_embeddings: int = 2048
    position_embedding: str = "rotary"
    final_norm: bool = True
    initializer_range: float | None = None
    position_std: float | None = None
    image_size: int | None = None
    patch_size: int | None = None
    num_channels: int = 1
    gamma: float | None = None
    skip: float | None = BlockOptions.skip
    tau0: float = BlockOptions.tau0
    c_plus: float = BlockOptions.c_plus
    c_minus: float = BlockOptions.c_minus
    learnable_slopes: bool = BlockOptions.learnable_slopes
    attention: str = BlockOptions.attention
    activation: str = "shaped"
    norm: str = BlockOptions.norm
    normaliser: str = BlockOptions.normaliser
    shaping: str = BlockOptions.shaping
    recover_steps: int | None = BlockOptions.recover_steps
    dropout: float = BlockOptions.dropout
    causal: bool = BlockOptions.causal
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        unknown = [key for key in kwargs if key not in INHERITED_NAMES and not key.startswith("_")]
        if unknown:
            raise InputError(_unknown_name(unknown[0], [field.name for field in fields(self)]))
        super().__post_init__(**kwargs)
        if self.position_embedding not in ("rotary", "learned", "none"):
            raise InputError(
                f"position_embedding must be 'rotary', 'learned' or 'none' (got {self.position_embedding!r})"
            )
        if self.initializer_range is not None and not self.initializer_range > 0:
            raise InputError(f"initializer_range must be positive, or None (got {self.initializer_range})")
        if self.gamma is None:
            self.gamma = default_gamma(self.num_hidden_layers)
        self.block_options()
        if not isinstance(self.activation, str):
            raise InputError(
                f"activation must be a name, because a configuration is saved as JSON (got {self.activation!r}): give "
                f"one of {', '.join(('shaped', *NAMED))}"
            )

    def block_options(self) -> dict[str, Any]:
        """Return the options of a block, checked.

        **Returns:** the arguments of `nn.BlockOptions` by name.

        **Raises:** `DefinitionError` or `InputError` for values that do not fit.
        """
        options: dict[str, Any] = {
            field.name: getattr(self, HUGGING_FACE_NAMES.get(field.name, field.name), None)
            for field in fields(BlockOptions)
        }
        options["rotary"] = self.position_embedding == "rotary"
        check_counts(hidden_size=self.hidden_size, num_attention_heads=self.num_attention_heads)
        checked = BlockOptions(**options)
        heads = self.num_attention_heads, self.hidden_size, checked.key_width, checked.value_width
        if problem := heads_problem(*heads, name="hidden_size"):
            raise InputError(problem)
        return options


def _unknown_name(key: str, known: list[str]) -> str:
    """Return the message for an unknown name: near names if there are any, otherwise all of the class's own."""
    own = [name for name in known if name not in {field.name for field in fields(PreTrainedConfig)}]
    near = [HUGGING_FACE_NAMES[key]] if key in HUGGING_FACE_NAMES else get_close_matches(key, known)
    way_out = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(own)}, and those of all models"
    return f"ShapedTransformerConfig has no {key!r}: {way_out}"
