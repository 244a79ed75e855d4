"""On a GPU the models of Hugging Face train in 16 bits, generate, are saved, and get shaped attention."""

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from shaped_transformer import hf, nn

from .device import DEVICE, assert_as_exact

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # the libraries use deprecated functions

IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES: dict[str, Any] = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
EXISTING: dict[str, Any] = {
    "gpt2": transformers.GPT2Config(vocab_size=60, n_embd=64, n_layer=2, n_head=4, n_positions=64, **IDS),
    "llama": transformers.LlamaConfig(**SIZES, **IDS, intermediate_size=96, num_key_value_heads=2),
}


def own(**options: Any) -> Any:
    """Return a causal model of ours on the CPU."""
    torch.manual_seed(0)
    model: Any = hf.ShapedTransformerForCausalLM(hf.ShapedTransformerConfig(**SIZES, **IDS, **options))
    return model.eval()


def existing(family: str) -> Any:
    """Return a small model of a family on the CPU, whose tokens differ in probability."""
    torch.manual_seed(0)
    config = type(EXISTING[family]).from_dict(EXISTING[family].to_dict() | {"initializer_range": 0.3})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def ids(length: int = 9) -> Any:
    return torch.randint(3, 60, (2, length), generator=torch.Generator().manual_seed(1))


def padded() -> dict[str, Any]:
    """Return tokens, the second row padded on the left."""
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def on_gpu(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: x.to(DEVICE) for name, x in batch.items()}


def generated(model: Any, batch: dict[str, Any], **options: Any) -> Any:
    """Return the tokens that a model generates greedily, on the CPU."""
    return model.generate(**batch, max_new_tokens=12, min_new_tokens=12, do_sample=False, **options).cpu()


@pytest.mark.parametrize("batch", [{"input_ids": ids()}, padded()], ids=["plain", "padded"])
@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2, "position_embedding": "learned"}])
def test_our_model_gives_the_cpus_logits(options: dict[str, Any], batch: dict[str, Any]) -> None:
    model = own(**options)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(**batch).logits
        usual = model(**batch).logits
        found = model.to(DEVICE)(**on_gpu(batch)).logits
    assert_as_exact(found, usual, exact, times=10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_our_model_learns_in_16_bits(dtype: Any) -> None:
    """Under autocast, with `parameter_groups` and fused AdamW, a sequence that repeats itself."""
    model = own(shaping="learn").to(DEVICE).train()
    sequence = ids(8)[:1].repeat(4, 8).to(DEVICE)
    optimiser = torch.optim.AdamW(nn.parameter_groups(model, lr=2e-3), weight_decay=0.01, fused=True)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
    losses = []
    for _ in range(40):
        with torch.autocast(DEVICE, dtype=dtype):
            loss = model(sequence, labels=sequence).loss
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(float(loss))
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < losses[0] / 2


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model, batch = own().to(DEVICE).train(), on_gpu({"input_ids": ids(), "labels": ids()})
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batch", [{"input_ids": ids()}, padded()], ids=["plain", "padded"])
@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2, "position_embedding": "learned"}])
def test_generation_is_that_of_the_cpu_and_of_no_cache(options: dict[str, Any], batch: dict[str, Any]) -> None:
    model = own(**options)
    usual = generated(model, batch)
    model.to(DEVICE)
    assert torch.equal(generated(model, on_gpu(batch)), usual)
    assert torch.equal(generated(model, on_gpu(batch), use_cache=False), usual)


def test_generation_with_a_static_cache_is_the_same() -> None:
    model = own().to(DEVICE)
    batch = on_gpu(padded())
    assert torch.equal(generated(model, batch, cache_implementation="static"), generated(model, batch))


def test_a_saved_model_loads_on_the_gpu(tmp_path: Path) -> None:
    model = own(shaping="learn").to(DEVICE)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).to(DEVICE).eval()
    placed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, device_map=DEVICE).eval()
    batch = on_gpu(padded())
    with torch.no_grad():
        logits = model(**batch).logits
        assert torch.equal(loaded(**batch).logits, logits)
        assert torch.equal(placed(**batch).logits, logits)


@pytest.mark.parametrize("batch", [{"input_ids": ids()}, padded()], ids=["plain", "padded"])
@pytest.mark.parametrize("family", EXISTING)
def test_shaped_attention_in_an_existing_model_gives_the_cpus_logits(family: str, batch: dict[str, Any]) -> None:
    """It is switched on the GPU, where the check of its calls runs too."""
    switched: dict[str, Any] = {"tau0": 0.7, "uniform_gain": 0.9}
    exact_model = hf.shape_(existing(family).double(), **switched)
    usual_model = hf.shape_(existing(family), **switched)
    model = hf.shape_(existing(family).to(DEVICE), **switched)
    assert next(model.parameters()).device.type == DEVICE
    with torch.no_grad():
        exact, usual = exact_model(**batch).logits, usual_model(**batch).logits
        found = model(**on_gpu(batch)).logits
    seen = batch.get("attention_mask", torch.ones(2, 9)).bool()
    assert_as_exact(found[seen.to(DEVICE)], usual[seen], exact[seen], times=10)


@pytest.mark.parametrize("family", EXISTING)
def test_a_switched_model_generates_as_on_the_cpu(family: str) -> None:
    usual = generated(hf.shape_(existing(family)), padded())
    model = hf.shape_(existing(family).to(DEVICE))
    assert torch.equal(generated(model, on_gpu(padded())), usual)
    assert torch.equal(generated(model, on_gpu(padded()), use_cache=False), usual)


@pytest.mark.parametrize("family", EXISTING)
def test_a_switched_model_learns_in_bfloat16(family: str) -> None:
    model = hf.shape_(existing(family).to(DEVICE)).train()
    sequence = ids(8)[:1].repeat(4, 8).to(DEVICE)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    losses = []
    for _ in range(40):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            loss = model(sequence, labels=sequence).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


def test_a_model_of_bfloat16_weights_runs() -> None:
    model = own().to(DEVICE, torch.bfloat16)
    out = model(**on_gpu(padded())).logits
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_images_are_classified_on_the_gpu() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 1, "num_labels": 10}
    config = hf.ShapedTransformerConfig(**sizes, image_size=8, patch_size=4, num_channels=3)
    model: Any = hf.ShapedTransformerForImageClassification(config)
    model.eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        exact, usual = copy.deepcopy(model).double()(images.double()).logits, model(images).logits
        found = model.to(DEVICE)(images.to(DEVICE)).logits
    assert_as_exact(found, usual, exact, times=10)
