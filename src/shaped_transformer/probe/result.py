"""What a probe has measured: an xarray dataset with its settings, saved and loaded as a zarr store."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, StorageError, counted
from ..io.files import read_store, replacing
from ..io.provenance import command_line
from ..numerics.arrays import Floats
from ..version import __version__
from .attention import AttentionRow
from .measures import MEASURES, QUANTILES, of_gradient, of_tokens
from .observation import Seen

if TYPE_CHECKING:
    import pandas
    import xarray

    from .comparison import Comparison
    from .expectation import Expectation

KNOWN = {"branch": "branch_known", "gradient": "gradient_known"}
"""Beginnings of the names of numbers that some layers lack, and the variables that tell which layers have them."""

OURS = ("probe", "rehearsal")
"""Beginnings of the kinds of stores that are written here."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Numbers of layers with their settings, which can be saved and loaded.

    **Attributes:**

    - `data`: an xarray dataset with the dimension `layer`.
    - `settings`: values that JSON can hold.
    """

    data: "xarray.Dataset"
    settings: Mapping[str, Any]
    kind: ClassVar[str]

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        return [str(name) for name in self.data.layer.values]

    def over_sequences(self, measure: str) -> Floats:
        """Return a number, mean over sequences.

        **Raises:** `InputError` for a number that was not measured.
        """
        if measure not in self.data:
            known = ", ".join(name for name in MEASURES if name in self.data)
            raise InputError(f"unknown measure {measure!r}: choose one of {known}")
        return np.asarray(self.data[measure].mean("sequence").values)

    def known(self, measure: str) -> NDArray[np.bool_]:
        """Return at which layers a number is known, (layers,); elsewhere it is 0."""
        name = KNOWN.get(measure.partition("_")[0])
        if name is None or name not in self.data:
            return np.ones(self.data.sizes["layer"], bool)
        known = self.data[name]
        return np.asarray(known.all([dim for dim in known.dims if dim != "layer"]).values, bool)

    def save(self, path: str | Path) -> None:
        """Save as a zarr store, whole or not at all.

        **Raises:** `StorageError` where it cannot be written.
        """
        write(self.data, self.settings, self.kind, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load what `save` wrote.

        **Raises:** `StorageError` where there is no such store.
        """
        return cls(*read(cls.kind, path))


@dataclass(frozen=True, eq=False)
class ProbeResult(Stored):
    """What a model did to its tokens, layer by layer.

    ```python
    import torch
    model = st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    result = st.probe.run(model, torch.randn(2, 8, 64))
    print(result.to_frame()[["token_norm", "effective_rank"]])
    ```

    **Attributes:**

    - `data`: an xarray dataset. Variables (layer, sequence): those of `MEASURES`, such as `token_norm`,
      `mean_absolute_correlation`, `effective_rank`, and `tokens`, how many were measured. `branch_known` (layer) tells
      where `branch_share` is known, and `gradient_known` (layer) where gradients are; elsewhere they are 0.
      `covariance` and `gradient_covariance` (layer, sequence, token, other): V = XXᵀ/n and GGᵀ/n, zero beyond `tokens`.
      `correlation_quantile` (layer, sequence, quantile) of |ρ|. `weight_gradient` (weight): norms of the gradients of
      the parameters. `attention_entropy`, `attention_from_uniform`, `attention_from_identity`, `attention_spread`,
      `attention_range` (attention, head), where asked for. Measures of gradients are missing without a backward pass.
    - `settings`: how it was measured, and what was seen: `not_finite`, the first layer with infinite or undefined
      tokens, from which on layers are left out, or `None`; `gradient`, whether there are gradients, or why not;
      `no_gradient`, the layers that have none where others have, each with the reason; `attention`, which was computed,
      and whether it returned weights where they were asked for.
    """

    kind = "probe"

    def mean(self, measure: str) -> Floats:
        """Return a number of each layer, (layers,), mean over sequences.

        **Raises:** `InputError` for a number that was not measured.
        """
        return self.over_sequences(measure)

    @property
    def without_gradient(self) -> str:
        """Why some layers have no gradient where others have, in words; empty where all have."""
        reasons = list(self.settings.get("no_gradient", {}).values())
        more = f"; and {counted(len(reasons) - 3, 'more layer')}" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more

    def to_frame(self) -> "pandas.DataFrame":
        """Return a table with a row for each layer and a column for each number, means over sequences."""
        import pandas

        return pandas.DataFrame(
            {name: self.mean(name) for name in MEASURES if name in self.data},
            index=pandas.Index(self.layers, name="layer"),
        )

    def compare(self, expected: "Expectation") -> "Comparison":
        """Return where the measurement lies in what the initialisation would do.

        **Arguments:**

        - `expected`: from `st.probe.expected`, with the same batch.

        **Raises:** `InputError` where layers differ.
        """
        from .comparison import compare_with

        return compare_with(self, expected)


def write(data: "xarray.Dataset", settings: Mapping[str, Any], kind: str, path: str | Path) -> None:
    """Write a dataset with its settings."""
    attributes = {
        "kind": kind,
        "settings": json.dumps(dict(settings)),
        "version": __version__,
        "command": command_line(),
    }
    place = Path(path)
    with replacing(place) as temporary:
        if place.exists() and not _is_ours(place):
            raise StorageError(
                f"{place} exists and is not the result of a probe or a rehearsal: choose another place, or remove it"
            )
        data.assign_attrs(attributes).to_zarr(temporary, mode="w", zarr_format=2)


def read(kind: str, path: str | Path) -> tuple["xarray.Dataset", dict[str, Any]]:
    """Return a dataset and its settings."""
    data = read_store(Path(path))
    if data.attrs.get("kind") != kind:
        raise StorageError(f"{path} holds something else: a {kind} is expected")
    try:
        settings = json.loads(data.attrs["settings"])
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{path} has lost its settings") from None
    return data.drop_attrs(deep=False), settings


def _is_ours(path: Path) -> bool:
    """Whether a store is one that `write` wrote."""
    try:
        return str(read_store(path).attrs.get("kind", "")).startswith(OURS)
    except StorageError:
        return False


def dataset(
    layers: Mapping[str, Seen],
    attention: Mapping[str, AttentionRow],
    weights: Mapping[str, float],
    gradients: Mapping[str, list[Floats]],
) -> "xarray.Dataset":
    """Return the dataset of finite layers.

    **Arguments:**

    - `layers`: what was seen of each, all finite.
    - `attention`: of each attention layer.
    - `weights`: norms of the gradients of parameters.
    - `gradients`: GGᵀ/n of each sequence, of the layers where it is known and finite.
    """
    import xarray

    most = max(len(one) for seen in layers.values() for one in seen.covariance)
    sequences = len(next(iter(layers.values())).covariance)
    if any(len(seen.covariance) != sequences for seen in layers.values()):
        raise InputError("layers differ in their number of sequences: observe the encoder and the decoder apart")
    dims = ("layer", "sequence")
    rows = {name: [of_tokens(one) for one in seen.covariance] for name, seen in layers.items()}
    names = [name for name in MEASURES if name in rows[next(iter(rows))][0]]
    variables: dict[str, Any] = {
        name: (dims, np.array([[row[name] for row in rows[layer]] for layer in layers])) for name in names
    }
    variables["correlation_quantile"] = (
        (*dims, "quantile"),
        np.array([[row["correlation_quantile"] for row in rows[layer]] for layer in layers]),
    )
    variables["tokens"] = (dims, np.array([[len(one) for one in seen.covariance] for seen in layers.values()]))
    variables["covariance"] = ((*dims, "token", "other"), _stacked([seen.covariance for seen in layers.values()], most))
    variables["branch_share"] = (dims, np.array([seen.branch or [0.0] * sequences for seen in layers.values()]))
    variables["branch_known"] = (("layer",), np.array([seen.branch is not None for seen in layers.values()]))
    if gradients:
        none = [np.zeros((1, 1))] * sequences
        slopes = {name: [of_gradient(one) for one in found] for name, found in gradients.items()}
        for name in slopes[next(iter(slopes))][0]:
            values = [[row[name] for row in slopes[one]] if one in slopes else [0.0] * sequences for one in layers]
            variables[name] = (dims, np.array(values))
        variables["gradient_known"] = (("layer",), np.array([name in gradients for name in layers]))
        variables["gradient_covariance"] = (
            (*dims, "token", "other"),
            _stacked([gradients.get(name, none) for name in layers], most),
        )
    coordinates: dict[str, Any] = {"layer": list(layers), "sequence": range(sequences), "quantile": list(QUANTILES)}
    if weights:
        variables["weight_gradient"] = (("weight",), np.array(list(weights.values())))
        coordinates["weight"] = list(weights)
    if attention:
        same = len({len(row.entropy) for row in attention.values()}) == 1
        coordinates["attention"] = list(attention)
        for name in ("entropy", "from_uniform", "from_identity", "spread", "range"):
            values = [getattr(row, name) for row in attention.values()]
            heads = values if same else [np.mean(one, keepdims=True) for one in values]
            variables[f"attention_{name}"] = (("attention", "head"), np.array(heads))
    return xarray.Dataset(variables, coordinates)


def _stacked(matrices: list[list[Floats]], size: int) -> Floats:
    """Return matrices as one array, (layers, sequences, size, size), with zeros where they are smaller."""
    out = np.zeros((len(matrices), len(matrices[0]), size, size))
    for i, row in enumerate(matrices):
        for j, one in enumerate(row):
            out[i, j, : len(one), : len(one)] = one
    return out
