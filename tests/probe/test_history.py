"""A model probed over training steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import shaped_transformer as st
from shaped_transformer import InputError

X = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))


def model() -> Any:
    torch.manual_seed(0)
    return st.nn.ShapedTransformer(width=32, depth=2, heads=2)


def train(history: Any, network: Any, steps: int = 3, lr: float = 0.1) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=lr)
    for step in range(steps):
        optimiser.zero_grad()
        network(X).square().mean().backward()
        with history.step(network, step):
            optimiser.step()


def test_a_loop_of_ones_own_is_measured_and_trains_as_without() -> None:
    watched, alone, history = model(), model(), st.probe.History(X)
    train(history, watched)
    optimiser = torch.optim.SGD(alone.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        alone(X).square().mean().backward()
        optimiser.step()
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    data = history.data
    assert list(data.step.values) == [0, 1, 2]
    first = st.probe.run(model(), X)
    np.testing.assert_allclose(data["effective_rank"].sel(step=0), first.data["effective_rank"])
    assert np.isfinite(data["token_norm"].values).all()


def test_the_update_is_relative_to_the_weight() -> None:
    network, history = model(), st.probe.History(X, backward=False)
    before = {name: p.detach().clone() for name, p in network.named_parameters() if p.dim() > 1}
    train(history, network, steps=1)
    for name, weight in before.items():
        moved = (dict(network.named_parameters())[name].detach() - weight).norm() / weight.norm()
        found = float(history.data["weight_update"].sel(step=0, matrix=name))
        assert found == pytest.approx(float(moved), rel=1e-5)
    assert any(float(x) > 0 for x in history.data["weight_update"].values.ravel())


def test_steps_with_undefined_tokens_are_noted_and_left_out(tmp_path: Path) -> None:
    network, history = model(), st.probe.History(X)
    history.measure(network, 0)
    with torch.no_grad():
        for parameter in network.blocks[1].parameters():
            parameter.fill_(torch.nan)
    history.measure(network, 1)
    assert history.not_finite == {1: "blocks.1"}
    assert list(history.data.step.values) == [0]
    history.save(tmp_path / "history.zarr")
    data, settings = st.probe.History.load(tmp_path / "history.zarr")
    assert data.identical(history.data)
    assert settings["not_finite"] == {"1": "blocks.1"}


def test_a_step_that_is_measured_again_replaces_the_earlier(tmp_path: Path) -> None:
    network, broken, history = model(), model(), st.probe.History(X)
    with torch.no_grad():
        broken.blocks[1].apply(lambda one: [parameter.fill_(torch.nan) for parameter in one.parameters()])
    history.measure(broken, 0)
    with pytest.raises(InputError, match=r"infinite or undefined at every measured step: at step 0 from blocks\.1 on"):
        history.save(tmp_path / "history.zarr")
    history.measure(network, 0)
    assert history.not_finite == {}
    history.measure(broken, 0)
    assert history.not_finite == {0: "blocks.1"}
    assert history.results == {}


def test_a_step_without_gradients_leaves_the_others_theirs() -> None:
    scale, network = 1.0, model()
    history = st.probe.History(X, loss=lambda output: scale * output.mean())
    history.measure(network, 0)
    scale = float("inf")
    history.measure(network, 1)
    data = history.data
    assert data["gradient_norm"].isel(step=0).equals(history.results[0].data["gradient_norm"].assign_coords(step=0))
    assert data["gradient_norm"].isel(step=1).isnull().all()
    assert data["weight_gradient"].isel(step=1).isnull().all()
    assert data["gradient_known"].any("layer").values.tolist() == [True, False]
    assert data["token_norm"].notnull().all()


def test_an_empty_history_says_so() -> None:
    with pytest.raises(InputError, match="nothing was measured"):
        st.probe.History(X).data  # noqa: B018


def test_a_trainer_is_watched(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    network = transformers.GPT2LMHeadModel(config)
    ids = torch.randint(50, (6, 8), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in ids]
    watch = st.probe.callback({"input_ids": ids[:2], "labels": ids[:2]}, every=2, out=tmp_path / "probe.zarr")
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=5, per_device_train_batch_size=2, report_to=[], save_strategy="no", use_cpu=True
    )
    transformers.Trainer(network, arguments, train_dataset=data, callbacks=[watch]).train()
    found = watch.history.data
    assert list(found.step.values) == [0, 2, 4]
    assert found.sizes["layer"] == 3
    assert float(found["weight_update"].min()) >= 0
    assert float(found["weight_update"].sel(step=4).max()) > 0
    saved, _ = st.probe.History.load(tmp_path / "probe.zarr")
    assert saved.identical(found)


def test_a_resumed_training_keeps_the_earlier_measurements(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    ids = torch.randint(50, (6, 8), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in ids]
    batch = {"input_ids": ids[:2], "labels": ids[:2]}

    def train(folder: Path, steps: int, *, resume: bool) -> Any:
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
        torch.manual_seed(0)
        watch = st.probe.callback(batch, every=2, out=folder / "probe.zarr")
        arguments = transformers.TrainingArguments(
            str(folder), max_steps=steps, lr_scheduler_type="constant", report_to=[], save_steps=3, use_cpu=True
        )
        trainer = transformers.Trainer(
            transformers.GPT2LMHeadModel(config), arguments, train_dataset=data, callbacks=[watch]
        )
        trainer.train(resume_from_checkpoint=resume)
        return st.probe.History.load(folder / "probe.zarr")[0]

    whole = train(tmp_path / "whole", 6, resume=False)
    train(tmp_path / "parts", 3, resume=False)
    parts = train(tmp_path / "parts", 6, resume=True)
    assert list(parts.step.values) == [0, 2, 4]
    for name in ("token_norm", "gradient_norm", "weight_update"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)
