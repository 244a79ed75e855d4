"""The library's own models work with Hugging Face's tools: Auto classes, generation, pipelines, Trainer."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries use deprecated functions of their own

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


def trained(kind: str) -> Any:
    """Return a model whose gains are not those of its initialisation."""
    model = build(kind, shaping="learn", learnable_slopes=True, num_key_value_heads=2, tau0=0.7)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, st.nn.Shaping):
                layer.identity_gain.mul_(1.3)
    return model


@pytest.mark.parametrize("kind", CLASSES)
def test_models_are_saved_as_safetensors(kind: str, tmp_path: Path) -> None:
    trained(kind).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("kind", CLASSES)
def test_auto_classes_load_the_class_and_configuration(kind: str, tmp_path: Path) -> None:
    trained(kind).save_pretrained(tmp_path)
    again = CLASSES[kind][1].from_pretrained(tmp_path)
    assert type(again) is CLASSES[kind][0]
    assert again.config.tau0 == 0.7


@pytest.mark.parametrize("kind", CLASSES)
def test_loaded_models_compute_the_same(kind: str, tmp_path: Path) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path)
    again = CLASSES[kind][1].from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(ids())[0], model(ids())[0], rtol=0, atol=0)


@pytest.mark.parametrize("kind", CLASSES)
def test_loaded_models_are_saved_and_loaded_again(kind: str, tmp_path: Path) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path / "once")
    CLASSES[kind][1].from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    twice = CLASSES[kind][1].from_pretrained(tmp_path / "twice", device_map="cpu", dtype=torch.float32).eval()
    torch.testing.assert_close(twice(ids())[0], model(ids())[0], rtol=0, atol=0)


def test_tokens_have_unit_variance_and_weights_the_theorys_scale() -> None:
    model = build(hidden_size=256, vocab_size=2000, position_embedding="learned")
    assert model.model.embeddings.weight.std().item() == pytest.approx(1, rel=0.01)
    assert model.model.positions.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.head.weight.std().item() == pytest.approx(8 / 256, rel=0.01)


def test_the_blocks_are_those_of_the_module() -> None:
    model = build(hidden_size=256, vocab_size=2000, position_embedding="learned")
    x = torch.randn(2, 5, 256)
    stack = st.nn.ShapedTransformer(256, 3, 4, causal=True)
    weights = [p for _, p in model.model.layers.named_parameters()]
    for target, source in zip(stack.blocks.parameters(), weights, strict=True):
        target.data.copy_(source)
    model.model.positions.weight.data.zero_()
    out = model.model(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(out, model.model.norm(stack(x)), atol=1e-5, rtol=1e-5)


GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(params=[{}, {"position_embedding": "learned"}, {"num_key_value_heads": 2, "norm": "pre"}])
def decoder(request: pytest.FixtureRequest) -> Any:
    """Return a causal model."""
    return build(**request.param)


@pytest.fixture(params=[{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def cache(request: pytest.FixtureRequest) -> Any:
    """Return the options of generation with a cache."""
    return request.param


def test_generation_with_a_cache_equals_generation_without(decoder: Any, cache: dict[str, Any]) -> None:
    expected = decoder.generate(ids(), use_cache=False, **GREEDY)
    assert expected.shape[1] > 7
    assert decoder.generate(ids(), **GREEDY, **cache).tolist() == expected.tolist()


def test_beams_with_a_cache_equal_beams_without(decoder: Any) -> None:
    expected = decoder.generate(ids(), num_beams=3, max_new_tokens=6, use_cache=False)
    assert decoder.generate(ids(), num_beams=3, max_new_tokens=6).tolist() == expected.tolist()


def test_generation_from_a_padded_prompt_equals_generation_without_padding(decoder: Any, cache: dict[str, Any]) -> None:
    expected = decoder.generate(ids(), use_cache=False, **GREEDY)
    padded = torch.cat([torch.full((2, 3), PAD), ids()], 1)
    left = decoder.generate(padded, attention_mask=(padded != PAD).long(), **GREEDY, **cache)
    assert left[:, 10:].tolist() == expected[:, 7:].tolist()


@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_logits(positions: str, side: str) -> None:
    model, padding = build(position_embedding=positions), torch.full((2, 3), PAD)
    padded = torch.cat([padding, ids()] if side == "left" else [ids(), padding], 1)
    logits = model(padded, attention_mask=(padded != PAD).long()).logits
    kept = logits[:, 3:] if side == "left" else logits[:, :-3]
    torch.testing.assert_close(kept, model(ids()).logits, atol=1e-5, rtol=1e-5)


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


def test_a_classification_has_a_loss() -> None:
    assert build("classifier", num_labels=3)(ids(), labels=torch.tensor([0, 2])).loss.isfinite()


def test_hidden_states_are_returned() -> None:
    assert len(build()(ids(), output_hidden_states=True).hidden_states) >= 4


@pytest.fixture
def words() -> Any:
    """Return a tokenizer of whole words."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[PAD]": PAD, "[END]": END, "[START]": START, "[MASK]": 3} | {f"w{i}": i for i in range(4, 50)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[PAD]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", eos_token="[END]", bos_token="[START]", mask_token="[MASK]"
    )


def test_the_pipeline_generates_text(words: Any) -> None:
    generate = transformers.pipeline("text-generation", model=build(), tokenizer=words)
    assert generate("w5 w6 w7", max_new_tokens=4, do_sample=False)[0]["generated_text"].startswith("w5 w6 w7")


def test_the_pipeline_fills_masks(words: Any) -> None:
    fill = transformers.pipeline("fill-mask", model=build("masked"), tokenizer=words)
    assert len(fill("w5 [MASK] w7")) == 5


def test_the_pipeline_classifies_text(words: Any) -> None:
    classify = transformers.pipeline("text-classification", model=build("classifier"), tokenizer=words)
    assert classify("w5 w6")[0]["label"].startswith("LABEL_")


def train(folder: Path, steps: int, resume: bool) -> list[float]:
    """Return the losses of training on a sequence that can be learnt by heart."""
    pattern = torch.arange(16) * 3 % 47 + 3
    data = [{"input_ids": torch.roll(pattern, i), "labels": torch.roll(pattern, i)} for i in range(16)]

    every = {"logging_steps": 1, "save_steps": 10, "max_steps": steps, "per_device_train_batch_size": 4}
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), learning_rate=3e-3, lr_scheduler_type="constant", seed=0, **every, **quiet
    )
    trainer = transformers.Trainer(model=build(gamma=0.3).train(), args=arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=resume)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_the_trainer_reduces_the_loss(tmp_path: Path) -> None:
    losses = train(tmp_path, 20, resume=False)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_the_trainer_resumes_from_a_checkpoint_with_the_same_losses(tmp_path: Path) -> None:
    losses = train(tmp_path, 20, resume=False)
    for newer in tmp_path.glob("checkpoint-20"):
        newer.rename(tmp_path / "aside")
    assert train(tmp_path, 20, resume=True)[10:] == pytest.approx(losses[10:], rel=1e-4)


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
def test_wrong_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.ShapedTransformerError, match=message):
        build(**options)


def test_a_call_without_inputs_is_refused() -> None:
    with pytest.raises(st.InputError, match="input_ids or inputs_embeds"):
        build("base")()


@pytest.fixture
def skipinit() -> Any:
    """Return a model with Value-SkipInit attention at initialisation, with the weights of a shaped one."""
    model = build(attention="skipinit", num_key_value_heads=2)
    model.load_state_dict(build(attention="shaped", num_key_value_heads=2).state_dict(), strict=False)
    return model


@pytest.fixture
def attending(skipinit: Any) -> Any:
    """Return the same model with other gains, by which tokens attend to other tokens."""
    with torch.no_grad():
        for layer in skipinit.model.layers:
            layer.block.attention.branch.softmax_gain.fill_(0.7)
            layer.block.attention.branch.identity_gain.fill_(0.9)
    return skipinit


def test_value_skipinit_starts_with_the_gains_of_the_identity() -> None:
    attention = build(attention="skipinit", num_key_value_heads=2).model.layers[0].block.attention.branch
    assert (attention.identity_gain == 1).all()
    assert (attention.softmax_gain == 0).all()


def test_value_skipinit_starts_with_tokens_that_attend_to_no_other(skipinit: Any) -> None:
    together = skipinit.model(ids()).last_hidden_state
    alone = torch.cat([skipinit.model(ids()[:, i : i + 1]).last_hidden_state for i in range(7)], dim=1)
    torch.testing.assert_close(together, alone)


def test_value_skipinit_equals_its_dense_form(attending: Any) -> None:
    attention = attending.model.layers[0].block.attention.branch
    attention.rotary = False
    x = torch.randn(2, 7, 32)
    q, k, v = (
        m(x).unflatten(-1, (h, -1)).transpose(1, 2)
        for m, h in ((attention.query, 4), (attention.key, 2), (attention.value, 2))
    )
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    logits = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), -torch.inf)
    dense = 0.9 * v + 0.7 * torch.softmax(logits, -1) @ v
    torch.testing.assert_close(attention(x), attention.output(dense.transpose(1, 2).flatten(-2)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_value_skipinit_generates_the_most_likely_tokens(attending: Any, use_cache: bool) -> None:
    found = attending.generate(ids(), max_new_tokens=5, do_sample=False, use_cache=use_cache, eos_token_id=None)
    greedy = ids()
    for _ in range(5):
        greedy = torch.cat([greedy, attending(greedy).logits[:, -1:].argmax(-1)], 1)
    assert found.equal(greedy)


def test_initializer_range_gives_the_initialisation_of_gpt2() -> None:
    model = build(initializer_range=0.02, hidden_size=256, vocab_size=2000, attention="softmax", norm="pre")
    branch = model.model.layers[1].block.attention.branch
    assert model.model.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert branch.query.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for last in (branch.output, model.model.layers[1].block.mlp.branch.output):
        assert last.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.02)


def test_position_std_is_the_scale_of_learned_positions() -> None:
    model = build(hidden_size=256, position_embedding="learned", position_std=1.0, initializer_range=0.02)
    assert model.model.positions.weight.std().item() == pytest.approx(1, rel=0.03)


def test_an_initializer_range_that_is_not_positive_is_refused() -> None:
    with pytest.raises(st.InputError, match="initializer_range must be positive"):
        build(initializer_range=-1.0)


def image_model(image_size: int = 12) -> Any:
    torch.manual_seed(0)
    options: dict[str, Any] = SMALL | {"hidden_size": 256, "num_channels": 3, "num_labels": 5, "patch_size": 4}
    config = hf.ShapedTransformerConfig(**options, image_size=image_size)
    model: Any = hf.ShapedTransformerForImageClassification(config)
    return model.eval()


def tokens_of(model: Any, images: Any) -> Any:
    """Return the token vectors that the model makes of images."""
    tokens: list[Any] = []
    handle = model.model.register_forward_pre_hook(lambda _, __, k: tokens.append(k["inputs_embeds"]), with_kwargs=True)
    model(images)
    handle.remove()
    return tokens[0]


def test_patches_of_images_are_tokens_of_unit_variance() -> None:
    tokens = tokens_of(image_model(), torch.randn(64, 3, 12, 12))
    assert tokens.shape == (64, 9, 256)
    assert tokens.var().item() == pytest.approx(1, rel=0.05)


def test_patches_are_in_the_order_of_rows() -> None:
    model, images = image_model(), torch.randn(64, 3, 12, 12)
    own = model.patches(images[3, :, 4:8, 8:12].flatten())  # second row, third column
    torch.testing.assert_close(tokens_of(model, images)[3, 5], own)


def test_images_have_a_logit_for_each_label() -> None:
    images, labels = torch.randn(64, 3, 12, 12), torch.zeros(64, dtype=torch.long)
    assert image_model()(images, labels=labels).logits.shape == (64, 5)


def test_a_classifier_of_images_is_saved_and_loaded(tmp_path: Path) -> None:
    model, images = image_model(), torch.randn(64, 3, 12, 12)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(images).logits, model(images).logits)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(st.InputError, match=r"pixel_values must be \(batch, 3, 12, 12\)"):
        image_model()(torch.randn(64, 1, 12, 12))


def test_patches_that_do_not_fill_the_image_are_refused() -> None:
    with pytest.raises(st.InputError, match="image_size must be a multiple of patch_size"):
        image_model(image_size=10)
