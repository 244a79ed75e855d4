"""μP and ours: initial standard deviations and learning rates by role, at any width."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import shaped_transformer as st
from shaped_transformer.rehearse.parametrisations import KINDS, builder, parametrisation_of

STD, FACTOR = 0.02, 4
BASE = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 50}


def llama(**changes: Any) -> Any:
    return transformers.LlamaConfig(**(BASE | {"num_key_value_heads": 2, "initializer_range": STD} | changes))


def bert() -> Any:
    return transformers.BertConfig(**BASE, initializer_range=STD, tie_word_embeddings=False)


def made(kind: str, config: Any, factor: float, cls: Any = None) -> Any:
    return parametrisation_of(kind)(st.rehearse.scaled(config, width=factor), config, cls)


def stds(model: Any) -> dict[str, float]:
    return {name: float(p.detach().std()) for name, p in model.named_parameters() if p.dim() > 1}


def rates(model: Any, groups: Any, lr: float = 1.0) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in groups(model, lr) for p in group["params"]}
    assert found.keys() == set(names.values())
    return found


def test_mup_scales_hidden_matrices_and_the_head() -> None:
    torch.manual_seed(0)
    one = made("mup", llama(), FACTOR)
    model = one.model()
    found, rate = stds(model), rates(model, one.groups, 0.5)
    for name, std in found.items():
        expected = STD
        if ".layers." in name:
            expected *= FACTOR**-0.5
        elif name == "lm_head.weight":
            expected /= FACTOR
        assert std == pytest.approx(expected, rel=0.05), name
    for name, value in rate.items():
        small = (".layers." in name and "norm" not in name) or name == "lm_head.weight"
        assert value == 0.5 * (1 / FACTOR if small else 1.0), name


def test_a_linear_layer_and_a_convolution_have_their_own_fan_in() -> None:
    """GPT-2's matrices are (in, out): the head has its fan-in last, the MLP's maps first."""
    config = transformers.GPT2Config(
        n_embd=32, n_head=4, n_layer=1, n_inner=96, vocab_size=50, tie_word_embeddings=False, initializer_range=STD
    )
    torch.manual_seed(0)
    one = made("mup", config, FACTOR)
    found = stds(one.model())
    assert found["transformer.h.0.attn.c_attn.weight"] == pytest.approx(STD / 2, rel=0.05)
    assert found["transformer.wte.weight"] == pytest.approx(STD, rel=0.05)
    assert found["transformer.wpe.weight"] == pytest.approx(STD, rel=0.05)
    assert found["lm_head.weight"] == pytest.approx(STD / FACTOR, rel=0.05)


def test_at_the_base_width_mup_is_the_models_own_initialisation() -> None:
    one = made("mup", llama(), 1)
    torch.manual_seed(3)
    ours = one.model()
    torch.manual_seed(3)
    own = builder(llama())()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), own.parameters(), strict=True))
    assert set(rates(ours, one.groups).values()) == {1.0}


def test_initialisations_that_know_the_fan_in_are_not_scaled_twice() -> None:
    """Ours is μP's already: N(0, 1/n) at all widths, and a head that starts at √64/n."""
    config = st.hf.ShapedTransformerConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=50)
    torch.manual_seed(0)
    one = made("mup", config, FACTOR)
    found, n = stds(one.model()), 64 * FACTOR
    for name, std in found.items():
        expected = 1.0 if "embeddings" in name else 8 / n if name == "head.weight" else n**-0.5
        assert std == pytest.approx(expected, rel=0.05), name


def test_weightless_models_record_what_mup_draws() -> None:
    one = made("mup", llama(), FACTOR)
    laws = st.weightless.laws(st.weightless.build(one.model))
    assert laws["model.layers.0.self_attn.q_proj.weight"].law == "N(0, 0.01²)"
    assert laws["lm_head.weight"].law == "N(0, 0.005²)"
    assert laws["model.embed_tokens.weight"].law == "N(0, 0.02²)"


def test_biases_and_gains_do_not_decay() -> None:
    cls = transformers.BertForMaskedLM
    one = made("mup", bert(), 2, cls)
    model = one.model()
    decay = {id(p): group.get("weight_decay") for group in one.groups(model, 1.0) for p in group["params"]}
    assert all((decay[id(p)] == 0.0) == (p.dim() == 1) for p in model.parameters())


def test_our_models_start_with_a_head_that_shrinks_as_in_mup() -> None:
    def heads(width: int) -> float:
        config = st.hf.ShapedTransformerConfig(
            hidden_size=width, num_hidden_layers=1, num_attention_heads=4, vocab_size=2000
        )
        return stds(builder(made("shaped", config, 1).model)())["head.weight"]

    torch.manual_seed(0)
    assert heads(32) == pytest.approx(32**-0.5, rel=0.02)
    assert heads(64) == pytest.approx(64**-0.5, rel=0.02)
    assert heads(256) == pytest.approx(256**-0.5 / 2, rel=0.02)


def test_a_tied_head_is_refused() -> None:
    config = transformers.GPT2Config(n_embd=32, n_head=4, n_layer=1, vocab_size=50)
    with pytest.raises(st.InputError, match=r"the head is tied to transformer.wte.weight.*tie_word_embeddings=False"):
        made("mup", config, 2)


def test_models_that_differ_in_depth_are_refused() -> None:
    with pytest.raises(st.InputError, match=r"differ in model.layers.2.* width alone"):
        st.rehearse.mup(llama(num_hidden_layers=3), llama())


def test_another_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(st.InputError, match=r"parametrisation must be 'standard', 'mup'.*got 'ntk'"):
        parametrisation_of("ntk")
    assert all(callable(parametrisation_of(kind)) for kind in KINDS)
