"""CompleteP: the multipliers that stand in initialisation and rates are those of the forward pass."""

import math
from typing import Any

import pytest
import torch

from shaped_transformer.training.completep import EPSILON, STD
from shaped_transformer.training.optimiser import build_optimiser
from shaped_transformer.training.task import build, prepare

from .runs import Make

pytestmark = pytest.mark.filterwarnings("ignore")


def losses_of(model: Any, optimiser: torch.optim.Optimizer, ids: torch.Tensor) -> list[float]:
    """The losses over a few steps."""
    found = []
    for _ in range(4):
        loss = model(input_ids=ids, labels=ids).loss
        found.append(float(loss))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return found


def with_multipliers(ours: Any, make: Any, lr: float, decay: float, alpha: float) -> tuple[Any, torch.optim.Optimizer]:
    """The same network as the authors write it: multipliers in the forward pass, and groups of their own."""
    model, config = make(), ours.config
    m, deeper = config.hidden_size / 32, config.num_hidden_layers / 4
    c = (config.hidden_size / config.num_attention_heads) ** -0.5
    model.load_state_dict(ours.state_dict())
    groups = []
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(".query"):
                module.weight.div_(c)
                module.register_forward_hook(lambda _, __, out: c * out)
            elif name == "head":
                module.weight.mul_(m)
                module.register_forward_hook(lambda _, __, out: out / m)
    for name, parameter in model.named_parameters():
        hidden, matrix = "layers" in name, parameter.dim() > 1
        rate = lr * (deeper ** (alpha - 1) if hidden else 1.0) / (m if hidden and matrix else 1.0)
        epsilon = EPSILON / m * (deeper**-alpha if hidden else 1.0)
        decays = (decay * (m if hidden else 1.0)) if matrix else 0.0
        groups.append({"params": [parameter], "lr": rate, "eps": epsilon, "weight_decay": decays})
    return model, torch.optim.AdamW(groups)


@pytest.mark.parametrize(("variant", "alpha"), [("pre-norm-completep", 1.0), ("pre-norm-sqrt", 0.5)])
@pytest.mark.parametrize("wrong", [1.0, 1.01])
def test_it_is_the_network_with_multipliers(variant: str, alpha: float, wrong: float, recipe: Make) -> None:
    chosen = recipe(variant=variant, width=96, depth=8, heads=4, lr=3e-3, weight_decay=0.1)
    task = prepare(chosen)
    ours = build(chosen, task).double()
    ids = torch.randint(300, (4, 16), generator=torch.Generator().manual_seed(0))
    theirs, optimiser = with_multipliers(ours, lambda: build(chosen, task).double(), wrong * 3e-3, 0.1, alpha)
    got, want = losses_of(ours, build_optimiser(ours, chosen), ids), losses_of(theirs, optimiser, ids)
    assert (got == pytest.approx(want, rel=1e-9)) == (wrong == 1)
    assert want[-1] < want[0]


def test_weights_have_the_stated_deviations(recipe: Make) -> None:
    chosen = recipe(variant="pre-norm-completep", width=128, depth=16, heads=4)
    model = build(chosen, prepare(chosen))
    m, head_size = 4, 32
    block = model.model.layers[3].block
    for parameter, want in (
        (model.model.embeddings.weight, STD),
        (model.head.weight, STD / m),
        (block.mlp.branch.output.weight, STD / math.sqrt(m)),
        (block.attention.branch.key.weight, STD / math.sqrt(m)),
        (block.attention.branch.query.weight, STD / math.sqrt(m * head_size)),
    ):
        assert float(parameter.detach().std()) == pytest.approx(want, rel=0.03)
    assert model.config.gamma == pytest.approx(1 / 4)
    shallow = recipe(variant="pre-norm-completep")
    assert build(shallow, prepare(shallow)).config.gamma == 1


def test_a_seed_gives_the_same_weights(recipe: Make) -> None:
    chosen = recipe(variant="pre-norm-sqrt")
    one, two = (build(chosen, prepare(chosen)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
