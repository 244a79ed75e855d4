"""A sample of text: how a trained causal language model continues the beginning of the held-out text."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .vocabulary import SPECIAL

PROMPT_TOKENS, SAMPLE_TOKENS = 16, 60
"""Tokens that the model is given, at most half a window, and tokens that it generates."""
TEMPERATURE = 0.8
"""Below 1, because short runs leave much probability to unlikely tokens."""
SAMPLE_STREAM = 2
"""Samples have random numbers of their own."""
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~&$]")
"""Characters that Markdown would interpret."""
EXPLANATION = (
    "The trained model was given the words in bold, from the held-out text. It generated the rest: "
    f"{SAMPLE_TOKENS} tokens, drawn at temperature {TEMPERATURE:g} with the recipe's seed."
)


@dataclass(frozen=True)
class Sample:
    """A prompt, and the text that a model generated after it."""

    prompt: str
    continuation: str


def generate_sample(model: Any, tokenizer: PreTrainedTokenizerFast, window: Tensor, seed: int) -> Sample:
    """Generate tokens after the first tokens of a window; special tokens are never generated.

    **Arguments:**

    - `model`: a causal language model. It sees at most as many tokens as a window has.
    - `tokenizer`: of the model.
    - `window`: tokens, (length,).
    - `seed`: of the tokens that are drawn; PyTorch's generator is not used.
    """
    rng = np.random.default_rng([seed, SAMPLE_STREAM])
    given = min(PROMPT_TOKENS, len(window) // 2)
    ids = window[:given].tolist()
    with torch.inference_mode():
        for _ in range(SAMPLE_TOKENS):
            context = torch.tensor([ids[-len(window) :]], device=model.device)
            logits = model(input_ids=context, logits_to_keep=1, use_cache=False).logits[0, -1]
            ids.append(_draw(logits[: len(tokenizer)].double().cpu().numpy(), rng))
    prompt: Any = tokenizer.decode(ids[:given], skip_special_tokens=True)
    text: Any = tokenizer.decode(ids, skip_special_tokens=True)
    prompt = prompt.rstrip("\N{REPLACEMENT CHARACTER}")  # a character that the prompt contains in part
    return Sample(prompt, text.removeprefix(prompt))


def _draw(logits: np.ndarray[Any, Any], rng: np.random.Generator) -> int:
    """A token that is not special."""
    logits = logits[len(SPECIAL) :]
    p = np.exp((logits - logits.max()) / TEMPERATURE)
    return len(SPECIAL) + int(rng.choice(len(p), p=p / p.sum()))


def to_markdown(sample: Sample) -> str:
    """Return a sample as a block quote of one line with the prompt in bold, and a sentence that explains it."""
    prompt, rest = (" ".join(text.split()) for text in (sample.prompt, sample.continuation))
    apart = sample.prompt[-1:].isspace() or sample.continuation[:1].isspace()
    bold = prompt if apart else re.sub(r"\W+$", "", prompt)  # before a letter, bold ends only after a letter
    plain = (" " if apart else prompt[len(bold) :]) + rest
    bold, plain = (MARKDOWN.sub(r"\\\g<0>", text) for text in (bold, plain))
    quote = f"> **{bold}**{plain}" if bold else f"> … {plain.strip()}"
    return f"{quote}\n\n{EXPLANATION}"
