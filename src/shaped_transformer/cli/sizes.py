"""`rehearse --widths … --depths …`: the coordinate check at true sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, counted
from ..io.provenance import command_line
from ..version import __version__
from .cost import say_cost
from .layer_table import as_json as plain
from .output import RESULTS, Screen, new_table, results_folder, write_results

if TYPE_CHECKING:
    from ..probe.batches import Batch
    from ..probe.loading import Subject
    from ..rehearse import CoordinateCheck

KIND = "coordinate check"
"""Kind of the results."""
DRAWS = 3
"""Number of networks of each size, unless the user says otherwise."""
ENDING = "Ctrl-C ends it and shows what is known by then, of two sizes at least."
"""What to do about a long check."""
HEADS = {
    "standard": "the model's own initialisation, one rate",
    "mup": "μP",
    "shaped": "rates by groups",
}
"""Parametrisations in words."""


def parse_factors(text: str | None, name: str) -> tuple[float, ...]:
    """Return the factors in a text such as `0.25,0.5,1,2`; none for `None`.

    **Arguments:**

    - `text`: as the user gave it.
    - `name`: of the option, for the message.

    **Raises:** `InputError` for another text.
    """
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name} must be factors such as 0.25,0.5,1,2 (got {text!r})") from None


def check_sizes(
    screen: Screen,
    subject: "Subject",
    batch: "Batch",
    optimizer: str,
    sizes: tuple[Sequence[float], Sequence[float]],
    parametrisation: str,
    settings: dict[str, Any],
    out: Path | None,
) -> bool | None:
    """Rehearse a configuration at several sizes, and print the slopes.

    **Arguments:**

    - `screen`: where to.
    - `subject`: the configuration.
    - `batch`: what it is trained on.
    - `optimizer`, `parametrisation`, `settings`: of `st.rehearse.coordinate_check`.
    - `sizes`: factors of width and of depth.
    - `out`: folder for the results, or `None`.

    **Returns:** whether nothing fans; `None` after an interrupt.

    **Raises:** `InputError` for a model that is no configuration, or sizes that do not fit.
    """
    from ..rehearse import coordinate_check
    from ..rehearse.slopes import FANNING

    if subject.cls is None:
        raise InputError(
            f"{subject.name} is a function, whose sizes are not known: give a configuration, or use "
            "st.rehearse.coordinate_check with a function (width, depth) → module"
        )
    widths, depths = sizes
    if optimizer == "adamw":
        _say_cost(subject, batch, sizes, settings)

    def run() -> "CoordinateCheck":
        return coordinate_check(
            subject.source,
            batch.split(),
            optimizer,
            cls=subject.cls,
            widths=widths,
            depths=depths,
            parametrisation=parametrisation,
            partial=True,
            **settings,
        )

    if out is None:
        found = run()
        report = _report(subject, batch, found)
    else:
        from ..plotting.coordinates import plot

        with results_folder(out, KIND) as folder:
            found = run()
            report = _report(subject, batch, found)
            found.save(folder / "dataset.zarr")
            write_results(folder, None, plot(found), report)
    _print(screen, found, report)
    if out is not None:
        screen.report(out, report, RESULTS)
    else:
        screen.json(report)
    if found.settings["ended"]:
        return None
    last = found.to_frame()
    return not bool((last["verdict"][last["step"] == last["step"].max()] == FANNING).any())


def _say_cost(
    subject: "Subject", batch: "Batch", sizes: tuple[Sequence[float], Sequence[float]], settings: dict[str, Any]
) -> None:
    """Say about how long all sizes take, and how much memory the largest, if it is long."""
    from .. import weightless
    from ..rehearse.coordinates import points
    from ..rehearse.cost import estimate, tokens_of
    from ..rehearse.scaling import scaled

    costs = []
    for width, depth in {factors for _, factors in points(*sizes)}:
        given: dict[str, Any] = {"cls": subject.cls, "approximate": settings["approximate"], "history": True}
        module = weightless.from_config(scaled(subject.source, width, depth), **given)
        costs.append(estimate(module, tokens_of(batch.split()[0], module), settings["steps"]))
    say_cost(settings["draws"] * sum(one.seconds for one in costs), max(one.gigabytes for one in costs), ENDING)


def _report(subject: "Subject", batch: "Batch", found: "CoordinateCheck") -> dict[str, Any]:
    """Return model, input, slopes and origin as JSON values."""
    report = {
        "kind": KIND,
        "command": command_line(),
        "version": __version__,
        "model": subject.name,
        "class": subject.cls.__name__,
        "notes": list(subject.notes),
        "input": batch.what,
        "shape": [1, *batch.shape[1:]],
        "settings": found.settings,
        "sentence": found.sentence,
        "slopes": found.to_frame().to_dict("records"),
        "values": {
            "axis": found.data["axis"].values,
            "factor": found.data["factor"].values,
            "quantity": found.data["quantity"].values,
            "mean": found.data["value"].mean("draw").values,
        },
    }
    written: dict[str, Any] = plain(report)
    return written


def _print(screen: Screen, found: "CoordinateCheck", report: dict[str, Any]) -> None:
    """Print what was checked, what was found, and a table of slopes for each axis."""
    settings = report["settings"]
    names = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
    how = HEADS.get(settings["parametrisation"], settings["parametrisation"])
    screen.line(f"Coordinate check of {report['model']}: {report['class']}, {how}.")
    screen.line(
        f"Training: {names.get(settings['optimiser'], settings['optimiser'])}, rate {settings['lr']:g}, "
        f"{counted(settings['draws'], 'network')} of each size. Input: {report['input']}, "
        f"{' × '.join(map(str, report['shape']))}. No weights are made or read."
    )
    if settings["ended"]:
        screen.line(f"Not all sizes: {settings['ended']}.")
    screen.line(f"Verdict: {found.sentence}")
    screen.line("")
    data = found.data
    for axis in data["along"].values.tolist():
        at = np.flatnonzero(data["axis"].values == axis)
        factors = [f"× {x:g}" for x in data["factor"].values[at]]
        step = int(data["step"].values[-1])
        table = new_table(
            "quantity",
            title=f"Changes after step {step}, by {axis}: slope of the logarithm, with its 95 % interval",
            numbers=[*factors, "slope", "interval", ""],
        )
        table.columns[0].no_wrap = True
        means = data["value"].isel(point=at, step=-1).mean("draw")
        for name in data["quantity"].values.tolist():
            slope = found.slope(name, step, axis)
            if np.isfinite(slope.value):
                values = [f"{x:.3g}" for x in means.sel(quantity=name).values]
                table.add_row(name, *values, f"{slope.value:.2f}", f"[{slope.low:.2f}, {slope.high:.2f}]", slope.word)
        screen.table(table)
