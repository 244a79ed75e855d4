"""Time and memory of a forward and backward pass, each in a process of its own (extra `hf`)."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import check_count
from ..errors import InputError, ShapedTransformerError
from ..io.yaml import read_yaml

MANY_TOKENS = 256
"""Number of tokens beyond which memory is given back at once."""

THRIFTY = {"MALLOC_MMAP_THRESHOLD_": "1000000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Settings of the GNU C library: large pieces of memory are given back when they are freed, and are of huge pages."""

SIZES = Path(__file__).parent / "sizes.yaml"


@dataclass(frozen=True)
class Measurement:
    """What one pass took.

    **Arguments:**

    - `parameters`: their number.
    - `build`: seconds until the model was there, after imports.
    - `forward`, `backward`: seconds of the passes.
    - `gigabytes`: largest memory of the process in units of 2³⁰ bytes, libraries included.
    """

    parameters: int
    build: float
    forward: float
    backward: float
    gigabytes: float

    @property
    def passes(self) -> float:
        """Seconds of both passes."""
        return self.forward + self.backward

    @property
    def total(self) -> float:
        """Seconds of all."""
        return self.build + self.passes


def configuration(name: str, file: Path = SIZES) -> Any:
    """Return the Hugging Face configuration of a size in `sizes.yaml`, or in another file of the same form.

    **Raises:** `InputError` for another name.
    """
    import transformers

    known = read_yaml(file)
    if name not in known:
        raise InputError(f"unknown size {name!r}: choose one of {', '.join(known)}")
    return getattr(transformers, known[name]["class"])(**known[name]["sizes"])


def measure(name: str, tokens: int, *, real: bool = False, checkpointing: bool = False) -> Measurement:
    """Return time and memory of one forward and backward pass in a fresh process.

    For more than 256 tokens, or with checkpointing, the process runs with the settings `THRIFTY` of the GNU C library,
    which save memory.

    **Arguments:**

    - `name`: of a size in `sizes.yaml`.
    - `tokens`: length of the sequence of random tokens.
    - `real`: whether to draw real weights, as Hugging Face does; default no.
    - `checkpointing`: whether blocks are recomputed in the backward pass; default no.

    **Raises:** `InputError` for another name; `ShapedTransformerError` if the process fails.
    """
    configuration(name)
    given = json.dumps([name, check_count(tokens, "tokens"), real, checkpointing])
    thrifty = THRIFTY if checkpointing or tokens > MANY_TOKENS else {}
    environment = {"HF_HUB_OFFLINE": "1"} | thrifty | os.environ
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, given], capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ShapedTransformerError(f"measuring {name} failed with status {done.returncode}: {last}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def _pass(name: str, tokens: int, real: bool, checkpointing: bool) -> Measurement:
    """Measure a pass in this process."""
    import resource

    import torch
    import transformers

    from .models import from_config

    config = configuration(name)
    transformers.models.llama.modeling_llama, transformers.models.gpt2.modeling_gpt2  # noqa: B018 - imports them
    begun = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_config(config) if real else from_config(config, seed=0)
    if checkpointing:
        model.gradient_checkpointing_enable()
    built = time.perf_counter()
    ids = torch.randint(config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    loss = model(input_ids=ids, labels=ids).loss
    forward = time.perf_counter()
    loss.backward()
    backward = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    count = sum(parameter.numel() for parameter in model.parameters())
    return Measurement(count, built - begun, forward - start, backward - forward, peak)


if __name__ == "__main__":
    print(json.dumps(asdict(_pass(*json.loads(sys.argv[1])))))  # noqa: T201
