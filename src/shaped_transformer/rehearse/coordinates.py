"""The coordinate check at true sizes: whether what the first steps move depends on width or depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import check_count, check_number
from ..errors import InputError
from ..estimates import BOUNDS
from ..io.progress import progress
from ..numerics.arrays import Floats
from ..probe.result import Stored
from .parametrisations import Parametrisation, parametrisation_of
from .rehearsal import Rehearsal
from .roles import HEAD, KEY, OTHER, QUERY, ROLES, role
from .scaling import sized
from .slopes import FALLING, FANNING, LEVEL, UNCLEAR, Slope, fit
from .steps import run

if TYPE_CHECKING:
    import pandas
    import xarray

STREAM, OUTPUTS, ATTENTION, UPDATE = "stream", "outputs", "attention logits", "update of {}"
"""Names of the quantities."""
AXES = ("width", "depth")


def quantities(rehearsal: Rehearsal, temperature: float = 1.0) -> dict[str, Floats]:
    """Return what the steps of a rehearsal moved, (draws, steps) each.

    - `stream`: ‖X − X₀‖/‖X₀‖ at the last layer;
    - `outputs`: root mean square of Y − Y₀;
    - `attention logits`: their spread along a row, mean over heads and layers, where attention weights are returned;
    - `update of ROLE`: ‖xΔW‖/‖xW‖ of a step, root mean square over the weights of a role. For queries and keys it is
      multiplied by the spread of the attention logits before the step, and for the head by the size of the outputs
      before it: by how much the logits move. This matters where logits are meant to be small at initialisation.

    **Arguments:**

    - `rehearsal`: of one size.
    - `temperature`: by what the logits of attention are multiplied at this size, where weights are not returned.
    """
    data = rehearsal.data
    steps = slice(1, data.sizes["step"])
    out = {
        STREAM: data["stream_change"].values[:, steps, -1],
        OUTPUTS: data["output_change"].values[:, steps] * data["output_norm"].values[:, :1],
    }
    spread = np.full((data.sizes["draw"], data.sizes["step"]), temperature)
    if "attention_spread" in data:
        spread = data["attention_spread"].mean("attention").values
        out[ATTENTION] = spread[:, steps]
    scale = {QUERY: spread[:, :-1], KEY: spread[:, :-1], HEAD: data["output_norm"].values[:, :-1]}
    if "effective_update" in data:
        roles = np.array([role(str(name)) for name in data["weight"].values])
        for one in ROLES:
            squares = data["effective_update"].values[:, :, roles == one] ** 2
            known = np.isfinite(squares).all((0, 1))
            if one != OTHER and known.any():
                out[UPDATE.format(one)] = np.sqrt(squares[:, :, known].mean(-1)) * scale.get(one, 1.0)
    return out


@dataclass(frozen=True, eq=False)
class CoordinateCheck(Stored):
    """What the first steps move in models of several sizes, and how it depends on size.

    **Attributes:**

    - `data`: an xarray dataset. `value` (point, draw, step, quantity): the numbers of `quantities`; a point is a size,
      with the coordinates `axis`, `"width"` or `"depth"`, and `factor`. `slope` (along, quantity, step, bound): of
      log₂(value) against log₂(factor) along an axis, with its 95 % interval over draws.
    - `settings`: how it was made, and what ended it: `ended` is `None`, or a sentence.
    """

    kind = "rehearsal coordinate check"

    def slope(self, quantity: str, step: int, axis: str = "width") -> Slope:
        """Return the slope of a quantity.

        **Arguments:**

        - `quantity`: such as `"stream"` or `"update of query"`.
        - `step`: from 1.
        - `axis`: `"width"` (default) or `"depth"`.

        **Raises:** `InputError` where it was not measured.
        """
        known = {"along": axis, "quantity": quantity, "step": step}
        for dim, value in known.items():
            if value not in self.data[dim].values.tolist():
                raise InputError(
                    f"unknown {dim if dim != 'along' else 'axis'} {value!r}: choose from "
                    f"{', '.join(map(str, self.data[dim].values))}"
                )
        return Slope(*map(float, self.data["slope"].sel(known).values))

    def to_frame(self) -> "pandas.DataFrame":
        """Return a table of slopes: a row for each axis, quantity and step, with interval and what it means."""
        import pandas

        rows = [
            (axis, quantity, step, slope.value, slope.low, slope.high, slope.word)
            for axis in self.data["along"].values.tolist()
            for quantity in self.data["quantity"].values.tolist()
            for step in self.data["step"].values.tolist()
            if np.isfinite((slope := self.slope(quantity, step, axis)).value)
        ]
        return pandas.DataFrame(rows, columns=["axis", "quantity", "step", "slope", "low", "high", "verdict"])

    @property
    def sentence(self) -> str:
        """What was found, in words, about the last step."""
        return " ".join(self._sentence(axis) for axis in self.data["along"].values.tolist())

    def _sentence(self, axis: str) -> str:
        """Return what was found along an axis."""
        step = int(self.data["step"].values[-1])
        found: dict[str, list[tuple[str, Slope]]] = {}
        for quantity in self.data["quantity"].values.tolist():
            slope = self.slope(quantity, step, axis)
            if np.isfinite(slope.value):
                found.setdefault(slope.word, []).append((quantity, slope))
        factors = self.data["factor"].values[self.data["axis"].values == axis]
        where = f"over {axis} × {factors.min():g} to {factors.max():g} at step {step}"
        rising = sorted(found.get(FANNING, []), key=lambda one: -one[1].value)
        if rising:
            name, slope = rising[0]
            text = f"Fanning {where}: {name} most of all, {2**slope.value:.3g} times for each doubling (slope {slope})"
            text += f"; also {_listed(rising[1:])}" if rising[1:] else ""
        else:
            text = f"{'Flat' if LEVEL in found else 'Nothing fans'} {where}"
        for word, shown in ((FALLING, "falling"), (UNCLEAR, "unclear, more draws are needed")):
            text += f"; {shown}: {_listed(found[word])}" if word in found else ""
        return f"{text}."


def _listed(some: Sequence[tuple[str, Slope]]) -> str:
    """Return quantities with their slopes."""
    return ", ".join(f"{quantity} ({slope.value:.2f})" for quantity, slope in some)


def coordinate_check(
    model: Any,
    batches: Any,
    optimiser: str | Callable[[Any], Any] = "adamw",
    *,
    lr: float,
    widths: Sequence[float] = (0.25, 0.5, 1, 2),
    depths: Sequence[float] = (),
    parametrisation: str | Parametrisation = "standard",
    steps: int = 3,
    draws: int = 3,
    cls: Any = None,
    partial: bool = False,
    **options: Any,
) -> CoordinateCheck:
    """Return whether what the first steps move depends on width or depth, at true sizes and without weights.

    Where learning rates and initialisation fit, a quantity is flat; where it fans out with the size, a rate that suits
    the small model is too large for the large one.

    ```python
    from transformers import LlamaConfig
    config = LlamaConfig(
        hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=64
    )
    ids = torch.arange(8)[None]
    found = st.rehearse.coordinate_check(
        config, {"input_ids": ids, "labels": ids}, lr=1e-4, widths=(0.5, 1, 2), parametrisation="mup"
    )
    print(found.sentence)
    ```

    **Arguments:**

    - `model`: a Hugging Face configuration, or a function (width, depth) → module that takes both factors.
    - `batches`: as in `st.rehearse.run`, or a function (width, depth) → batches, for models whose input is as wide as
      they are.
    - `optimiser`, `lr`, `steps`: as in `st.rehearse.run`.
    - `widths`, `depths`: factors of the model's size; default ¼ to twice the width. Each axis is left at 1 while the
      other varies.
    - `parametrisation`: `"standard"` (default), the model's own initialisation and one rate; `"mup"`, μP relative to
      the model at width factor 1, for AdamW; `"shaped"`, our rates for shaped Transformers; or a function (model,
      base, class) → `Parametrised`.
    - `draws`: networks of each size, default 3; intervals need two.
    - `cls`: class for configurations, default `AutoModelForCausalLM`.
    - `partial`: whether an interrupt returns what is known of the sizes before, if these are two at least. Default no:
      it is raised.
    - `options`: further arguments of `st.rehearse.run`, such as `warmup`, `clip`, `seed`.

    **Raises:** `InputError` for sizes that do not fit, fewer than two sizes on each axis, or training that numbers end
    before its last step; as `st.rehearse.run` otherwise.
    """
    check_count(draws, "draws")
    sizes = points(widths, depths)
    make = parametrisation_of(parametrisation)
    if parametrisation == "mup" and optimiser in ("muon", "sgd"):
        raise InputError(
            f"the rates of 'mup' are for Adam (got the optimiser {optimiser!r}): use 'adamw', or give a function "
            "(model, base, class) → st.rehearse.Parametrised with rates that suit it"
        )
    if "groups" in options:
        raise InputError("the parametrisation sets the groups: make it a function (model, base, class) instead")

    def measure(width: float, depth: float) -> dict[str, Floats]:
        one = make(sized(model, width, depth), sized(model, 1.0, depth), cls)
        if one.groups is not None and callable(optimiser):
            raise InputError("the rates of this parametrisation come in groups: give the optimiser by its name")
        given = batches(width, depth) if callable(batches) else batches
        settings = {"lr": lr, "steps": steps, "groups": one.groups, "draws": draws, "cls": cls}
        result = run(one.model, given, optimiser, **settings, **options)
        if result.settings["ended"]:
            raise InputError(
                f"at width × {width:g} and depth × {depth:g} {result.settings['ended']}: take a smaller rate"
            )
        return quantities(result, width**one.logits)

    done: dict[tuple[float, float], dict[str, Floats]] = {}
    wanted, ended = list(dict.fromkeys(factors for _, factors in sizes)), None
    with progress("Sizes", len(wanted)) as advance:
        for factors in wanted:
            try:
                done[factors] = measure(*factors)
            except KeyboardInterrupt:
                if not partial or len(done) < 2:
                    raise
                ended = f"it was interrupted after {len(done)} of {len(wanted)} sizes"
                break
            advance(1)
    known = [(axis, factors) for axis, factors in sizes if factors in done]
    settings = {
        "optimiser": optimiser if isinstance(optimiser, str) else getattr(optimiser, "__name__", "a function"),
        "parametrisation": parametrisation
        if isinstance(parametrisation, str)
        else getattr(parametrisation, "__name__", "a function"),
        "lr": lr,
        "steps": steps,
        "draws": draws,
        "widths": list(map(float, widths)),
        "depths": list(map(float, depths)),
        **{name: value for name, value in options.items() if isinstance(value, (str, int, float, bool, type(None)))},
        "ended": ended,
    }
    return CoordinateCheck(dataset(known, [done[factors] for _, factors in known]), settings)


def points(widths: Sequence[float], depths: Sequence[float]) -> list[tuple[str, tuple[float, float]]]:
    """Return the sizes of a check: of each its axis, and both factors.

    **Raises:** `InputError` for factors that are not positive and different, or fewer than two along each axis.
    """
    found: list[tuple[str, tuple[float, float]]] = []
    for axis, factors in zip(AXES, (widths, depths), strict=True):
        checked = [check_number(one, f"{axis}s") for one in factors]
        if len(set(checked)) < len(checked) or not all(0 < one < float("inf") for one in checked) or len(checked) == 1:
            raise InputError(f"{axis}s must be at least two different positive factors, or empty (got {list(factors)})")
        found += [(axis, (one, 1.0) if axis == "width" else (1.0, one)) for one in sorted(checked)]
    if not found:
        raise InputError("give factors of width or of depth, at least two: widths=(0.5, 1, 2)")
    return found


def dataset(
    sizes: Sequence[tuple[str, tuple[float, float]]], values: Sequence[Mapping[str, Floats]]
) -> "xarray.Dataset":
    """Return the numbers of all sizes with their slopes.

    **Arguments:**

    - `sizes`: axis and factors of each size, as `points` returns them.
    - `values`: of each size its quantities, (draws, steps), which all sizes have. Where some sizes have fewer draws,
      the others are missing.
    """
    import xarray

    names = [name for name in values[0] if all(name in one for one in values)]
    steps, draws = values[0][names[0]].shape[1], max(one[names[0]].shape[0] for one in values)
    table = np.full((len(sizes), draws, steps, len(names)), np.nan)
    for i, found in enumerate(values):
        for j, name in enumerate(names):
            table[i, : len(found[name]), :, j] = found[name]
    axis = np.array([one for one, _ in sizes])
    factor = np.array([width if one == "width" else depth for one, (width, depth) in sizes])
    along = [one for one in AXES if (axis == one).sum() > 1]
    slopes = np.full((len(along), len(names), steps, len(BOUNDS)), np.nan)
    for i, one in enumerate(along):
        for j, k in np.ndindex(len(names), steps):
            columns = [row[np.isfinite(row)] for row in table[axis == one, :, k, j]]
            if all((column > 0).all() and column.size for column in columns):
                slopes[i, j, k] = fit(factor[axis == one], columns).to_array()
    return xarray.Dataset(
        {
            "value": (("point", "draw", "step", "quantity"), table),
            "slope": (("along", "quantity", "step", "bound"), slopes),
        },
        {
            "axis": ("point", axis),
            "factor": ("point", factor),
            "step": range(1, steps + 1),
            "quantity": names,
            "along": along,
            "bound": list(BOUNDS),
        },
    )
