"""Configurations in files of others: what they may not choose, because it can run code."""

from typing import Any

SAFE_CHOICES = {
    "attn_implementation": ("eager", "sdpa", "flex_attention"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
"""Implementations that a file may name. For others, transformers may download compiled code from the hub."""


def without_kernels(content: Any) -> Any:
    """Return the content of a `config.json` without names of implementations that are not in `SAFE_CHOICES`.

    transformers then takes its default.

    ```python
    from shaped_transformer.weightless.untrusted import without_kernels
    without_kernels({"model_type": "gpt2", "attn_implementation": "somebody/kernel"})  # {"model_type": "gpt2"}
    ```

    **Arguments:**

    - `content`: the values of the file, with configurations inside.
    """
    if isinstance(content, list):
        return [without_kernels(value) for value in content]
    if not isinstance(content, dict):
        return content
    return {key: without_kernels(value) for key, value in content.items() if _is_safe(str(key), value)}


def _is_safe(key: str, value: Any) -> bool:
    """Whether a key of a configuration names no implementation, or one that is safe."""
    name = key.removeprefix("_").removesuffix("_internal")
    return name not in SAFE_CHOICES or value is None or value in SAFE_CHOICES[name]
