"""The shaped Transformer on images, cut into patches."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import can_return_tuple

from ..errors import InputError
from .config import ShapedTransformerConfig
from .modeling import ShapedTransformerModel, ShapedTransformerPreTrainedModel


class ShapedTransformerForImageClassification(ShapedTransformerPreTrainedModel):
    """A classifier of images: patches as tokens, the mean of their hidden states, a logit for each label.

    Pixels of mean 0 and variance 1 give tokens of unit variance, as the theory assumes.

    ```python
    config = st.hf.ShapedTransformerConfig(
        hidden_size=32, num_hidden_layers=2, image_size=8, patch_size=4, num_channels=3, num_labels=10
    )
    model = st.hf.ShapedTransformerForImageClassification(config)
    model(torch.randn(2, 3, 8, 8)).logits  # (2, 10)
    ```

    **Arguments:**

    - `config`: a `ShapedTransformerConfig` with `image_size`, `patch_size`, `num_channels` and `num_labels`.

    **Raises:** `InputError` if `image_size` or `patch_size` is missing, or the patches do not fill the image.
    """

    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    """The loss is a mean over the batch, not over the items that the Trainer counts in all processes."""

    def __init__(self, config: ShapedTransformerConfig) -> None:
        super().__init__(config)
        size, patch = config.image_size, config.patch_size
        if size is None or patch is None or patch < 1 or size % patch:
            raise InputError(f"image_size must be a multiple of patch_size, both given (got {size} and {patch})")
        self.patch = patch
        self.patches = nn.Linear(config.num_channels * patch**2, config.hidden_size, bias=False)
        self.model = ShapedTransformerModel(config)
        self.model.embeddings.weight.requires_grad = False  # patches take the place of token embeddings
        self.score = nn.Linear(config.hidden_size, int(config.num_labels or 0), bias=False)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        """Return a logit for each label, and the loss if `labels` are given.

        **Arguments:**

        - `pixel_values`: (batch, channels, size, size).
        - `labels`: whole numbers, (batch,); default none.

        **Returns:** `logits`, (batch, labels), and `loss`.

        **Raises:** `InputError` for images of another shape.
        """
        wanted = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != wanted:
            raise InputError(f"pixel_values must be (batch, {', '.join(map(str, wanted))}) (got {pixel_values.shape})")
        patch = self.patch
        tokens = functional.unfold(pixel_values, patch, stride=patch).transpose(1, 2)
        outputs = self.model(inputs_embeds=self.patches(tokens), **kwargs)
        logits = self.score(outputs.last_hidden_state.mean(1))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


AutoModelForImageClassification.register(
    ShapedTransformerConfig, ShapedTransformerForImageClassification, exist_ok=True
)
