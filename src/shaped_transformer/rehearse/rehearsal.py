"""What a rehearsal has measured, over steps: an xarray dataset with its settings, saved and loaded as a zarr store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..numerics.arrays import Floats
from ..probe.measures import of_gradient, of_tokens
from ..probe.result import Stored
from .roles import by_role
from .updates import Update
from .watching import Pass, branches, changes, relative

if TYPE_CHECKING:
    import pandas
    import xarray

SHOWN = ("token_norm", "mean_absolute_correlation", "effective_rank", "gradient_norm")
"""Numbers of a probe that are recorded at each step."""

ATTENTION = ("entropy", "spread", "range")
"""Numbers of attention layers that are recorded."""


@dataclass(frozen=True, eq=False)
class Rehearsal(Stored):
    """What the first steps of an optimiser do to a model, layer by layer.

    ```python
    factory = lambda: st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    result = st.rehearse.run(factory, torch.randn(1, 8, 64), lr=1e-3)
    print(result.to_frame())
    ```

    **Attributes:**

    - `data`: an xarray dataset. `step` s = 0, 1, … is the model after s steps, `update` u = 1, 2, … the step that leads
      to it; `draw` is the network.
      (draw, step): `loss` of the first batch; `output_size`, root mean square of its outputs about their mean over each
      token's entries; `output_norm`, the same about zero; `output_largest`, their largest absolute value;
      `output_change`, ‖Y − Y₀‖/‖Y₀‖.
      (draw, step, layer): `stream_change`, ‖X − X₀‖/‖X₀‖ on the tokens of the first batch; `branch_change`, the same of
      what a layer adds to the one before it; `token_norm`, `mean_absolute_correlation`, `effective_rank` and
      `gradient_norm` as in a probe, the gradient at steps that were trained from.
      (draw, step, attention): `attention_entropy`, `attention_spread`, `attention_range`, of the heads their mean, and
      of the range their largest.
      (draw, update, weight): `weight_gradient`; `weight_update`, ‖ΔW‖/‖W₀‖ in Frobenius norms, of a weightless matrix
      with the root mean square of ‖W₀‖; `effective_update`, ‖xΔW‖/‖xW‖ for the vectors x that met W. Weight decay is no
      part of ΔW. What has no value (W₀ = 0) is missing.
      (draw, update): `gradient_total`, the global norm, and `clipped`, by what it was multiplied; `rate`, by what
      warm-up multiplied the learning rates.
    - `settings`: how it was made, and what ended it: `ended` is `None`, or a sentence.
    """

    kind = "rehearsal"

    def effect_by_role(self) -> "dict[str, xarray.DataArray]":
        """Return the effective update of the matrices of each role, such as queries, in each block of the model.

        **Returns:** role → (draw, update, block), geometric means where a block has several; missing where none is
        known. `block` is the block's name, and empty for matrices outside the blocks.
        """
        import xarray

        if "effective_update" not in self.data:
            return {}
        effect = np.asarray(self.data["effective_update"].values)
        found = {}
        for role, blocks in by_role(map(str, self.data["weight"].values)).items():
            means = np.stack([_geometric_mean(effect[..., rows]) for rows in blocks.values()], -1)
            known = np.asarray(np.isfinite(means).any((0, 1)))
            if known.any():
                names = [name for name, there in zip(blocks, known, strict=True) if there]
                found[role] = xarray.DataArray(
                    means[..., known],
                    {"draw": self.data["draw"].values, "update": self.data["update"].values, "block": names},
                )
        return found

    def to_frame(self) -> "pandas.DataFrame":
        """Return a table with a row for each step, means over draws, and over layers the largest change."""
        import pandas

        data = self.data.mean("draw")
        return pandas.DataFrame(
            {
                "loss": data["loss"].values,
                "stream_change": data["stream_change"].max("layer").values,
                "output_change": data["output_change"].values,
                "output_size": data["output_size"].values,
                **({"attention_range": data["attention_range"].max("attention").values} if "attention" in data else {}),
            },
            index=pandas.Index(data["step"].values, name="step"),
        )


def _geometric_mean(values: Floats) -> Floats:
    """Return the geometric mean over the last axis, of the numbers that are known and positive; missing without any."""
    there = np.isfinite(values) & (values > 0)
    logarithms = np.log(np.where(there, values, 1.0)).sum(-1) / np.maximum(there.sum(-1), 1)
    return np.where(there.any(-1), np.exp(logarithms), np.nan)


@dataclass
class Course:
    """What was measured of one network so far: a pass for each step, and the updates between them."""

    passes: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)

    def add_pass(self, seen: Pass, first: Pass) -> None:
        """Reduce a pass to numbers; gradients come later.

        **Arguments:**

        - `seen`: the pass, on the tokens of the first batch.
        - `first`: the same before the first step.
        """
        rows = {name: [of_tokens(one) for one in layer.covariance] for name, layer in seen.layers.items()}
        names = list(first.streams)
        before, now = branches(first.streams), branches(seen.streams)
        outputs = seen.outputs.double()
        self.passes.append(
            {
                "loss": seen.loss,
                "output_size": float((outputs - outputs.mean(-1, keepdim=True)).square().mean().sqrt()),
                "output_norm": float(outputs.square().mean().sqrt()),
                "output_largest": float(outputs.abs().max()),
                "output_change": relative(seen.outputs - first.outputs, first.outputs),
                "stream_change": changes(seen.streams, first.streams),
                "branch_change": np.array(
                    [relative(now[name] - before[name], before[name]) if name in before else 0.0 for name in names]
                ),
                **{
                    measure: np.array([np.mean([row[measure] for row in rows[name]]) for name in names])
                    for measure in SHOWN
                    if measure in rows[names[0]][0]
                },
                "attention": {name: _heads(row) for name, row in seen.attention.items()},
            }
        )

    def add_gradients(self, layers: Mapping[str, Any]) -> None:
        """Add the gradients of the last pass, layer → Gram matrices of its sequences."""
        self.passes[-1]["gradient_norm"] = np.array(
            [
                np.mean([of_gradient(one)["gradient_norm"] for one in some]) if some else np.nan
                for some in layers.values()
            ]
        )

    def add_update(self, numbers: Mapping[str, float], norms: Mapping[str, float], moved: Mapping[str, Update]) -> None:
        """Add a step: its global numbers, the norms of gradients, and the updates of weights."""
        self.updates.append({**numbers, "norms": dict(norms), "moved": dict(moved)})


def _heads(row: Any) -> dict[str, float]:
    """Return the numbers of an attention layer: means over heads, and of the range the largest."""
    return {"entropy": float(row.entropy.mean()), "spread": float(row.spread.mean()), "range": float(row.range.max())}


def dataset(courses: Sequence[Course], layers: Sequence[str]) -> "xarray.Dataset":
    """Return the measurements of networks as one dataset, up to the last step that all of them reached.

    **Arguments:**

    - `courses`: of each network, with a pass at least.
    - `layers`: names of the layers.
    """
    import xarray

    steps = min(len(one.passes) for one in courses)
    updates = min(steps - 1, *(len(one.updates) for one in courses))
    variables: dict[str, Any] = {}

    def add(name: str, dims: tuple[str, ...], rows: Any) -> None:
        variables[name] = (("draw", *dims), np.array(rows, float))

    for name in ("loss", "output_size", "output_norm", "output_largest", "output_change"):
        add(name, ("step",), [[one[name] for one in course.passes[:steps]] for course in courses])
    for name in ("stream_change", "branch_change", *SHOWN):
        if name in courses[0].passes[0]:
            missing = np.full(len(layers), np.nan)
            rows = [[one.get(name, missing) for one in course.passes[:steps]] for course in courses]
            add(name, ("step", "layer"), rows)
    coordinates: dict[str, Any] = {"draw": range(len(courses)), "step": range(steps), "layer": list(layers)}
    if attention := list(courses[0].passes[0]["attention"]):
        coordinates["attention"] = attention
        for name in ATTENTION:
            rows = [
                [[one["attention"][layer][name] for layer in attention] for one in course.passes[:steps]]
                for course in courses
            ]
            add(f"attention_{name}", ("step", "attention"), rows)
    if updates > 0:
        coordinates["update"] = range(1, updates + 1)
        coordinates["weight"] = weights = list(courses[0].updates[0]["norms"])
        for name in ("gradient_total", "clipped", "rate"):
            add(name, ("update",), [[one[name] for one in course.updates[:updates]] for course in courses])
        add("weight_gradient", ("update", "weight"), _of_weights(courses, updates, weights, _gradient))
        add("weight_update", ("update", "weight"), _of_weights(courses, updates, weights, _moved("norm")))
        add("effective_update", ("update", "weight"), _of_weights(courses, updates, weights, _moved("effect")))
    return xarray.Dataset(variables, coordinates)


def _of_weights(courses: Sequence[Course], updates: int, weights: Sequence[str], number: Any) -> Floats:
    """Return a number of each weight, (draws, updates, weights)."""
    return np.array(
        [[[number(one, name) for name in weights] for one in course.updates[:updates]] for course in courses], float
    )


def _gradient(update: Mapping[str, Any], weight: str) -> float:
    """Return the norm of a weight's gradient; one that had none is missing."""
    return float(update["norms"].get(weight, np.nan))


def _moved(name: str) -> Any:
    """Return a function that returns a number of a weight's update."""

    def number(update: Mapping[str, Any], weight: str) -> float:
        moved = update["moved"].get(weight)
        value = None if moved is None else getattr(moved, name)
        return np.nan if value is None else float(value)

    return number
