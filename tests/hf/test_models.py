"""The library's own models do what Hugging Face's tools ask of a model."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of their own parts

import shaped_transformer as st
from shaped_transformer import hf

PAD, END, START = 0, 1, 2
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": START,
    "max_position_embeddings": 64,
}
CLASSES = {
    "base": (hf.ShapedTransformerModel, transformers.AutoModel),
    "causal": (hf.ShapedTransformerForCausalLM, transformers.AutoModelForCausalLM),
    "masked": (hf.ShapedTransformerForMaskedLM, transformers.AutoModelForMaskedLM),
    "classifier": (hf.ShapedTransformerForSequenceClassification, transformers.AutoModelForSequenceClassification),
}


def build(kind: str = "causal", **options: Any) -> Any:
    torch.manual_seed(0)
    make: Any = CLASSES[kind][0]
    return make(hf.ShapedTransformerConfig(**(SMALL | options))).eval()


def ids(length: int = 7) -> Any:
    return torch.randint(3, 50, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CLASSES)
def test_saved_models_load_through_the_auto_classes_and_stay_shaped(kind: str, tmp_path: Path) -> None:
    model = build(kind, shaping="learn", learnable_slopes=True, num_key_value_heads=2, tau0=0.7)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, st.nn.Shaping):
                layer.identity_gain.mul_(1.3)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    again = CLASSES[kind][1].from_pretrained(tmp_path).eval()
    assert type(again) is CLASSES[kind][0]
    assert again.config.tau0 == 0.7
    torch.testing.assert_close(again(ids())[0], model(ids())[0], rtol=0, atol=0)
    again.save_pretrained(tmp_path / "twice")
    twice = CLASSES[kind][1].from_pretrained(tmp_path / "twice", device_map="cpu", dtype=torch.float32).eval()
    torch.testing.assert_close(twice(ids())[0], model(ids())[0], rtol=0, atol=0)


def test_the_models_are_the_modules() -> None:
    """The same blocks as `nn.ShapedTransformer`, with tokens of unit variance and the theory's weights."""
    model = build(hidden_size=256, vocab_size=2000, position_embedding="learned")
    assert model.model.embeddings.weight.std().item() == pytest.approx(1, rel=0.01)
    assert model.model.positions.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.head.weight.std().item() == pytest.approx(1 / 16, rel=0.01)
    x = torch.randn(2, 5, 256)
    stack = st.nn.ShapedTransformer(256, 3, 4, causal=True)
    weights = [p for _, p in model.model.layers.named_parameters()]
    for target, source in zip(stack.blocks.parameters(), weights, strict=True):
        target.data.copy_(source)
    model.model.positions.weight.data.zero_()
    out = model.model(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(out, model.model.norm(stack(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"position_embedding": "learned"}, {"num_key_value_heads": 2, "norm": "pre"}])
def test_every_way_to_generate_gives_the_same(options: dict[str, Any]) -> None:
    model, prompt = build(**options), ids()
    greedy = {"max_new_tokens": 6, "do_sample": False}
    plain = model.generate(prompt, use_cache=False, **greedy)
    assert plain.shape[1] > 7
    for ways in ({}, {"cache_implementation": "static"}):
        assert model.generate(prompt, **greedy, **ways).tolist() == plain.tolist()
    beams = model.generate(prompt, num_beams=3, max_new_tokens=6, use_cache=False)
    assert model.generate(prompt, num_beams=3, max_new_tokens=6).tolist() == beams.tolist()
    padded = torch.cat([torch.full((2, 3), PAD), prompt], 1)
    mask = (padded != PAD).long()
    for ways in ({}, {"cache_implementation": "static"}):
        left = model.generate(padded, attention_mask=mask, **greedy, **ways)
        assert left[:, 10:].tolist() == plain[:, 7:].tolist()


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids(), labels=ids()).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_padding_does_not_change_a_classification() -> None:
    model = build("classifier", num_labels=3)
    padded = torch.cat([ids(), torch.full((2, 4), PAD)], 1)
    torch.testing.assert_close(model(padded, attention_mask=(padded != PAD).long()).logits, model(ids()).logits)
    assert model(ids(), labels=torch.tensor([0, 2])).loss.isfinite()


def test_a_batch_of_hidden_states_is_returned() -> None:
    assert len(build()(ids(), output_hidden_states=True).hidden_states) >= 4


def tokenizer() -> Any:
    """A tokenizer of whole words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": PAD, "[END]": END, "[START]": START, "[MASK]": 3} | {f"w{i}": i for i in range(4, 50)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[PAD]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", eos_token="[END]", bos_token="[START]", mask_token="[MASK]"
    )


def test_pipelines_run() -> None:
    words = tokenizer()
    generate = transformers.pipeline("text-generation", model=build(), tokenizer=words)
    assert generate("w5 w6 w7", max_new_tokens=4, do_sample=False)[0]["generated_text"].startswith("w5 w6 w7")
    fill = transformers.pipeline("fill-mask", model=build("masked"), tokenizer=words)
    assert len(fill("w5 [MASK] w7")) == 5
    classify = transformers.pipeline("text-classification", model=build("classifier"), tokenizer=words)
    assert classify("w5 w6")[0]["label"].startswith("LABEL_")


@pytest.mark.slow
def test_the_trainer_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """The loss of a sequence that can be learnt by heart falls, and a checkpoint continues with the same losses."""
    pattern = torch.arange(16) * 3 % 47 + 3
    data = [{"input_ids": torch.roll(pattern, i), "labels": torch.roll(pattern, i)} for i in range(16)]

    def train(steps: int, resume: bool) -> list[float]:
        every = {"logging_steps": 1, "save_steps": 10, "max_steps": steps, "per_device_train_batch_size": 4}
        quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True}
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), learning_rate=3e-3, lr_scheduler_type="constant", seed=0, **every, **quiet
        )
        trainer = transformers.Trainer(model=build(gamma=0.3).train(), args=arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=resume)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    losses = train(20, resume=False)
    assert losses[-1] < 0.7 * losses[0]
    for newer in tmp_path.glob("checkpoint-20"):
        newer.rename(tmp_path / "aside")
    assert train(20, resume=True)[10:] == pytest.approx(losses[10:], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position_embedding": "sinusoidal"}, "'rotary', 'learned' or 'none'"),
        ({"gamma": 1.5}, "gamma must lie"),
        ({"shaping": "leran"}, "shaping"),
        ({"num_attention_heads": 5}, "5 heads do not divide the width 32"),
        ({"shaping": "recover"}, "recover_steps"),
    ],
)
def test_wrong_configurations_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        build(**options)


def test_wrong_inputs_are_told() -> None:
    with pytest.raises(st.InputError, match="input_ids or inputs_embeds"):
        build("base")()


@pytest.mark.parametrize("cache", [True, False])
def test_value_skipinit_starts_as_the_identity_and_learns_to_look(cache: bool) -> None:
    model = build(attention="skipinit", num_key_value_heads=2)
    shaped = build(attention="shaped", num_key_value_heads=2)
    attention = model.model.layers[0].block.attention.branch
    assert (attention.identity_gain == 1).all()
    assert (attention.softmax_gain == 0).all()
    model.load_state_dict(shaped.state_dict(), strict=False)
    tokens = model.model(ids()).last_hidden_state
    alone = torch.cat([model.model(ids()[:, i : i + 1]).last_hidden_state for i in range(7)], dim=1)
    torch.testing.assert_close(tokens, alone)  # no token sees another
    with torch.no_grad():
        for layer in model.model.layers:
            layer.block.attention.branch.softmax_gain.fill_(0.7)
            layer.block.attention.branch.identity_gain.fill_(0.9)
    x = torch.randn(2, 7, 32)
    q, k, v = (
        m(x).unflatten(-1, (h, -1)).transpose(1, 2)
        for m, h in ((attention.query, 4), (attention.key, 2), (attention.value, 2))
    )
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    logits = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), -torch.inf)
    dense = 0.9 * v + 0.7 * torch.softmax(logits, -1) @ v
    attention.rotary = False
    torch.testing.assert_close(attention(x), attention.output(dense.transpose(1, 2).flatten(-2)), atol=1e-5, rtol=1e-5)
    attention.rotary = True
    made = model.generate(ids(), max_new_tokens=5, do_sample=False, use_cache=cache, eos_token_id=None)
    greedy = ids()
    for _ in range(5):
        greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], 1)
    assert made.equal(greedy)


def test_the_usual_initialisation_is_gpt2s() -> None:
    model = build(initializer_range=0.02, hidden_size=256, vocab_size=2000, attention="softmax", norm="pre")
    branch = model.model.layers[1].block.attention.branch
    assert model.model.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert branch.query.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for last in (branch.output, model.model.layers[1].block.mlp.branch.output):
        assert last.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.02)
    learned = build(hidden_size=256, position_embedding="learned", position_std=1.0, initializer_range=0.02)
    assert learned.model.positions.weight.std().item() == pytest.approx(1, rel=0.03)
    with pytest.raises(st.InputError, match="initializer_range must be positive"):
        build(initializer_range=-1.0)


def test_images_are_cut_into_patches_of_unit_variance(tmp_path: Path) -> None:
    options: dict[str, Any] = SMALL | {"hidden_size": 256, "num_channels": 3, "num_labels": 5, "patch_size": 4}
    model: Any = hf.ShapedTransformerForImageClassification(hf.ShapedTransformerConfig(**options, image_size=12))
    model.eval()
    images = torch.randn(64, 3, 12, 12)
    tokens = []
    handle = model.model.register_forward_pre_hook(lambda _, __, k: tokens.append(k["inputs_embeds"]), with_kwargs=True)
    out = model(images, labels=torch.zeros(64, dtype=torch.long))
    handle.remove()
    assert tokens[0].shape == (64, 9, 256)
    assert tokens[0].var().item() == pytest.approx(1, rel=0.05)
    own = model.patches(images[3, :, 4:8, 8:12].flatten())  # second row, third column
    torch.testing.assert_close(tokens[0][3, 5], own)
    assert out.logits.shape == (64, 5)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(images).logits, out.logits)
    with pytest.raises(st.InputError, match=r"pixel_values must be \(batch, 3, 12, 12\)"):
        model(images[:, :1])
    with pytest.raises(st.InputError, match="image_size must be a multiple of patch_size"):
        hf.ShapedTransformerForImageClassification(hf.ShapedTransformerConfig(**options, image_size=10))
