"""Shaped forms of any family are saved, pickled, copied and compiled, and load in a process that only imports."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

from shaped_transformer import hf

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = torch.arange(3, 9)[None]
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=60, bos_token_id=1, eos_token_id=2
    ),
    "llama": lambda: transformers.LlamaConfig(num_key_value_heads=2, **SIZES),
    "bert": lambda: transformers.BertConfig(**SIZES),
    "mistral": lambda: transformers.MistralConfig(num_key_value_heads=2, **SIZES),
    "mixtral": lambda: transformers.MixtralConfig(num_key_value_heads=2, num_local_experts=3, **SIZES),
}
NEW_PROCESS = """
import sys
import torch
{imports}
model = {load}.eval()
out = model(torch.arange(3, 9)[None]).logits
torch.testing.assert_close(out, torch.load(sys.argv[1] + "/out.pt"))
from shaped_transformer.hf.registration import attention_of
print(type(model).__name__, model.config.model_type, model.config.tau0, attention_of(model.config))
"""
"""Code of a process that loads the model in the folder of its argument, and compares its output with the file's."""
AUTO = NEW_PROCESS.format(
    imports="import transformers\nimport shaped_transformer.hf",
    load="transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])",
)
UNPICKLED = NEW_PROCESS.format(imports="", load='torch.load(sys.argv[1] + "/model.pt", weights_only=False)')


def auto(family: str) -> Any:
    return transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM


def shaped(family: str) -> Any:
    torch.manual_seed(0)
    model: Any = hf.shape_(auto(family).from_config(CONFIGS[family]()), tau0=0.7)
    return model.eval()


def run_in_new_process(code: str, folder: Path) -> str:
    """Return what the code prints."""
    made = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.mark.slow
def test_a_saved_mistral_is_shaped_in_a_process_that_only_imports_the_library(tmp_path: Path) -> None:
    model = shaped("mistral")
    torch.save(model(IDS).logits, tmp_path / "out.pt")
    model.save_pretrained(tmp_path)
    assert run_in_new_process(AUTO, tmp_path) == "ShapedMistralForCausalLM shaped-mistral 0.7 shaped"


@pytest.mark.slow
def test_a_pickled_mistral_is_shaped_in_a_process_that_only_unpickles(tmp_path: Path) -> None:
    model = shaped("mistral")
    torch.save(model(IDS).logits, tmp_path / "out.pt")
    torch.save(model, tmp_path / "model.pt")
    assert run_in_new_process(UNPICKLED, tmp_path) == "ShapedMistralForCausalLM shaped-mistral 0.7 shaped"


def test_any_family_has_a_shaped_configuration_without_a_call() -> None:
    for family in ("mistral", "olmo2", "roberta"):
        config = transformers.AutoConfig.for_model(f"shaped-{family}", tau0=0.3)
        assert (config.model_type, config.tau0) == (f"shaped-{family}", 0.3)
        assert isinstance(config, type(transformers.AutoConfig.for_model(family)))


def test_importing_imports_no_family() -> None:
    code = "import sys, shaped_transformer.hf; print([n for n in sys.modules if 'configuration_mistral' in n])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_merged_weights_are_saved_and_loaded_as_the_plain_familys(tmp_path: Path) -> None:
    """Files of Mixtral have a matrix for each expert, its modules one for all experts."""
    auto("mixtral").from_config(CONFIGS["mixtral"]()).save_pretrained(tmp_path / "plain")
    model: Any = hf.shape_(auto("mixtral").from_pretrained(tmp_path / "plain"), tau0=0.7)
    model.eval().save_pretrained(tmp_path / "shaped")
    again, problems = auto("mixtral").from_pretrained(tmp_path / "shaped", output_loading_info=True)
    assert not any(problems.values())
    torch.testing.assert_close(again.eval()(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_the_same_model(family: str, copied: Any) -> None:
    model = shaped(family)
    again = copied(model)
    assert type(again) is type(model)
    assert type(again.config) is type(model.config)
    assert again.config.to_dict() == model.config.to_dict()
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)


Bert: Any = transformers.BertForMaskedLM


class Own(Bert):  # type: ignore[misc]
    """A model of a user's own."""


def test_a_model_of_a_users_own_class_is_pickled() -> None:
    model = hf.shape_(Own(CONFIGS["bert"]()))
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again, Own)
    assert type(again) is type(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_shaped_model_compiles_as_one_graph(family: str) -> None:
    model = shaped(family)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = torch.ones_like(IDS)
    gradients = []
    for one in (model, compiled):
        model.zero_grad()
        out = one(IDS, attention_mask=mask).logits
        out.square().mean().backward()
        gradients.append([out.detach()] + [p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 10
    for eager, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, eager, atol=1e-5, rtol=1e-4)


@pytest.fixture
def llamas() -> tuple[Any, Any, Any]:
    """Return a configuration, and two models that share it."""
    config = CONFIGS["llama"]()
    one, other = (transformers.LlamaForCausalLM(config).eval() for _ in range(2))
    assert one.config is other.config is config
    return config, one, other


def test_shaping_does_not_change_a_shared_configuration(llamas: tuple[Any, Any, Any]) -> None:
    config, one, _ = llamas
    before = config.to_dict()
    hf.shape_(one, tau0=0.7)
    assert config.to_dict() == before
    assert type(config) is transformers.LlamaConfig


def test_shaping_does_not_change_models_of_the_same_configuration(llamas: tuple[Any, Any, Any]) -> None:
    config, one, other = llamas
    before = other(IDS).logits
    hf.shape_(one, tau0=0.7)
    torch.testing.assert_close(other(IDS).logits, before, rtol=0, atol=0)
    third = transformers.LlamaForCausalLM(config).eval()
    third.load_state_dict(other.state_dict())
    torch.testing.assert_close(third(IDS).logits, before, rtol=0, atol=0)


def test_shaping_again_changes_the_temperature_of_all_parts(llamas: tuple[Any, Any, Any]) -> None:
    _, one, _ = llamas
    hf.shape_(one, tau0=0.7)
    hf.shape_(one, tau0=0.3)
    assert {m.config.tau0 for m in one.modules() if hasattr(m, "config")} == {0.3}


def test_shaped_models_return_hidden_states() -> None:
    model = hf.shape_(transformers.LlamaModel(CONFIGS["llama"]()))
    assert len(model(IDS, output_hidden_states=True).hidden_states) == 3


def add_family(name: str) -> tuple[Any, Any]:
    """Add a family to Hugging Face's own; return its configuration and model classes."""
    base: Any = transformers.BertConfig
    config: Any = type(f"{name.title()}Config", (base,), {"model_type": name, "__module__": __name__})
    model: Any = type(f"{name.title()}Model", (Bert,), {"config_class": config, "__module__": __name__})
    transformers.AutoConfig.register(name, config)
    transformers.AutoModelForMaskedLM.register(config, model)
    return config, model


def test_a_family_that_was_added_after_the_import_has_no_shaped_form() -> None:
    add_family("unregistered")
    with pytest.raises(ValueError, match="shaped-unregistered"):
        transformers.AutoConfig.for_model("shaped-unregistered")


@pytest.mark.slow
def test_registering_gives_an_added_family_a_shaped_form() -> None:
    add_family("registered")
    hf.register("registered")
    assert transformers.AutoConfig.for_model("shaped-registered").tau0 == 1.0


@pytest.mark.slow
def test_a_shaped_model_of_an_added_family_is_saved_and_loaded(tmp_path: Path) -> None:
    config, added = add_family("saved")
    hf.register("saved")
    hf.shape_(added(config(**SIZES)), tau0=0.7).save_pretrained(tmp_path)
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert isinstance(again, added)
    assert again.config.tau0 == 0.7
