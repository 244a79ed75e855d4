"""What a name stands for, and what a model is given."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.errors import InputError, StorageError
from shaped_transformer.probe import examination
from shaped_transformer.probe.batches import make_batch
from shaped_transformer.probe.loading import Subject, load

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with a head for masked tokens."""
    folder: Path = tmp_path_factory.mktemp("models") / "bert"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "bert"))


def model_in(folder: Path) -> Any:
    """The model in a folder."""
    return load(str(folder)).model


def configured(folder: Path, **values: Any) -> Path:
    """Change a folder's configuration."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


def test_a_folder_is_the_trained_model_of_its_class(saved: Path) -> None:
    subject: Any = load(str(saved))
    assert type(subject.model) is transformers.BertForMaskedLM
    assert not subject.is_weightless
    assert subject.notes == ()
    assert subject.tokenizer is None
    kept = transformers.BertForMaskedLM.from_pretrained(saved).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in subject.model.state_dict().items())


@pytest.mark.parametrize("way", ["init", "no weights", "file", "option"])
def test_a_configuration_is_weightless(folder: Path, way: str) -> None:
    if way in ("no weights", "file"):
        (folder / "model.safetensors").unlink()
    if way == "option":
        subject = load(None, config=folder / "config.json")
    else:
        subject = load(str(folder / "config.json" if way == "file" else folder), init=way == "init")
    assert subject.is_weightless
    assert subject.cls is transformers.BertForMaskedLM
    module = subject.draw(0)
    assert type(module) is transformers.BertForMaskedLM
    assert sum(p.numel() for p in module.parameters()) > 0


def test_without_architectures_a_class_is_chosen_and_named(folder: Path) -> None:
    subject = load(str(configured(folder, architectures=None)), init=True)
    assert subject.cls is transformers.BertLMHeadModel
    assert "names no class" in subject.notes[0]
    assert "has no NoSuchModel" in load(str(configured(folder, architectures=["NoSuchModel"])), init=True).notes[0]


def test_missing_weights_are_named(folder: Path) -> None:
    subject = load(str(configured(folder, architectures=["BertForSequenceClassification"])))
    assert "4 parameters not in the weights, so at initialisation: bert.pooler" in " ".join(subject.notes)


def test_our_own_models_load(tmp_path: Path) -> None:
    from shaped_transformer import hf

    config = hf.ShapedTransformerConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    hf.ShapedTransformerForCausalLM(config).save_pretrained(tmp_path / "own")
    assert type(load(str(tmp_path / "own")).model) is hf.ShapedTransformerForCausalLM


def damage(folder: Path, kind: str) -> None:
    """Damage a folder."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif kind == "header":
        weights.write_bytes(weights.read_bytes()[:40])
    elif kind == "json":
        config.write_text(config.read_text(encoding="utf-8")[:50], encoding="utf-8")
    elif kind == "list":
        config.write_text("[1]", encoding="utf-8")
    elif kind == "value":
        configured(folder, num_attention_heads="many")
    elif kind == "size":
        configured(folder, hidden_size=32)
    elif kind == "type":
        configured(folder, model_type="nosuchtype", auto_map={"AutoConfig": "code.Config"})
    elif kind == "no config":
        config.unlink()
    elif kind == "bin":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "part":
        weights.unlink()
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    elif kind == "index":
        weights.rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    elif kind == "name":
        weights.rename(folder / "other.safetensors")
    elif kind == "foreign":
        from safetensors.torch import save_file

        save_file({"else": torch.zeros(2)}, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("half", "cannot be read"),
        ("header", "cannot be read"),
        ("json", "is not valid JSON"),
        ("list", "model_type"),
        ("value", "not a valid configuration of bert"),
        ("size", "does not fit its config.json"),
        ("type", "auto_map"),
        ("no config", "no config.json"),
        ("bin", "other formats can run code"),
        ("part", "lacks model-00001-of-00002.safetensors"),
        ("index", "is damaged"),
        ("name", "neither model.safetensors nor"),
        ("foreign", "no weight"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, kind: str, words: str) -> None:
    damage(folder, kind)
    with pytest.raises((InputError, StorageError), match=words):
        load(str(folder))


def test_two_sources_are_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="both configurations"):
        load(str(saved / "config.json"), config=saved / "config.json")
    with pytest.raises(InputError, match="leave one of them out"):
        load("torch.nn:Identity", config=saved / "config.json")


def test_tokens_repeat_as_words_do(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the cat and the dog and the cat again", encoding="utf-8")
    values = make_batch(model_in(saved), text=tmp_path / "text", tokens=9, seed=2).values
    ids = values["input_ids"][0].tolist()
    assert ids[0] == ids[3] == ids[6]
    assert ids[1] == ids[7]
    assert ids[2] == ids[5]
    assert len(set(ids)) == 5
    assert 0 not in ids
    assert torch.equal(values["labels"], values["input_ids"])


def test_sequences_are_of_equal_length_and_seeded(saved: Path) -> None:
    model = model_in(saved)
    first, again, other = (make_batch(model, tokens=16, seed=seed) for seed in (0, 0, 1))
    assert first.shape == [4, 16]
    assert torch.equal(first.values["input_ids"], again.values["input_ids"])
    assert not torch.equal(first.values["input_ids"], other.values["input_ids"])


def test_a_tokenizer_is_used_with_its_first_and_last_tokens(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"?": 0, "[CLS]": 1, "[SEP]": 2, "river": 3, "the": 4}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    subject: Any = load(str(folder))
    ids = make_batch(subject.model, subject.tokenizer, tokens=12).values["input_ids"]
    assert ids.shape == (4, 12)
    assert (ids[:, 0] == 1).all()
    assert (ids[:, -1] == 2).all()
    assert ids[0, 2] == 3
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    damaged = load(str(folder))
    assert damaged.tokenizer is None
    assert "tokenizer cannot be read" in damaged.notes[0]


def test_images_are_drawn_for_models_of_images() -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "vocab_size"}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=8, patch_size=4))
    batch = make_batch(model)
    assert batch.shape == [4, 3, 8, 8]
    assert list(batch.values) == ["pixel_values"]
    with pytest.raises(InputError, match="takes images"):
        make_batch(model, tokens=4)


def test_a_single_token_has_no_label(saved: Path) -> None:
    model: Any = load(str(saved)).model
    assert "labels" in make_batch(model, tokens=2).values
    assert "labels" not in make_batch(model, tokens=1).values


def test_the_expectation_attends_as_the_measured_model_does() -> None:
    from shaped_transformer import hf  # noqa: F401 - registers shaped attention

    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, intermediate_size=32)
    subject = Subject("mine", None, config, transformers.LlamaForCausalLM)
    model: Any = subject.draw(0)
    plain = config._attn_implementation
    model.set_attn_implementation("shaped")
    batch = make_batch(model, tokens=6)
    found = examination.examine(subject, model, batch, draws=3)
    assert found.expectation is not None
    assert found.expectation.data.equals(st.probe.expected(model, batch.values, 3).data)
    assert not found.expectation.data.equals(st.probe.expected(config, batch.values, 3, cls=subject.cls).data)
    assert config._attn_implementation == plain


def test_a_default_expectation_that_cannot_be_had_is_explained() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(30, 8), torch.nn.Linear(8, 8))

    def fails() -> Any:
        raise InputError("not to be simulated")

    subject, batch = Subject("mine", model, fails), make_batch(model, tokens=4)
    found = examination.examine(subject, model, batch, layers=["*"])
    assert found.comparison is None
    assert found.obstacle == "not to be simulated"
    with pytest.raises(InputError, match="not to be simulated"):
        examination.examine(subject, model, batch, draws=5, layers=["*"])
